//! What a person sees when the server is ready: where everything is, and what to type next.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use client::endpoints::Endpoints;
use server::serve::Server;

/// Prints the panel to standard output, or the endpoints as JSON where programs read.
pub fn print(endpoints: &Endpoints, server: &Server, folder: Option<&Path>, forced: bool) -> Result<()> {
    use std::io::IsTerminal as _;
    let mut out = std::io::stdout().lock();
    if !out.is_terminal() && !forced {
        writeln!(out, "ready")?;
        return Ok(out.flush()?);
    }
    let ports = endpoints.ports;
    writeln!(out, "\nMuster is ready.\n")?;
    for service in &endpoints.provisioning_services {
        writeln!(out, "  provisioning service  {}", service.name)?;
        writeln!(out, "    devices dial        {}", service.device_endpoint)?;
        writeln!(out, "    ID scope            {}", service.id_scope)?;
    }
    for hub in &endpoints.hubs {
        writeln!(out, "  hub                   {} at {}", hub.name, hub.host_name)?;
    }
    writeln!(out, "  ports                 HTTPS {}  MQTT {}  admin {}", ports.https, ports.mqtts, ports.admin)?;
    if let Some(folder) = folder {
        writeln!(out, "  data                  {}", folder.display())?;
        writeln!(out, "  CA certificate        {}", endpoints.ca_file.display())?;
    }
    for notice in server.notices() {
        writeln!(
            out,
            "\n  Port {} may not be opened, so {} took {}. SDKs that speak HTTPS or WebSocket wait for {}; allow it with\n    {}",
            notice.wanted, notice.purpose, notice.taken, notice.wanted, notice.command
        )?;
    }
    writeln!(out, "\nNext: muster enrollment create my-device\n      muster trust\n")?;
    Ok(out.flush()?)
}
