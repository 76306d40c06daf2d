//! What a process has used so far, read from `/proc`, and how many files this one may open.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::machine::{field, kibibytes};

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads, in user code and in the kernel on its behalf.
    pub cpu: Duration,
    /// Memory that is in use and not merely reserved.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the server's process is gone")?;
        let ticks = ticks(&stat).context("/proc does not tell the processor time")?;
        let resident = field(&format!("/proc/{pid}/status"), "VmRSS").and_then(|text| kibibytes(&text));
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second().max(1)),
            resident_bytes: resident.context("/proc does not tell the memory in use")? * 1_024,
        })
    }
}

/// User and system time of `/proc/PID/stat` (`proc(5)`, fields 14 and 15). The name in field 2 may hold anything, its
/// closing parenthesis included.
fn ticks(stat: &str) -> Option<u64> {
    const UTIME_AFTER_NAME: usize = 14 - 3;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(UTIME_AFTER_NAME);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Lets this process, and the servers it starts, open as many files as the machine allows without asking anybody.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it is; whoever needs more asks `open_files_max`.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many files this process may open; `None` for any number.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_name_of_the_process() {
        let cases = [
            ("a plain name", "42 (muster) S 1 42 42 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 4 0 1", Some(12)),
            ("a nasty name", "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 4 0 1", Some(12)),
            ("cut off", "42 (muster) S 1 42", None),
            ("not at all", "", None),
        ];
        for (name, stat, expected) in cases {
            assert_eq!(ticks(stat), expected, "{name}");
        }
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::of(std::process::id()).unwrap().resident_bytes > 1_024 * 1_024);
    }
}
