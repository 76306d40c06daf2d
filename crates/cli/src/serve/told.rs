//! What a running server leaves for clients to read: `endpoints.json`, and the authority's certificate.
//!
//! Both lie in the data folder, or, where everything is in memory, in a private folder that goes with the server. Start
//! at [`Told`].

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use client::endpoints::{Endpoints, FILE_NAME};
use server::tls::authority::CERTIFICATE_FILE;
use tempfile::TempDir;

/// The folder, while the server runs.
pub enum Told {
    /// The data folder, which holds the certificate already.
    Data(PathBuf),
    /// A folder of its own, for a server that keeps everything in memory.
    Private(TempDir),
}

impl Told {
    /// Prepares to tell in `data`, or in a folder that only this user can read. What an earlier server told is removed.
    pub fn new(data: Option<&Path>) -> Result<Self> {
        let told = match data {
            Some(folder) => Self::Data(folder.to_owned()),
            None => Self::Private(tempfile::Builder::new().prefix("muster-").tempdir().context("no private folder")?),
        };
        told.remove()?;
        Ok(told)
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Data(folder) => folder,
            Self::Private(folder) => folder.path(),
        }
    }

    /// Whether nothing else is kept there, and the folder goes when the server does.
    pub const fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    /// Writes the file whole or not at all; it holds keys.
    pub fn write(&self, endpoints: &Endpoints, authority: &str) -> Result<()> {
        if let Self::Private(folder) = self {
            let path = folder.path().join(CERTIFICATE_FILE);
            // It never changes, and somebody may be reading it.
            if !path.exists() {
                std::fs::write(&path, authority).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        let (path, fresh) = (self.folder().join(FILE_NAME), self.folder().join(format!("{FILE_NAME}.fresh")));
        let text = serde_json::to_string_pretty(endpoints)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&fresh).and_then(|mut file| file.write_all(text.as_bytes()));
        let written = written.and_then(|()| std::fs::rename(&fresh, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the file, so that nobody takes the server for a running one.
    pub fn remove(&self) -> Result<()> {
        let path = self.folder().join(FILE_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
