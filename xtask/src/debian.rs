//! The programs that the tests need, and the Debian packages they come from.
//!
//! Root gets them installed; everybody else is shown the one line to run. It must never call sudo.

use anyhow::{Result, bail};

use crate::process;

/// A program, how its presence is seen, the package that brings it, and what for.
struct Tool {
    program: &'static str,
    /// Arguments with which it must succeed, where being in `PATH` does not say enough.
    probe: &'static [&'static str],
    package: &'static str,
}

const TOOLS: &[Tool] = &[
    // aws-lc-sys and the bundled SQLite are compiled from C.
    Tool { program: "cc", probe: &[], package: "build-essential" },
    // Foreign certificates are made, and foreign handshakes driven, with it.
    Tool { program: "openssl", probe: &[], package: "openssl" },
    // Shows that an acknowledgement follows its fdatasync.
    Tool { program: "strace", probe: &[], package: "strace" },
    // Opens the store as a stranger would, to look for secrets.
    Tool { program: "sqlite3", probe: &[], package: "sqlite3" },
    // The second backend is tested over a server of its own. Debian keeps its programs out of `PATH`.
    Tool {
        program: "sh",
        probe: &["-c", "command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"],
        package: "postgresql",
    },
    // Messages are routed to a subject of it.
    Tool { program: "nats-server", probe: &["--version"], package: "nats-server" },
    // Every SDK suite runs in a network namespace of its own, where port 443 is free.
    Tool { program: "unshare", probe: &[], package: "util-linux" },
    Tool { program: "ip", probe: &[], package: "iproute2" },
    Tool { program: "curl", probe: &[], package: "curl" },
    Tool { program: "python3", probe: &["-c", "import venv, ensurepip"], package: "python3-venv" },
    // Qpid Proton, a foreign AMQP client, is on PyPI as source alone: it is compiled, and speaks TLS by the OpenSSL that
    // it finds.
    Tool {
        program: "python3",
        probe: &["-c", "import os, sysconfig; os.stat(sysconfig.get_path('include') + '/Python.h')"],
        package: "python3-dev",
    },
    Tool { program: "pkg-config", probe: &[], package: "pkg-config" },
    Tool { program: "pkg-config", probe: &["--exists", "openssl"], package: "libssl-dev" },
    Tool { program: "node", probe: &[], package: "nodejs" },
    Tool { program: "npm", probe: &[], package: "npm" },
    Tool { program: "javac", probe: &["--release", "17", "-version"], package: "default-jdk-headless" },
    Tool { program: "mvn", probe: &[], package: "maven" },
    Tool { program: "sha256sum", probe: &[], package: "coreutils" },
];

/// Makes sure that every program is there, installing what is missing where that is allowed.
pub fn install() -> Result<Vec<String>> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(vec![format!("{} programs found", TOOLS.len())]);
    }
    if !process::exists("apt-get") {
        bail!("these are missing, and this is no Debian: {}", missing.join(", "));
    }
    if process::read(process::command("id")?.arg("-u"))?.trim() != "0" {
        bail!("run this once, then try again:\n\n    sudo apt-get install -y {}\n", missing.join(" "));
    }
    let apt = || -> Result<_> {
        let mut command = process::command("apt-get")?;
        command.env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    };
    process::show(apt()?.args(["update", "--quiet"]))?;
    process::show(apt()?.args(["install", "-y", "--no-install-recommends"]).args(&missing))?;
    Ok(vec![format!("installed {}", missing.join(", "))])
}

fn missing() -> Result<Vec<&'static str>> {
    let mut packages: Vec<&'static str> = Vec::new();
    for tool in TOOLS {
        let found = process::exists(tool.program)
            && (tool.probe.is_empty() || process::succeeds(process::command(tool.program)?.args(tool.probe)));
        if !found && !packages.contains(&tool.package) {
            packages.push(tool.package);
        }
    }
    Ok(packages)
}
