//! `muster ca`: makes certificates for tests and for small fleets, without OpenSSL at hand.
//!
//! Each certificate NAME becomes three files, NAME.pem, NAME.chain.pem (leaf first, root last) and NAME.key.pem, and
//! with a password NAME.pfx as well. An issuer is found again by its name in the same folder. Keys are written with
//! mode 0600 and nothing is overwritten unless asked.

mod issue;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

pub use issue::{Credential, Issue, KeyKind, Role};

use crate::output::Output;

/// What to make.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// A self-signed root
    Root(CaArgs),
    /// A CA certificate signed by --issuer
    Intermediate(CaArgs),
    /// A device certificate: signed by --issuer, or self-signed without one
    Device(CaArgs),
    /// A verification certificate: its common name is the code, signed by the CA that is to be proved (--issuer)
    Verification(CaArgs),
}

/// How to make it.
#[derive(Debug, Args)]
pub struct CaArgs {
    /// Common name: the registration ID of a device, the verification code, or any name for a CA
    name: String,
    /// Folder for the files, and where the issuer's files are
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Name of the issuing certificate in the folder
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Days until it expires; a negative number makes one that has expired already
    #[arg(long, allow_negative_numbers = true, value_name = "DAYS")]
    days: Option<i32>,
    /// Kind of the private key
    #[arg(long, value_enum, default_value = "p256")]
    key: KeyKind,
    /// Certificates that may stand between this CA and a device
    #[arg(long, value_name = "N")]
    path_length: Option<u8>,
    /// Also write NAME.pfx (PKCS#12) under this password
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Base of the file names, if not the common name
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

/// Makes the certificate and tells which files were written.
pub fn run(command: &CaCommand, output: Output) -> Result<()> {
    let (role, args) = match command {
        CaCommand::Root(args) => (Role::Authority, args),
        CaCommand::Intermediate(args) => (Role::Authority, args),
        CaCommand::Device(args) => (Role::Device, args),
        CaCommand::Verification(args) => (Role::Verification, args),
    };
    let issuer = match (command, &args.issuer) {
        (CaCommand::Root(_), Some(_)) => bail!("a root signs itself: leave out --issuer, or make an intermediate"),
        (CaCommand::Intermediate(_) | CaCommand::Verification(_), None) => {
            bail!("say which certificate signs it: --issuer NAME (a name made before in {})", args.out.display())
        }
        (_, Some(name)) => Some(load(&args.out, name)?),
        (_, None) => None,
    };
    let days = args.days.unwrap_or(match role {
        Role::Authority => 3_650,
        Role::Device => 365,
        Role::Verification | Role::Server => 30,
    });
    let issue = Issue { common_name: &args.name, role, days, key: args.key, path_length: args.path_length };
    let made = issue.make(issuer.as_ref())?;
    let base = args.file.as_deref().unwrap_or(&args.name);
    let files = write(&made, &args.out, base, (args.password.as_deref(), args.force))?;
    report(&made, &files, output)
}

fn report(made: &Credential, files: &[PathBuf], output: Output) -> Result<()> {
    let certificate = domain::certificate::Certificate::from_der(made.leaf())?;
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    output.record(&json!({
        "subject": certificate.subject(),
        "issuer": certificate.issuer(),
        "sha1Thumbprint": certificate.sha1_hex(),
        "sha256Thumbprint": certificate.sha256_hex(),
        "notAfter": dialect::time::rfc3339_seconds(certificate.not_after()),
        "files": files,
    }))
}

fn load(folder: &Path, name: &str) -> Result<Credential> {
    let read = |suffix: &str| {
        let path = folder.join(format!("{name}{suffix}"));
        std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the issuer's {}; make it first or give --out", path.display()))
    };
    Credential::from_pem(&read(".chain.pem")?, &read(".key.pem")?)
}

/// Writes the files of `made` into `folder`, their names beginning with `base`; a password adds PKCS#12.
pub fn write(
    made: &Credential,
    folder: &Path,
    base: &str,
    (password, force): (Option<&str>, bool),
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    if base.contains(['/', '\0']) || base.starts_with('.') {
        bail!("{base:?} cannot be a file name: give one with --file");
    }
    let mut contents = vec![
        (".pem", made.leaf_pem().into_bytes(), 0o644),
        (".chain.pem", made.chain_pem().into_bytes(), 0o644),
        (".key.pem", made.key_pem().as_bytes().to_vec(), 0o600),
    ];
    if let Some(password) = password {
        contents.push((".pfx", made.to_pkcs12(base, password)?, 0o600));
    }
    let mut files = Vec::new();
    for (suffix, bytes, mode) in contents {
        let path = folder.join(format!("{base}{suffix}"));
        let mut options = OpenOptions::new();
        options.write(true).mode(mode);
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let mut file = options.open(&path).with_context(|| {
            format!("cannot write {}; --force overwrites what is there, --file takes another name", path.display())
        })?;
        file.write_all(&bytes)?;
        files.push(path);
    }
    Ok(files)
}
