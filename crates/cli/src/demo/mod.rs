//! `muster demo`: the cheese-cave tutorial for real, on this machine and out of everybody's way.
//!
//! A server of its own, as a process of this same program on a temporary folder and free ports; an operator who uses the
//! public APIs; three devices that use the public protocols. Nothing here reaches into the server. Start at [`run`], then
//! [`story::Story::tell`].

mod evidence;
mod fleet;
mod operator;
mod progress;
mod server;
mod story;
mod telemetry;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use client::endpoints;
use tempfile::TempDir;

use crate::context::{Context, Global};
use crate::output::Output;
use crate::serve;

use evidence::{COLUMNS, Evidence, Kept};
use progress::{Progress, Stopped, Task, rounded};
use server::{Ports, Server};
use story::Story;

/// Begins the name of the demo's folder.
const FOLDER_PREFIX: &str = "muster-demo-";
const STARTING: Task = Task {
    doing: "starting the server",
    advice: "remove what stands in its way, as told above and in the log, then run the demo again",
};
const STOPPING: Task = Task {
    doing: "stopping the server",
    advice: "the log named here says what the server was still doing; end its process if it is still there",
};

/// Options of the demo.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the server running for other clients, on the usual ports as far as they can be had
    #[arg(long)]
    keep: bool,
}

/// What a person sees of a failure: where, why, and what to do.
#[derive(Debug, thiserror::Error)]
struct Failure {
    what: String,
    causes: Vec<String>,
    log: PathBuf,
    advice: &'static str,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for cause in &self.causes {
            write!(f, "\n  because {cause}")?;
        }
        write!(f, "\n  the server's log is {}\n  to do: {}", self.log.display(), self.advice)
    }
}

/// Plays the story.
pub fn run(args: &DemoArgs, global: &Global) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(args.keep, global))
}

async fn play(keep: bool, global: &Global) -> Result<()> {
    let output = global.output();
    let progress = Progress::new(output);
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir();
    let folder = folder.context("cannot make a temporary folder; TMPDIR names another place")?;
    let interrupted = serve::stop_signal()?;
    let mut server = None;
    let told = tokio::select! {
        told = tell(&progress, (folder.path(), keep), &mut server, global) => told.map(Some),
        () = interrupted => Ok(None),
    };
    match told {
        Ok(Some(mut evidence)) if keep => {
            let kept = leave(folder, server.as_ref());
            evidence.kept = Some(kept.clone());
            show(&evidence, output)?;
            say_kept(&kept, output)
        }
        Ok(Some(mut evidence)) => {
            stop(&progress, server.take()).await.map_err(|error| fail(&error, folder))?;
            evidence.seconds = rounded(progress.elapsed());
            evidence.steps = progress.ticks();
            show(&evidence, output)?;
            let program = program();
            output.say(&format!(
                "\nNext: {program} demo --keep   plays it again and leaves the server running to look around in\n\
                 \x20     {program} serve         starts your own"
            ))
        }
        Ok(None) => {
            stop(&progress, server.take()).await.map_err(|error| fail(&error, folder))?;
            bail!("the demo was interrupted")
        }
        Err(error) => {
            // What failed first is what counts.
            if let Err(error) = stop(&progress, server.take()).await {
                tracing::debug!(error = format!("{error:#}"), "the server did not stop in order");
            }
            Err(fail(&error, folder))
        }
    }
}

/// Starts the server and tells the story; the server is left in `slot` whatever happens.
async fn tell(
    progress: &Progress,
    (folder, keep): (&Path, bool),
    slot: &mut Option<Server>,
    global: &Global,
) -> Result<Evidence> {
    progress.print("Three cheese caves get their sensors. Everything happens for real, in a folder of its own.\n");
    let context = progress.step(STARTING, async {
        let ports = if keep { Ports::Usual } else { Ports::Free };
        *slot = Some(Server::start(folder, ports, keep).await?);
        let context = Context::find(&Global { data: Some(folder.to_path_buf()), ..global.clone() })?;
        let ports = context.endpoints.ports;
        let told = format!(
            "server started: HTTPS on port {}, MQTT on {}, AMQP on {}, admin on {}",
            ports.https, ports.mqtts, ports.amqps, ports.admin
        );
        Ok((context, told))
    });
    let context = context.await?;
    let certificates = certificates(folder);
    Story { progress, context: &context, certificates: &certificates }.tell().await
}

fn certificates(folder: &Path) -> PathBuf {
    folder.join("certificates")
}

async fn stop(progress: &Progress, server: Option<Server>) -> Result<()> {
    let Some(server) = server else { return Ok(()) };
    let stopping = progress.step(STOPPING, async {
        let status = server.stop().await?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(((), "server drained and stopped".to_owned()))
    });
    stopping.await
}

/// Leaves the folder and the server where they are.
fn leave(folder: TempDir, server: Option<&Server>) -> Kept {
    let folder = folder.keep();
    Kept {
        endpoints_file: folder.join(endpoints::FILE_NAME),
        certificates: certificates(&folder),
        pid: server.and_then(Server::pid),
        folder,
    }
}

/// The failure as it is shown. The folder is kept for its log.
fn fail(error: &anyhow::Error, folder: TempDir) -> anyhow::Error {
    let advice = error.downcast_ref::<Stopped>().map_or("run the demo again", |stopped| stopped.task.advice);
    let mut causes = error.chain().map(ToString::to_string);
    let what = causes.next().unwrap_or_default();
    let causes = causes.collect();
    Failure { what, causes, log: server::log_file(&folder.keep()), advice }.into()
}

fn show(evidence: &Evidence, output: Output) -> Result<()> {
    if output.is_json() {
        return output.record(&serde_json::to_value(evidence)?);
    }
    output.say("")?;
    output.list(&evidence.rows(), &COLUMNS)?;
    output.say(&format!("\nDone in {:.1} s.", evidence.seconds))
}

fn say_kept(kept: &Kept, output: Output) -> Result<()> {
    let (program, folder) = (program(), kept.folder.display());
    output.say(&format!(
        "\nThe server stays.\n\
         \x20 endpoints     {}\n\
         \x20 certificates  {}\n\
         \n\
         Next: {program} twin show cheesecave-device1 --data {folder}\n\
         \x20     {program} events monitor --from start --data {folder}\n\
         \x20     {program} why cheesecave-device3 --data {folder}\n\
         \n\
         Stop it with: kill {}",
        kept.endpoints_file.display(),
        kept.certificates.display(),
        kept.pid.map(|pid| pid.to_string()).unwrap_or_default(),
    ))
}

/// How this program was called, so that what is printed can be typed.
fn program() -> String {
    std::env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "muster".to_owned())
}
