//! The server of the demo: this same program, as a process of its own on its own folder.
//!
//! It is told by a signal to stop, and killed only if it does not. Start at [`Server::start`].

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::config::Listen;

/// Time for the server to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the server to drain after the signal; its own deadline is shorter.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of its log that are shown if it does not start.
const LOG_LINES_SHOWN: usize = 5;
/// Variables that are left to it; the rest of our own would change its settings.
const VARIABLES_KEPT: [&str; 1] = ["MUSTER_LOG"];

/// A running server.
pub struct Server {
    child: Child,
    log: PathBuf,
}

/// The ports it takes.
#[derive(Clone, Copy, Debug)]
pub enum Ports {
    /// Any free ones.
    Free,
    /// The usual ones as far as they can be had, which most SDKs cannot be talked out of.
    Usual,
}

impl Server {
    /// Starts it and waits until it is ready. `lives_on` leaves it running when this process ends.
    pub async fn start(folder: &Path, ports: Ports, lives_on: bool) -> Result<Self> {
        let log = log_file(folder);
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("MUSTER_") && !VARIABLES_KEPT.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--no-defaults", "--data"]).arg(folder);
        let usual = Listen::default();
        for (option, port) in [
            ("--https-port", usual.https_port),
            ("--mqtts-port", usual.mqtts_port),
            ("--amqps-port", usual.amqps_port),
            ("--admin-port", usual.admin_port),
        ] {
            command.arg(option).arg(ports.choose(port).to_string());
        }

        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log)?);
        // A group of its own, so that Ctrl-C reaches the demo alone, which then stops the server in order.
        command.process_group(0).kill_on_drop(!lives_on);
        let child = command.spawn().context("cannot start the server")?;
        let mut server = Self { child, log };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let stdout = self.child.stdout.take().context("the server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        match timeout(START_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(_) => {
                let status = timeout(STOP_TIMEOUT, self.child.wait()).await.context("the server hangs")??;
                bail!("the server ended with {status}: {}", self.log_end());
            }
            Err(_) => bail!("the server was not ready within {} s: {}", START_TIMEOUT.as_secs(), self.log_end()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it drain and end.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).context("cannot signal the server")?;
        }
        if let Ok(status) = timeout(STOP_TIMEOUT, self.child.wait()).await {
            return Ok(status?);
        }
        self.child.kill().await?;
        bail!("the server did not stop within {} s and was killed", STOP_TIMEOUT.as_secs())
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let shown = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
        if shown.is_empty() { "its log is empty".to_owned() } else { shown.join("; ") }
    }
}

/// Where the server on `folder` logs.
pub fn log_file(folder: &Path) -> PathBuf {
    folder.join("serve.log")
}

impl Ports {
    /// The port to ask for in place of `usual`; 0 is any free one.
    fn choose(self, usual: u16) -> u16 {
        match self {
            Self::Usual if TcpListener::bind((Ipv4Addr::UNSPECIFIED, usual)).is_ok() => usual,
            Self::Usual | Self::Free => 0,
        }
    }
}
