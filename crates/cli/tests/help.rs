//! What `--help` says of every command, as a golden file: what people read is reviewed like code.

use std::fmt::Write as _;
use std::process::Command;

/// `muster` with no command, then every command and those below it, in the order in which help names them.
#[test]
fn golden_help_of_every_command() {
    let (mut golden, mut left) = (String::new(), vec![Vec::new()]);
    while let Some(command) = left.pop() {
        let help = help_of(&command);
        let below = subcommands(&help).map(|name| [command.as_slice(), &[name]].concat());
        left.extend(below.collect::<Vec<_>>().into_iter().rev());
        // Trailing spaces are clap's, and no editor keeps them.
        let lines: Vec<_> = help.lines().map(str::trim_end).collect();
        let _ =
            writeln!(golden, "## {}\n{}\n", [&["muster".to_owned()], &*command].concat().join(" "), lines.join("\n"));
    }
    testkit::golden::compare("help.txt", &golden);
}

fn help_of(command: &[String]) -> String {
    // Help shows the values of variables.
    let output = Command::new(env!("CARGO_BIN_EXE_muster")).args(command).arg("--help").env_clear().output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that `help` names, but for `help` itself.
fn subcommands(help: &str) -> impl Iterator<Item = String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Names are indented by two; what a long description goes on with, by more.
    let named = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    named.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").map(str::to_owned)
}
