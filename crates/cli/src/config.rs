//! `muster.toml` as an operator writes it, and the checked settings that come out of it.
//!
//! Every key also comes from the environment as `MUSTER_SECTION_KEY`; a flag of `serve` wins over both. All problems
//! are reported at once, each with the file (or the variable) and the key. Nothing here opens a file but [`load`].

mod amqp;
mod check;
mod outbound;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use domain::quota::Quotas;
use serde::{Deserialize, Serialize};
use server::balancer::Balancer;

pub use amqp::Amqp;
pub use check::{Problem, overlay};
pub use outbound::Outbound;

/// The most records of one kind that a limit can be set to.
const AMOUNT_MAX: u64 = 1_000_000_000;
/// Most bytes of files that can be set.
const BYTES_MAX: u64 = 1 << 50;

/// The whole file. Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the server listens, and under which names.
    pub listen: Listen,
    /// The server's own certificates.
    pub tls: Tls,
    /// How devices are provisioned.
    pub provisioning: Provisioning,
    /// What hubs keep.
    pub hub: Hub,
    /// Bounds that protect the server.
    pub limits: Limits,
    /// What one AMQP connection may take.
    pub amqp: Amqp,
    /// How messages are sent to endpoints.
    pub outbound: Outbound,
    /// How many there may be of what operators and devices create.
    pub quotas: Quotas,
    /// How the server stops.
    pub shutdown: Shutdown,
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// HTTPS and WebSocket; 0 takes a free port.
    pub https_port: u16,
    /// MQTT over TLS; 0 takes a free port.
    pub mqtts_port: u16,
    /// AMQP over TLS; 0 takes a free port.
    pub amqps_port: u16,
    /// Management, portal and metrics; 0 takes a free port.
    pub admin_port: u16,
    /// Suffix of all host names; empty hands out addresses instead of names.
    pub domain: String,
    /// Addresses of this machine to hand out instead of loopback ones, or to listen on under `domain`.
    pub addresses: Vec<String>,
    /// Balancers in front of this server: addresses, or prefixes such as `10.0.0.0/8`. Every connection from one, on any
    /// port, must begin with a header of PROXY protocol version 2, which says whom it comes from.
    pub balancers: Vec<String>,
    /// Whether a port that may not be opened stops the start, also where a default could be replaced.
    pub strict: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            https_port: 443,
            mqtts_port: 8883,
            amqps_port: 5671,
            admin_port: 8443,
            domain: String::new(),
            addresses: Vec::new(),
            balancers: Vec::new(),
            strict: false,
        }
    }
}

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of a certificate chain that the operator brings, leaf first; used for the names it covers.
    pub certificate_file: String,
    /// PEM file of its private key.
    pub key_file: String,
}

/// `[provisioning]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provisioning {
    /// Seconds a device waits before it polls an unfinished assignment, 2 to 5: what every SDK honours.
    pub retry_after_s: u32,
    /// Assignments that the worker carries out side by side, 1 to 1,000.
    pub claim_batch: usize,
    /// Symmetric-key groups tried for an unknown registration ID, 1 to 100,000.
    pub key_groups_tried_max: usize,
    /// Hours that ended operations can still be polled, at least 24.
    pub operations_kept_h: u32,
}

impl Default for Provisioning {
    fn default() -> Self {
        Self { retry_after_s: 3, claim_batch: 512, key_groups_tried_max: 1_000, operations_kept_h: 24 }
    }
}

/// `[hub]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hub {
    /// Days that telemetry is kept unless the hub says otherwise, 1 to 365.
    pub telemetry_kept_days: u16,
    /// Mebibytes that the telemetry of all hubs may take before the oldest goes, at least 64.
    pub telemetry_kept_mib: u64,
    /// Partitions of a fresh hub, 1 to 32.
    pub partitions: u16,
}

impl Default for Hub {
    fn default() -> Self {
        Self { telemetry_kept_days: 1, telemetry_kept_mib: 10 * 1_024, partitions: 4 }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds a client has for the TLS handshake, a balancer's header included.
    pub handshake_s: u32,
    /// Handshakes under way at once.
    pub handshakes: usize,
    /// Handshakes a minute that one address gets back once its burst is used up, 0 for any number. Loopback is exempt
    /// from this bound and the next two.
    pub address_handshakes_per_min: u32,
    /// Handshakes that one address may begin at short notice.
    pub address_handshakes_burst: u32,
    /// Handshakes of one address under way at once.
    pub address_handshakes: u32,
    /// Connections at once, over all ports; more are closed at once.
    pub connections: usize,
    /// Failed proofs a minute from one address before it is made to wait.
    pub failed_proofs_per_min: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_s: 10,
            handshakes: 2_000,
            address_handshakes_per_min: 30_000,
            address_handshakes_burst: 5_000,
            address_handshakes: 512,
            connections: 1_000_000,
            failed_proofs_per_min: 6_000,
        }
    }
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Seconds that running requests have to finish.
    pub drain_s: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_s: 10 }
    }
}

/// Reads `file`, if one is named, and the environment, and checks everything.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let (name, text) = match file {
        None => (String::from("defaults"), String::new()),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => (path.display().to_string(), text),
            Err(error) => return Err(vec![Problem::new(path.display(), "", format!("cannot be read: {error}"))]),
        },
    };
    let config = overlay(&name, &text, environment)?;
    let mut problems = Vec::new();
    config.check(&name, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

impl Config {
    /// Adds a problem for every value out of bounds.
    pub fn check(&self, source: &str, problems: &mut Vec<Problem>) {
        let mut bound = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                problems.push(Problem::new(source, key, format!("is {value}; {low} to {high} are allowed")));
            }
        };
        bound("provisioning.retry_after_s", self.provisioning.retry_after_s.into(), 2, 5);
        bound("provisioning.claim_batch", self.provisioning.claim_batch as u64, 1, 1_000);
        bound("provisioning.key_groups_tried_max", self.provisioning.key_groups_tried_max as u64, 1, 100_000);
        bound("provisioning.operations_kept_h", self.provisioning.operations_kept_h.into(), 24, 24 * 365);
        bound("hub.telemetry_kept_days", self.hub.telemetry_kept_days.into(), 1, 365);
        bound("hub.telemetry_kept_mib", self.hub.telemetry_kept_mib, 64, u64::MAX >> 20);
        bound("hub.partitions", self.hub.partitions.into(), 1, 32);
        bound("limits.handshake_s", self.limits.handshake_s.into(), 1, 300);
        bound("limits.handshakes", self.limits.handshakes as u64, 1, 1_000_000);
        let limits = &self.limits;
        bound("limits.address_handshakes_per_min", limits.address_handshakes_per_min.into(), 0, 1_000_000_000);
        bound("limits.address_handshakes_burst", limits.address_handshakes_burst.into(), 1, 1_000_000_000);
        bound("limits.address_handshakes", limits.address_handshakes.into(), 1, 1_000_000);
        bound("limits.connections", self.limits.connections as u64, 1, 100_000_000);
        bound("limits.failed_proofs_per_min", self.limits.failed_proofs_per_min.into(), 1, 1_000_000_000);
        bound("quotas.devices_per_hub", self.quotas.devices_per_hub, 1, AMOUNT_MAX);
        bound("quotas.modules_per_device", self.quotas.modules_per_device, 1, 10_000);
        bound("quotas.enrollments", self.quotas.enrollments, 1, AMOUNT_MAX);
        bound("quotas.enrollment_groups", self.quotas.enrollment_groups, 1, AMOUNT_MAX);
        bound("quotas.ca_certificates", self.quotas.ca_certificates as u64, 1, 1_000);
        bound("quotas.messages_per_device", self.quotas.messages_per_device.into(), 1, 10_000);
        bound("quotas.jobs_per_hub", self.quotas.jobs_per_hub, 1, 1_000_000);
        bound("quotas.configurations_per_hub", self.quotas.configurations_per_hub, 1, 1_000);
        bound("quotas.uploads_per_device", self.quotas.uploads_per_device.into(), 1, 1_000);
        bound("quotas.file_bytes", self.quotas.file_bytes, 1, BYTES_MAX);
        bound("quotas.files_bytes", self.quotas.files_bytes, 1, BYTES_MAX);
        bound("quotas.linked_hubs", self.quotas.linked_hubs as u64, 1, 1_000);
        self.amqp.check(&mut bound);
        self.outbound.check(&mut bound);
        bound("shutdown.drain_s", self.shutdown.drain_s.into(), 0, 3_600);
        self.check_names(source, problems);
    }

    fn check_names(&self, source: &str, problems: &mut Vec<Problem>) {
        for address in &self.listen.addresses {
            if address.parse::<IpAddr>().is_err() {
                problems.push(Problem::new(source, "listen.addresses", format!("{address:?} is not an IP address")));
            }
        }
        for balancer in &self.listen.balancers {
            if let Err(invalid) = balancer.parse::<Balancer>() {
                problems.push(Problem::new(source, "listen.balancers", format!("{balancer:?} {invalid}")));
            }
        }
        let domain = &self.listen.domain;
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !domain.is_empty() && (!domain.split('.').all(label) || !domain.contains('.')) {
            problems.push(Problem::new(
                source,
                "listen.domain",
                format!("{domain:?} is not a domain such as example.org (the C and Java SDKs demand a dot)"),
            ));
        }
        if self.tls.certificate_file.is_empty() != self.tls.key_file.is_empty() {
            let missing = if self.tls.key_file.is_empty() { "tls.key_file" } else { "tls.certificate_file" };
            problems.push(Problem::new(source, missing, "is missing: certificate and key come together".to_owned()));
        }
    }

    /// The addresses to hand out, once checked.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.listen.addresses.iter().filter_map(|address| address.parse().ok()).collect()
    }

    /// The balancers, once checked.
    pub fn balancers(&self) -> Vec<Balancer> {
        self.listen.balancers.iter().filter_map(|balancer| balancer.parse().ok()).collect()
    }

    /// The operator's certificate and key files, if there are any.
    pub fn certificate(&self) -> Option<(PathBuf, PathBuf)> {
        let present = !self.tls.certificate_file.is_empty() && !self.tls.key_file.is_empty();
        present.then(|| (PathBuf::from(&self.tls.certificate_file), PathBuf::from(&self.tls.key_file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let config = match overlay("muster.toml", text, environment) {
            Ok(config) => config,
            Err(problems) => return problems.iter().map(ToString::to_string).collect(),
        };
        let mut problems = Vec::new();
        config.check("muster.toml", &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_is_reported_at_once_with_file_and_key() {
        let text = "[listen]\nhttps_prot = 443\nmqtts_port = \"x\"\n[nonsense]\na = 1\n";
        assert_eq!(
            problems(text, &[("MUSTER_HUB_PARTITIONS", "many")]),
            [
                "muster.toml: listen.https_prot: is not a key; did you mean https_port?",
                "muster.toml: listen.mqtts_port: is \"x\"; a whole number is wanted",
                "muster.toml: nonsense: is not a section",
                "MUSTER_HUB_PARTITIONS: hub.partitions: is \"many\"; a whole number is wanted",
            ]
        );
        let text = "[listen]\naddresses = [\"localhost\"]\ndomain = \"local\"\n[provisioning]\nretry_after_s = 0\n";
        assert_eq!(problems(text, &[]).len(), 3);
        let text = "[listen]\nbalancers = [\"10.0.0.0/8\", \"lb.example.org\", \"::1\", \"::ffff:10.0.0.0/104\"]\n";
        assert_eq!(
            problems(text, &[]),
            [
                "muster.toml: listen.balancers: \"lb.example.org\" is neither an IP address nor a prefix such as 10.0.0.0/8",
                "muster.toml: listen.balancers: \"::ffff:10.0.0.0/104\" is a prefix of IPv4-mapped addresses; write it as an \
                 IPv4 prefix",
            ]
        );
    }

    #[test]
    fn the_environment_wins_over_the_file_and_both_over_the_defaults() {
        let environment =
            [("MUSTER_LISTEN_MQTTS_PORT", "0"), ("MUSTER_LISTEN_ADDRESSES", "10.0.0.1,10.0.0.2"), ("MUSTER_BIN", "x")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = overlay("f", "[listen]\nmqtts_port = 1\nhttps_port = 2\n", environment).unwrap();
        assert_eq!((config.listen.mqtts_port, config.listen.https_port, config.listen.admin_port), (0, 2, 8443));
        assert_eq!(config.listen.addresses, ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let printed = toml::to_string(&Config::default()).unwrap();
        assert_eq!(overlay("f", &printed, []).unwrap(), Config::default());
        assert!(problems(&printed, &[]).is_empty());
    }
}
