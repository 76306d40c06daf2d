//! The servers under measurement, each a process of its own that ends with this one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use client::endpoints::{Endpoints, FILE_NAME};
use client::https::Https;
use client::trust::configure;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::process::Usage;
use crate::ca::Credential;
use crate::context::Context;
use crate::output::Output;

/// Time until a server must be ready, and until it must have stopped.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a server's log is shown when it does not come up.
const LOG_LINES_SHOWN: usize = 10;

/// A server's process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// Keeps the pipes open, since some programs do not survive a closed standard output.
    child: Child,
    pid: u32,
}

/// This program as a server.
pub struct Muster {
    process: Process,
    /// Where it listens, and how its operator speaks to it.
    pub operator: Context,
    /// Whom its clients trust, as PEM.
    pub authority_pem: String,
    /// From the start of its process until it said that it is ready.
    pub ready_after: Duration,
}

/// Debian's mosquitto, with TLS and without anything durable.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    /// Where it listens, on [`LOOPBACK`].
    pub port: u16,
}

/// rustls alone; see [`super::handshake_peer`].
#[derive(Debug)]
pub struct BareTls {
    process: Process,
    /// Where it listens, on [`LOOPBACK`].
    pub port: u16,
}

/// The address of the peers.
pub const LOOPBACK: &str = "127.0.0.1";

impl Process {
    /// What it has used.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid)
    }

    /// Its number.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.as_std().get_program().display()))?;
        let pid = child.id().context("the server ended at once")?;
        Ok(Self { child, pid })
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("the server's process number")?;
        kill_process(pid, Signal::TERM).context("the server's process is gone")?;
        let ended = timeout(STOP_TIMEOUT, self.child.wait()).await;
        let status = ended.with_context(|| format!("the server has not stopped after {STOP_TIMEOUT:?}"))??;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }
}

impl Muster {
    /// Starts `serve` on free ports with its data in `folder`, and waits until it is ready.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (data, log) = (folder.join("data"), folder.join("serve.log"));
        let began = Instant::now();
        let mut process = Process::spawn(
            Command::new(std::env::current_exe()?)
                .args(["serve", "--https-port=0", "--mqtts-port=0", "--amqps-port=0", "--admin-port=0", "--data"])
                .arg(&data)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(File::create(&log)?),
        )?;
        let ready = wait_for_line(process.child.stdout.as_mut(), |line| (line == "ready").then_some(())).await;
        let ready_after = began.elapsed();
        ready.with_context(|| format!("serve does not come up; its log ends:\n{}", end_of(&log)))?;
        let endpoints_file = data.join(FILE_NAME);
        let endpoints = Endpoints::read(&endpoints_file)?;
        let authority_pem = std::fs::read_to_string(&endpoints.ca_file)?;
        let https = Https::new(configure(&authority_pem, None)?);
        let operator = Context { endpoints, endpoints_file, https, output: Output::new(None), show_keys: false };
        Ok(Self { process, operator, authority_pem, ready_after })
    }

    /// Its process.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Its MQTT port.
    pub const fn mqtts_port(&self) -> u16 {
        self.operator.endpoints.ports.mqtts
    }

    /// Lets it drain and end.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}

impl BareTls {
    /// Starts the peer with the certificate `server`.
    pub async fn start(folder: &Path, server: &Credential) -> Result<Self> {
        let (chain, key) = write_credential(folder, server)?;
        let mut process = Process::spawn(
            Command::new(std::env::current_exe()?)
                .args(["bench", "handshake-peer", "--chain"])
                .arg(chain)
                .arg("--key")
                .arg(key)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let port = wait_for_line(process.child.stdout.as_mut(), |line| line.parse().ok()).await?;
        Ok(Self { process, port })
    }

    /// Its process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

impl Mosquitto {
    /// Starts `program` with the certificate `server`; `None` if there is no such program.
    pub async fn start(program: Option<&Path>, folder: &Path, server: &Credential) -> Result<Option<Self>> {
        let Some(program) = find(program) else { return Ok(None) };
        let (chain, key) = write_credential(folder, server)?;
        // It cannot take a free port by itself.
        let port = std::net::TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port();
        let configuration = folder.join("mosquitto.conf");
        // Without TCP_NODELAY its acknowledgements would wait for the client's; as root it would change to a user who
        // cannot read the key.
        let text = format!(
            "listener {port} {LOOPBACK}\ncertfile {}\nkeyfile {}\nallow_anonymous true\npersistence false\n\
             set_tcp_nodelay true\nuser root\nconnection_messages false\nlog_dest stderr\nlog_type information\n\
             log_type error\nlog_type warning\n",
            chain.display(),
            key.display()
        );
        std::fs::write(&configuration, text)?;
        let mut process = Process::spawn(
            Command::new(&program)
                .arg("-c")
                .arg(&configuration)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )?;
        let ready = wait_for_line(process.child.stderr.as_mut(), |line| line.ends_with("running").then_some(())).await;
        ready.with_context(|| format!("{} does not come up", program.display()))?;
        Ok(Some(Self { process, port }))
    }

    /// Its process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

/// Waits for the first line of `output` that `pick` takes; the rest stays unread.
async fn wait_for_line<T>(output: Option<impl AsyncRead + Unpin>, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
    let mut reader = BufReader::new(output.context("the server has no output")?);
    let waiting = async {
        let mut line = String::new();
        while reader.read_line(&mut line).await? > 0 {
            if let Some(found) = pick(line.trim_end()) {
                return Ok(found);
            }
            line.clear();
        }
        bail!("the server ended before it was ready")
    };
    let found = timeout(READY_TIMEOUT, waiting).await;
    found.with_context(|| format!("the server is not ready after {READY_TIMEOUT:?}"))?
}

/// The program asked for, or the one that is installed: `/usr/sbin` is not in everybody's `PATH`.
fn find(program: Option<&Path>) -> Option<PathBuf> {
    if let Some(program) = program {
        return program.is_file().then(|| program.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}

/// Writes chain and key where a server can read them; the folder is this user's alone.
fn write_credential(folder: &Path, credential: &Credential) -> io::Result<(PathBuf, PathBuf)> {
    let (chain, key) = (folder.join("peer.chain.pem"), folder.join("peer.key.pem"));
    std::fs::write(&chain, credential.chain_pem())?;
    std::fs::write(&key, credential.key_pem())?;
    Ok((chain, key))
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n")
}
