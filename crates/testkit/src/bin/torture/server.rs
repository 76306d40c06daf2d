//! The real binary as a child process: started, awaited, killed, and asked to end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use client::endpoints::{Endpoints, FILE_NAME, Ports};
use client::https::Server as Address;
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::trouble::{During as _, Result, Trouble};

/// Time until a server is ready; under `strace` everything takes longer.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time until a server that was asked to end has drained.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Whichever are free.
const ANY_PORTS: Ports = Ports { https: 0, mqtts: 0, amqps: 0, admin: 0 };
/// Longest string that `strace` is to print: more than any one write of the store.
const TRACED_BYTES_MAX: u32 = 16 << 20;
/// System calls that change files or write to sockets, and those that say what a descriptor stands for.
const TRACED_CALLS: &str = "openat,open,creat,close,lseek,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,\
                            sendfile,copy_file_range,fallocate,truncate,ftruncate,fsync,fdatasync,sync_file_range,\
                            rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir";

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The program.
    pub muster: PathBuf,
    /// Whether it is a build that may leave out syncing, and shall.
    pub unsynced: bool,
    /// Whether it is a build that may forget some of the messages that it acknowledges, and shall.
    pub forgetful: bool,
}

/// How a server is dialled, whatever host is meant.
#[derive(Clone, Debug)]
pub struct Door {
    /// Trusts the server's authority alone.
    pub tls: Arc<ClientConfig>,
    ports: Ports,
}

impl Door {
    /// Where HTTPS is spoken at `host`.
    pub fn https(&self, host: &str) -> Address {
        Address { host: host.to_owned(), port: self.ports.https }
    }

    /// Where AMQP is spoken at `host`.
    pub fn amqps(&self, host: &str) -> Address {
        Address { host: host.to_owned(), port: self.ports.amqps }
    }

    /// Where MQTT is spoken at `host`.
    pub fn mqtts(&self, host: &str) -> Address {
        Address { host: host.to_owned(), port: self.ports.mqtts }
    }
}

/// A running server.
pub struct Server {
    child: Child,
    /// Kept open: a server whose standard output is gone may fail to print.
    _output: BufReader<ChildStdout>,
    /// What it says of itself.
    pub endpoints: Endpoints,
    /// How it is dialled.
    pub door: Door,
    folder: PathBuf,
    binary: Binary,
}

impl Server {
    /// Starts a server on `folder` and waits until it is ready. With `trace`, under `strace`, which writes one file for
    /// each thread, with that prefix.
    pub async fn start(binary: &Binary, folder: &Path, trace: Option<&Path>) -> Result<Self> {
        Self::await_ready(spawn(binary, folder, (ANY_PORTS, trace))?, binary, folder).await
    }

    /// Starts a server on `folder` and on the ports that another had before it.
    pub async fn start_again(binary: &Binary, folder: &Path, ports: Ports) -> Result<Self> {
        Self::await_ready(spawn(binary, folder, (ports, None))?, binary, folder).await
    }

    async fn await_ready(mut child: Child, binary: &Binary, folder: &Path) -> Result<Self> {
        let output = child.stdout.take().ok_or_else(|| Trouble::new("the server has no output"))?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        timeout(READY_TIMEOUT, output.read_line(&mut line)).await.during("waiting for the server")??;
        if line.trim() != "ready" {
            return Err(Trouble::new(format!("the server did not start; its log:\n{}", tail_of_log(folder))));
        }
        let endpoints = Endpoints::read(&folder.join(FILE_NAME))?;
        let authority = std::fs::read_to_string(&endpoints.ca_file).during("reading the authority")?;
        let door = Door { tls: client::trust::configure(&authority, None)?, ports: endpoints.ports };
        Ok(Self { child, _output: output, endpoints, door, folder: folder.to_owned(), binary: binary.clone() })
    }

    /// Starts a server and ends it by SIGKILL `after` that, whether it is ready or not.
    pub async fn start_and_kill(binary: &Binary, folder: &Path, after: Duration) -> Result<()> {
        let mut child = spawn(binary, folder, (ANY_PORTS, None))?;
        if let Ok(ended) = timeout(after, child.wait()).await {
            return Err(Trouble::new(format!("{}; the server's log:\n{}", ended?, tail_of_log(folder))));
        }
        child.kill().await.during("killing a server that starts")
    }

    /// Runs another command of the binary against this server; it must succeed.
    pub async fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.binary.muster);
        command.arg("--data").arg(&self.folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let done = command.output().await.during("running a command")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Trouble::new(format!("muster {}: {}", arguments.join(" "), said.trim())));
        }
        Ok(())
    }

    /// Ends it by SIGKILL, in whatever it is doing.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        timeout(STOP_TIMEOUT, self.child.wait()).await.during("waiting for the killed server")??;
        Ok(())
    }

    /// Asks it to end, and expects that it does so cleanly.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = timeout(STOP_TIMEOUT, self.child.wait()).await.during("waiting for the server to end")??;
        if !status.success() {
            return Err(Trouble::new(format!("{status}; the server's log:\n{}", tail_of_log(&self.folder))));
        }
        Ok(())
    }

    /// The process that the endpoints name, which under `strace` is not the child.
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.endpoints.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Trouble::new("the endpoints name no process"))?;
        kill_process(pid, signal).during("signalling the server")
    }
}

fn spawn(binary: &Binary, folder: &Path, (ports, trace): (Ports, Option<&Path>)) -> Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.with_extension("log"))
        .during("opening the server's log")?;
    let mut command = match trace {
        None => Command::new(&binary.muster),
        Some(prefix) => traced(&binary.muster, prefix),
    };
    let Ports { https, mqtts, amqps, admin } = ports;
    command.arg("serve");
    for (option, port) in
        [("--https-port", https), ("--mqtts-port", mqtts), ("--amqps-port", amqps), ("--admin-port", admin)]
    {
        command.arg(option).arg(port.to_string());
    }
    command.arg("--data").arg(folder).env("MUSTER_LOG", "warn").env("MUSTER_PROVISIONING_RETRY_AFTER_S", "2");
    command.env_remove("MUSTER_TORTURE_SYNC");
    if binary.unsynced {
        command.env("MUSTER_TORTURE_SYNC", "off");
    }
    command.env_remove("MUSTER_TORTURE_APPEND");
    if binary.forgetful {
        command.env("MUSTER_TORTURE_APPEND", "forget");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    command.spawn().during(format!("starting {}", binary.muster.display()))
}

fn traced(muster: &Path, prefix: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-ff", "-yy", "--seccomp-bpf", "--quiet=all", "--syscall-times=ns"]);
    command.args(["--absolute-timestamps=format:unix,precision:ns", "-s", &TRACED_BYTES_MAX.to_string()]);
    command.args(["-e", &format!("trace={TRACED_CALLS}"), "-e", "signal=none", "-o"]).arg(prefix).arg("--").arg(muster);
    command
}

/// What the servers on `folder` logged.
pub fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.with_extension("log")).unwrap_or_default()
}

/// The end of what the server on `folder` logged.
pub fn tail_of_log(folder: &Path) -> String {
    /// Lines shown.
    const LINES: usize = 20;
    let text = log_of(folder);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}
