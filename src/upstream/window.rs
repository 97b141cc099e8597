//! How many of the last requests failed: counts in buckets of a tenth of the window, so that what is older falls out in
//! steps and nothing is kept for each request.

use std::time::{Duration, Instant};

const BUCKETS: usize = 10;

/// Requests and failures of the last while.
#[derive(Debug, Default)]
pub struct Window {
    buckets: [Bucket; BUCKETS],
    /// When time began, with the first count.
    origin: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    /// Which tenth it counts, from `origin`.
    tenth: u64,
    requests: u32,
    failures: u32,
}

impl Window {
    /// Counts one request.
    pub fn count(&mut self, now: Instant, length: Duration, failed: bool) {
        let tenth = self.tenth(now, length);
        let bucket = &mut self.buckets[usize::try_from(tenth).unwrap_or(0) % BUCKETS];
        if bucket.tenth != tenth {
            *bucket = Bucket { tenth, ..Bucket::default() };
        }
        bucket.requests += 1;
        bucket.failures += u32::from(failed);
    }

    /// Whether the failures within the window are at least `share` of its requests, which are at least `least`.
    pub fn exceeds(&mut self, now: Instant, length: Duration, share: f64, least: u32) -> bool {
        let tenth = self.tenth(now, length);
        let recent = self.buckets.iter().filter(|bucket| bucket.tenth + BUCKETS as u64 > tenth && bucket.tenth <= tenth);
        let (requests, failures) = recent.fold((0, 0), |(r, f), bucket| (r + bucket.requests, f + bucket.failures));
        requests >= least && f64::from(failures) >= share * f64::from(requests)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn tenth(&mut self, now: Instant, length: Duration) -> u64 {
        let origin = *self.origin.get_or_insert(now);
        let each = (length / 10).max(Duration::from_millis(1));
        u64::try_from(now.saturating_duration_since(origin).as_nanos() / each.as_nanos()).unwrap_or(u64::MAX / 2)
    }
}
