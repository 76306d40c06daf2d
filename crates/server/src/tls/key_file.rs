//! Private keys as files of the data folder: written whole or not at all, and readable by their owner only.
//!
//! Whether a key is sealed on disk is the caller's choice through [`KeySeal`]; this module must never print a key or
//! leave a half-written one. Start reading at [`KeyFolder`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use zeroize::Zeroizing;

/// Permissions of a private key.
const KEY_MODE: u32 = 0o600;

/// Permissions of what clients may read.
const PUBLIC_MODE: u32 = 0o644;

/// The permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Seals private keys before they reach the disk.
pub trait KeySeal: Send + Sync {
    /// The bytes to keep for `key`, the file of which is called `name`.
    fn seal(&self, name: &str, key: &[u8]) -> Vec<u8>;

    /// The key back, or `None` if `sealed` is not what [`Self::seal`] made for `name`.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// Why a file of the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system refused.
    #[error("cannot {verb} {path}")]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The permissions let others read a private key.
    #[error(
        "{path} holds a private key and can be read by others (mode {mode:04o}): run `chmod 600 {path}`, and replace \
             the key if anybody may have read it"
    )]
    ReadableByOthers { path: PathBuf, mode: u32 },
    /// The sealing key does not fit, or the file is damaged.
    #[error("{path} cannot be unsealed: restore it together with the sealing key it was written with")]
    Sealed { path: PathBuf },
    /// The content is no private key.
    #[error("{path} holds no usable private key")]
    Unusable {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
}

/// The folder that keys and certificates live in.
#[derive(Clone)]
pub struct KeyFolder {
    folder: PathBuf,
    seal: Arc<dyn KeySeal>,
}

impl KeyFolder {
    /// The existing folder `folder`, whose keys are sealed by `seal`.
    pub fn new(folder: impl Into<PathBuf>, seal: Arc<dyn KeySeal>) -> Self {
        Self { folder: folder.into(), seal }
    }

    /// Where the file called `name` is or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a private key; `None` if there is no such file.
    pub fn read_key(&self, name: &str) -> Result<Option<KeyPair>, KeyFileError> {
        let path = self.path(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => Zeroizing::new(sealed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mode = fs::metadata(&path).map_err(failed("inspect", &path))?.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(KeyFileError::ReadableByOthers { path, mode });
        }
        let pem = self.seal.open(name, &sealed).ok_or_else(|| KeyFileError::Sealed { path: path.clone() })?;
        let unusable = |source| KeyFileError::Unusable { path: path.clone(), source };
        let text = std::str::from_utf8(&pem).map_err(|_| unusable(rcgen::Error::CouldNotParseKeyPair))?;
        KeyPair::from_pem(text).map(Some).map_err(unusable)
    }

    /// Writes a private key, so that after a crash the file is there whole or not at all.
    pub fn write_key(&self, name: &str, key: &KeyPair) -> Result<(), KeyFileError> {
        let pem = Zeroizing::new(key.serialize_pem());
        let sealed = Zeroizing::new(self.seal.seal(name, pem.as_bytes()));
        self.write(name, &sealed, KEY_MODE)
    }

    /// Reads a file that is no secret; `None` if there is no such file.
    pub fn read_public(&self, name: &str) -> Result<Option<String>, KeyFileError> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Writes a file that everybody may read, whole or not at all.
    pub fn write_public(&self, name: &str, text: &str) -> Result<(), KeyFileError> {
        self.write(name, text.as_bytes(), PUBLIC_MODE)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
        let path = self.path(name);
        let draft = self.path(&format!("{name}.draft"));
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft).and_then(|mut file| {
                // A draft left by a crash keeps its mode, and the umask may have taken bits from ours.
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.write_all(bytes)?;
                file.sync_all()
            });
        written.map_err(failed("write", &draft))?;
        fs::rename(&draft, &path).map_err(failed("rename", &path))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", &self.folder))
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_path_buf();
    move |source| KeyFileError::Io { verb, path, source }
}
