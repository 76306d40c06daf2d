//! `muster certificate`: CA certificates of provisioning services and hubs, with proof of possession.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::context::Context;
use crate::noun::policy::OwnerArgs;
use crate::noun::resource::{self, items};

/// What to do with CA certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Upload a CA certificate
    Create {
        #[command(flatten)]
        name: CertificateArgs,
        /// Its file, PEM or DER
        #[arg(long, value_name = "FILE")]
        path: PathBuf,
        /// Vouch for it, which skips the proof of possession
        #[arg(long)]
        verified: bool,
    },
    /// List CA certificates
    List(OwnerArgs),
    /// Show a CA certificate
    Show(CertificateArgs),
    /// Make a verification code; an earlier one ends
    GenerateVerificationCode(CertificateArgs),
    /// Prove possession with a certificate that the CA signed for the code
    Verify {
        #[command(flatten)]
        name: CertificateArgs,
        /// The verification certificate, PEM or DER
        #[arg(long, value_name = "FILE")]
        path: PathBuf,
    },
    /// Delete a CA certificate; acts on the next registration
    Delete(CertificateArgs),
}

/// Which certificate.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// Name of the certificate
    name: String,
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Does it.
pub async fn run(command: &CertificateCommand, context: &Context) -> Result<()> {
    match command {
        CertificateCommand::Create { name, path, verified } => {
            let body = json!({ "properties": { "certificate": read(path)?, "isVerified": verified } });
            context.output.record(&send(context, name, (Method::PUT, ""), Some(&body), None).await?)
        }
        CertificateCommand::List(owner) => {
            let (kind, owner) = owner.owner();
            let rest = format!("/{owner}/certificates");
            let answer = resource::send(context, kind, Method::GET, &rest, (None, None)).await?;
            context.output.list(
                items(&answer),
                &[
                    ("Certificate", "/name"),
                    ("Subject", "/properties/subject"),
                    ("Expires", "/properties/expiry"),
                    ("Verified", "/properties/isVerified"),
                    ("Thumbprint", "/properties/thumbprint"),
                ],
            )
        }
        CertificateCommand::Show(name) => {
            context.output.record(&send(context, name, (Method::GET, ""), None, None).await?)
        }
        CertificateCommand::GenerateVerificationCode(name) => {
            let etag = etag(context, name).await?;
            let step = (Method::POST, "/generateVerificationCode");
            context.output.record(&send(context, name, step, None, Some(&etag)).await?)
        }
        CertificateCommand::Verify { name, path } => {
            let etag = etag(context, name).await?;
            let body = json!({ "certificate": read(path)? });
            context.output.record(&send(context, name, (Method::POST, "/verify"), Some(&body), Some(&etag)).await?)
        }
        CertificateCommand::Delete(name) => {
            let etag = etag(context, name).await?;
            send(context, name, (Method::DELETE, ""), None, Some(&etag)).await?;
            context.output.record(&json!({ "name": name.name, "deleted": true }))
        }
    }
}

async fn send(
    context: &Context,
    args: &CertificateArgs,
    (method, step): (Method, &str),
    body: Option<&Value>,
    etag: Option<&str>,
) -> Result<Value> {
    let (kind, owner) = args.owner.owner();
    let rest = format!("/{owner}/certificates/{}{step}", args.name);
    resource::send(context, kind, method, &rest, (body, etag)).await
}

/// The version that the API demands to be named back.
async fn etag(context: &Context, args: &CertificateArgs) -> Result<String> {
    let certificate = send(context, args, (Method::GET, ""), None, None).await?;
    Ok(certificate.get("etag").and_then(Value::as_str).context("the certificate has no etag")?.to_owned())
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(STANDARD.encode(bytes))
}
