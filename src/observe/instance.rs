//! The metrics of the process itself: what was built, which configuration it runs on, until when its certificate holds.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use super::metrics::{counters, gauge, gauges};

/// Everything told of this process beside what the system knows of it.
pub struct InstanceMeter {
    /// Reloads that were served, and those that were not.
    reloads: [IntCounter; 2],
    last_reload: IntGauge,
    last_succeeded: IntGauge,
    certificates: IntGaugeVec,
}

impl InstanceMeter {
    pub(super) fn new(r: &Registry) -> Self {
        let reloads = counters(r, "config_reloads_total", "Attempts to reload the configuration, by result.", &["result"]);
        let build = gauges(r, "mcp_gateway_build_info", "1, labelled by what was built.", &["version", "os", "arch"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH]).set(1);
        Self {
            reloads: ["ok", "failed"].map(|result| reloads.with_label_values(&[result])),
            last_reload: gauge(r, "config_last_reload_timestamp_seconds", "When the running configuration was loaded, since 1970."),
            last_succeeded: gauge(r, "config_last_reload_successful", "1 while the configuration last read is the one that is served."),
            certificates: gauges(
                r,
                "certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, or the first of its chain, since 1970, by the key it is configured with.",
                &["certificate"],
            ),
        }
    }

    /// Notes that what is served was loaded just now.
    pub fn loaded(&self) {
        self.last_reload.set(jiff::Timestamp::now().as_second());
        self.last_succeeded.set(1);
    }

    /// Counts a reload, which a later one makes good if it failed.
    pub fn reloaded(&self, is_served: bool) {
        self.reloads[usize::from(!is_served)].inc();
        if is_served {
            self.loaded();
        } else {
            self.last_succeeded.set(0);
        }
    }

    /// Notes when a certificate ends, in seconds since 1970; `key` is where the configuration names it.
    pub fn certificate(&self, key: &str, ends: i64) {
        self.certificates.with_label_values(&[key]).set(ends);
    }
}
