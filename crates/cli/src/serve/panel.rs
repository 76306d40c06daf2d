//! What a person sees when the server is ready: where everything is, and what to type next.

use std::io::Write as _;

use anyhow::Result;
use client::endpoints::{Endpoints, FILE_NAME};
use serde_json::json;
use server::serve::Server;

use crate::output::Format;
use crate::serve::told::Told;

/// Prints the panel to standard output; where programs read, the one word `ready`, or, if asked for JSON, a line that
/// says where everything is and holds no secret.
pub fn print(endpoints: &Endpoints, server: &Server, told: &Told, output: Option<Format>) -> Result<()> {
    use std::io::IsTerminal as _;
    let mut out = std::io::stdout().lock();
    match output {
        Some(Format::Json) => {
            let file = told.folder().join(FILE_NAME);
            let Endpoints { pid, ca_file, ports, .. } = endpoints;
            let line = json!({ "ready": true, "pid": pid, "endpointsFile": file, "caFile": ca_file, "ports": ports });
            writeln!(out, "{line}")?;
            return Ok(out.flush()?);
        }
        None if !out.is_terminal() => {
            writeln!(out, "ready")?;
            return Ok(out.flush()?);
        }
        _ => {}
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
    let client::endpoints::Ports { https, mqtts, amqps, admin } = ports;
    writeln!(out, "  ports                 HTTPS {https}  MQTT {mqtts}  AMQP {amqps}  admin {admin}")?;
    let folder = told.folder().display();
    match told.is_private() {
        false => writeln!(out, "  data                  {folder}")?,
        true => writeln!(out, "  data                  in memory; endpoints.json in {folder} until the end")?,
    }
    writeln!(out, "  CA certificate        {}", endpoints.ca_file.display())?;
    for notice in server.notices() {
        writeln!(
            out,
            "\n  Port {} may not be opened, so {} took {}. SDKs that speak HTTPS or WebSocket wait for {}; allow it with\n    {}",
            notice.wanted, notice.purpose, notice.taken, notice.wanted, notice.command
        )?;
    }
    let option = if told.is_private() { format!(" --data {folder}") } else { String::new() };
    writeln!(out, "\nNext: muster{option} enrollment create my-device\n      muster{option} trust\n")?;
    Ok(out.flush()?)
}
