//! What the figures were measured on: processor, memory, kernel, and the disk under the data folder.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Appends that the disk is tried with, and bytes of each.
const PROBES: usize = 64;
const PROBE_BYTES: usize = 4 * 1_024;

/// A machine, as far as the figures depend on it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The processor's own name.
    processor: String,
    /// Cores that this process may use; client and server share them.
    cores: usize,
    /// Memory of the machine.
    memory_mib: u64,
    /// Name and release of the kernel.
    kernel: String,
    /// Tasks that ran or wanted to, on average of the minute before: what is not near zero was shared with others.
    load_average: f64,
    /// Type of the file system of the data folder.
    file_system: String,
    /// Median time of a 4 KiB append with fdatasync in the data folder.
    fdatasync_us: u64,
}

/// The program that is measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// Its version.
    version: &'static str,
    /// Whether the compiler optimised it: only then do the figures mean anything.
    profile: &'static str,
}

impl Machine {
    /// Looks around, with `folder` as the data folder.
    pub fn find(folder: &Path) -> Result<Self> {
        let kernel = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| text(kernel.machine())),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)).unwrap_or(0) / 1_024,
            kernel: format!("{} {}", text(kernel.sysname()), text(kernel.release())),
            load_average: load_average().unwrap_or_default(),
            file_system: file_system(folder).unwrap_or_else(|| "unknown".to_owned()),
            fdatasync_us: fdatasync_time(folder)?.as_micros() as u64,
        })
    }
}

impl Build {
    /// This very program.
    pub fn current() -> Self {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { version: env!("CARGO_PKG_VERSION"), profile }
    }
}

/// The value of the first line `name: value` of a file under `/proc`.
pub fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// Reads `1234 kB`.
pub fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// The first figure of `/proc/loadavg` (`proc(5)`).
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The type of the mount that `folder` lies on: the longest mount point that leads to it.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let leading = mounts.filter(|(point, _)| folder.starts_with(point));
    leading.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// What a durable write costs at least.
fn fdatasync_time(folder: &Path) -> Result<Duration> {
    let path = folder.join("fdatasync-probe");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times.get(PROBES / 2).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::find(folder.path()).unwrap();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && machine.fdatasync_us > 0, "{machine:?}");
        assert_ne!(machine.file_system, "unknown");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
    }

    #[test]
    fn sizes_of_proc_are_read() {
        assert_eq!(kibibytes("1234 kB"), Some(1_234));
        assert_eq!(kibibytes("1234"), None);
    }
}
