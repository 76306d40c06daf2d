//! `muster trust` and `muster hosts`: what clients on other terms need to know.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::context::Context;

/// Prints the authority and how each SDK is told to trust it.
pub fn run_trust(context: &Context) -> Result<()> {
    let file = context.endpoints.ca_file.display().to_string();
    let pem = std::fs::read_to_string(&context.endpoints.ca_file).with_context(|| format!("cannot read {file}"))?;
    if context.output.is_json() {
        return context.output.record(&json!({ "caFile": file, "pem": pem }));
    }
    context.output.say(&format!(
        "{pem}\n\
         Python   server_verification_cert=open({file:?}).read()  (or SSL_CERT_FILE={file})\n\
         Node     NODE_EXTRA_CA_CERTS={file}\n\
         C        OPTION_TRUSTED_CERT with the text above\n\
         C#       SSL_CERT_FILE={file} on Linux, or RemoteCertificateValidationCallback\n\
         Java     keytool -importcert -file {file} -alias muster -keystore trust.jks; -Djavax.net.ssl.trustStore=trust.jks\n\
         az       REQUESTS_CA_BUNDLE={file} SSL_CERT_FILE={file}\n\
         curl     --cacert {file}"
    ))
}

/// Prints lines for `/etc/hosts`, which servers with `--domain` need where no DNS knows the names.
pub fn run_hosts(context: &Context) -> Result<()> {
    let endpoints = &context.endpoints;
    let hubs = endpoints.hubs.iter().map(|hub| hub.host_name.as_str());
    let services = endpoints.provisioning_services.iter();
    let mut names: Vec<&str> = hubs
        .chain(services.flat_map(|service| [service.device_endpoint.as_str(), service.service_endpoint.as_str()]))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| name.parse::<IpAddr>().is_err());
    if context.output.is_json() {
        return context.output.record(&json!({ "names": names }));
    }
    match names.is_empty() {
        true => context.output.say("# Nothing to add: clients dial addresses."),
        false => context.output.say(&format!("127.0.0.1 {}", names.join(" "))),
    }
}
