//! Starting other programs: with their output shown, with it read, or with both.
//!
//! It must never go through a shell with text from outside; arguments are passed as they are.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// The root of the workspace, whatever folder the command was started in.
pub fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| anyhow!("xtask has no parent folder"))
}

/// A command at the root of the workspace, started by the same cargo that runs us where it is cargo.
pub fn command(program: &str) -> Result<Command> {
    let program = match (program, std::env::var("CARGO")) {
        ("cargo", Ok(cargo)) => cargo,
        _ => program.to_owned(),
    };
    let mut command = Command::new(program);
    command.current_dir(root()?);
    Ok(command)
}

/// Runs to the end with the output shown; anything but success is an error.
pub fn show(command: &mut Command) -> Result<()> {
    let name = describe(command);
    println!("$ {name}");
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; anything but success is an error that holds standard error.
pub fn read(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed bytes that are not UTF-8"))
}

/// Runs to the end, handing every line of both output streams, in order, to `on_line`. Says whether it succeeded.
pub fn follow(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<bool> {
    let name = describe(command);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    // The command keeps the write ends until they are replaced; the loop below would otherwise never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        on_line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(child.wait()?.success())
}

/// Whether `program` is found in `PATH`.
pub fn exists(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether the command runs and succeeds, its output thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
