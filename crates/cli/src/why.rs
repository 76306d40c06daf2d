//! `muster why`: the decision behind an admit or a refusal.

use anyhow::Result;
use clap::Args;
use client::management::ManagementRequest;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::context::{Context, NotFound, manage};

/// What is asked about.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A tracking ID, or the registration ID of a device
    subject: String,
    /// Show at most this many decisions about a registration ID
    #[arg(long, default_value_t = 1)]
    limit: usize,
}

/// Prints the decision, or the latest ones.
pub async fn run(args: &WhyArgs, context: &Context) -> Result<()> {
    let client = context.management().await?;
    let subject = utf8_percent_encode(&args.subject, NON_ALPHANUMERIC).to_string();
    let is_tracking = domain::ids::TrackingId::parse(&args.subject).is_some();
    let path = match is_tracking {
        true => format!("/muster/v1/decisions/{subject}"),
        false => format!("/muster/v1/decisions?registrationId={subject}&limit={}", args.limit),
    };
    let request = ManagementRequest { method: Method::GET, path, api_version: "1", if_match: None, body: None };
    let answer = manage(&client, "reading the decision", request).await?;
    let decisions = match answer.get("value").and_then(Value::as_array) {
        Some(decisions) => decisions.clone(),
        None => vec![answer.clone()],
    };
    let lost = answer.get("lostRefusals").and_then(Value::as_u64).unwrap_or(0);
    if decisions.is_empty() {
        let text = format!("no decision about {} is known: the device never reached this server", args.subject);
        return Err(NotFound(if lost == 0 { text } else { format!("{text}, or is among {lost} not kept") }).into());
    }
    for decision in &decisions {
        match context.output.is_json() {
            true => context.output.record(decision)?,
            false => context.output.say(&story(decision))?,
        }
    }
    Ok(())
}

/// A decision for people.
fn story(decision: &Value) -> String {
    let text = |path: &str| decision.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut lines = vec![
        format!("{} was {}", text("/registrationId"), text("/outcome")),
        format!("  at           {} from {} over {}", text("/at"), text("/peer"), text("/transport")),
        format!("  tracking ID  {}", text("/trackingId")),
        format!("  ID scope     {}", text("/idScope")),
        format!("  presented    {}", text("/presented")),
    ];
    if decision.get("cause").is_some_and(Value::is_string) {
        lines.push(format!("  cause        {}: {}", text("/cause"), text("/what")));
        lines.push(format!("  to fix it    {}", text("/fix")));
    }
    let list = |name: &str| decision.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    for entry in list("considered") {
        let member = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        lines.push(format!("  considered   {}: {}", member("entry"), member("finding")));
    }
    for link in list("chain") {
        let member = |name: &str| link.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        lines.push(format!("  chain        {} by {} ({})", member("subject"), member("issuer"), member("verdict")));
    }
    let count = |name: &str| decision.get(name).and_then(Value::as_u64).filter(|count| *count > 0);
    if let Some(tried) = count("groupsTried") {
        lines.push(format!("  tried        {tried} enrollment group(s) by symmetric key"));
    }
    if let Some(repeats) = count("repeats") {
        lines.push(format!("  repeated     {repeats} time(s) within a minute"));
    }
    lines.join("\n")
}
