//! `muster registration`: the records of devices that registered.

use anyhow::{Result, bail};
use clap::Subcommand;
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Value, json};

use crate::context::{Context, ask, ask_with_headers};

/// What to do with registration records.
#[derive(Debug, Subcommand)]
pub enum RegistrationCommand {
    /// List the records that an enrollment group admitted
    List {
        /// Enrollment group
        #[arg(long)]
        group: String,
        /// Provisioning service [default: the first]
        #[arg(long)]
        dps: Option<String>,
    },
    /// Show the record of a device
    Show {
        /// Registration ID
        id: String,
        /// Provisioning service [default: the first]
        #[arg(long)]
        dps: Option<String>,
    },
    /// Delete the record of a device; its identity at the hub stays
    Delete {
        /// Registration ID
        id: String,
        /// Provisioning service [default: the first]
        #[arg(long)]
        dps: Option<String>,
    },
}

/// Does it.
pub async fn run(command: &RegistrationCommand, context: &Context) -> Result<()> {
    match command {
        RegistrationCommand::List { group, dps } => {
            let records = list_all(context, dps.as_deref(), &["registrations", group, "query"]).await?;
            context.output.list(
                &records,
                &[
                    ("Registration", "/registrationId"),
                    ("Status", "/status"),
                    ("Hub", "/assignedHub"),
                    ("Device", "/deviceId"),
                    ("Updated", "/lastUpdatedDateTimeUtc"),
                ],
            )
        }
        RegistrationCommand::Show { id, dps } => {
            let path = ["registrations", id.as_str()];
            let request = ServiceRequest::new(Method::GET, &path);
            context.output.record(&ask(&context.provisioning(dps.as_deref())?, "reading the record", request).await?)
        }
        RegistrationCommand::Delete { id, dps } => {
            let path = ["registrations", id.as_str()];
            let request = ServiceRequest::new(Method::DELETE, &path);
            ask(&context.provisioning(dps.as_deref())?, "deleting the record", request).await?;
            context.output.record(&json!({ "registrationId": id, "deleted": true }))
        }
    }
}

/// Every record of a query of the provisioning service, page after page.
pub async fn list_all(context: &Context, dps: Option<&str>, path: &[&str]) -> Result<Vec<Value>> {
    let client = context.provisioning(dps)?;
    let body = json!({ "query": "SELECT *" });
    let mut records = Vec::new();
    let mut headers = Vec::new();
    loop {
        let request =
            ServiceRequest { body: Some(&body), headers: &headers, ..ServiceRequest::new(Method::POST, path) };
        let (page, answered) = ask_with_headers(&client, "listing", request).await?;
        let Value::Array(mut page) = page else { bail!("the answer is not a list") };
        records.append(&mut page);
        match answered.get("x-ms-continuation").and_then(|value| value.to_str().ok()) {
            Some(continuation) => headers = vec![("x-ms-continuation", continuation.to_owned())],
            None => return Ok(records),
        }
    }
}
