//! The look before the door: requests of one address in a second, estimated by pingora-limits without keeping anything
//! for an address. It never lets more through than it says and may refuse a little early when very many addresses come
//! at once, which is right for floods and wrong for what tenants are promised (see `limit`).

use std::net::IpAddr;
use std::time::Duration;

use pingora_limits::rate::Rate;

/// Rows and columns of the estimator: about a megabyte, and with fifty thousand addresses in a second still exact for
/// nearly all.
const ROWS: usize = 4;
const COLUMNS: usize = 16_384;

/// Counts requests by address.
pub struct Coarse {
    rate: Rate,
}

impl Default for Coarse {
    fn default() -> Self {
        Self { rate: Rate::new_with_estimator_config(Duration::from_secs(1), ROWS, COLUMNS) }
    }
}

impl Coarse {
    /// Counts a request; tells whether its address had more than `limit` of them within this second.
    pub fn exceeds(&self, address: IpAddr, limit: u32) -> bool {
        let key = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // Its /64, as with the exact limits.
            IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).unwrap_or(u64::MAX) | 1 << 63,
        };
        self.rate.observe(&key, 1) > isize::try_from(limit).unwrap_or(isize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_seen_and_its_neighbour_is_not_blamed() {
        let coarse = Coarse::default();
        let count = |address: &str| (0..1000).filter(|_| coarse.exceeds(address.parse().unwrap(), 100)).count();
        // The second may turn once while it is counted.
        assert!(count("192.0.2.1") >= 800);
        assert!(count("2001:db8::1") >= 800);
        assert!(!coarse.exceeds("192.0.2.2".parse().unwrap(), 100));
        assert!(coarse.exceeds("2001:db8::2".parse().unwrap(), 100), "the same network");
    }
}
