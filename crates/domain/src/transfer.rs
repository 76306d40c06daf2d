//! Imports and exports: the identities of a hub, and its configurations, from or to files with one of them a line
//! (`contract/hub-service.md 8.2`).
//!
//! Says what is asked and how it stands; knows neither how a line is written nor where files are. Start at [`Draft`],
//! then [`Line`].

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::configuration;
use crate::file::FileName;
use crate::ids::{ConfigurationId, JobId, Precondition};
use crate::operation::identity::IdentityName;
use crate::route::{InvalidEndpoint, Url};
use crate::twin::ServiceChange;

/// What the file of identities is called if nobody says.
pub const IDENTITIES_FILE: &str = "devices.txt";
/// What the file of configurations is called if nobody says.
pub const CONFIGURATIONS_FILE: &str = "configurations.txt";
/// What the file of what could not be imported is called.
pub const FAULTS_FILE: &str = "importErrors.log";
/// Bytes of a line: a twin with all of its metadata takes fewer.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Lines of an import whose faults are told; of others, only that there are more.
pub const FAULTS_TOLD_MAX: u64 = 1_000;
/// Imports and exports of a hub that can be asked for; the oldest is forgotten for a fresh one.
pub const KEPT_MAX: usize = 100;

/// The address of a container, with a signature in its query that lets who has it read and write there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Container(Url);

impl Container {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        const FORM: &str = "https://host/container?signature";
        let url = Url::parse(text, &[("https", 443)], FORM)?;
        let (path, query) = url.path.split_once('?').ok_or(InvalidEndpoint::Url { form: FORM })?;
        if path.trim_matches('/').is_empty() || query.is_empty() {
            return Err(InvalidEndpoint::Url { form: FORM });
        }
        Ok(Self(url))
    }

    /// The address of one of its files.
    pub fn file(&self, name: &FileName) -> Url {
        let (path, query) = self.0.path.split_once('?').unwrap_or((&self.0.path, ""));
        let path = format!("{}/{}?{query}", path.trim_end_matches('/'), percent_encoded(name.as_str()));
        Url { path, ..self.0.clone() }
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("host", &self.0.host).finish_non_exhaustive()
    }
}

/// A path of which every other byte than a letter, a digit, a slash and a few more is written in hexadecimal digits.
fn percent_encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a text takes whatever is written");
        }
    }
    text
}

/// An import or export as an operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// What is done.
    pub work: Work,
    /// The file of configurations, beside that of identities; `None` if they are left alone.
    pub configurations: Option<FileName>,
    /// Where what comes of it is written: the identities, or what could not be imported.
    pub output: Container,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Each line of a file is carried out.
    Import {
        /// Where it is.
        input: Container,
        /// Which.
        file: FileName,
    },
    /// Each identity becomes a line of a file.
    Export {
        /// Which.
        file: FileName,
        /// Whether symmetric keys are left out.
        without_keys: bool,
    },
}

/// An import or export as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What it is called.
    pub id: JobId,
    /// What was asked for.
    pub draft: Draft,
    /// When it was asked for.
    pub created_at: UnixTime,
    /// When it began.
    pub started_at: Option<UnixTime>,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
    /// Where it stands.
    pub status: TransferStatus,
    /// How far it is, in percent.
    pub progress: u8,
    /// Why it failed, in words without secrets.
    pub failure: Option<String>,
}

/// Where an import or export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// It has not begun.
    Enqueued,
    /// It is being carried out.
    Running,
    /// It came to its end, whatever became of each line.
    Completed,
    /// It did not come to its end.
    Failed,
    /// It was ended by an operator.
    Cancelled,
}

/// The files of an import, in the order in which they are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportFile {
    /// A device or module a line.
    #[default]
    Identities,
    /// A configuration a line.
    Configurations,
}

/// What one line of an import asks for; identities are described by an `I`.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<I> {
    /// Something about an identity.
    Identity(IdentityName, Change<I>),
    /// Something about a configuration.
    Configuration(ConfigurationChange),
}

/// What is to be done with a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigurationChange {
    /// Write it.
    Put(Box<configuration::Draft>, Manner),
    /// Remove it.
    Delete(ConfigurationId, Precondition),
}

impl ConfigurationChange {
    /// Whose.
    pub const fn id(&self) -> &ConfigurationId {
        match self {
            Self::Put(draft, _) => &draft.id,
            Self::Delete(id, _) => id,
        }
    }
}

/// What is to be done with an identity, which is described by an `I`.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<I> {
    /// Write it.
    Put {
        /// As it shall be.
        identity: Box<I>,
        /// Whether it may be there.
        manner: Manner,
        /// What its twin begins with, or what is merged into the twin that is there.
        twin: Option<Box<ServiceChange>>,
    },
    /// Remove it.
    Delete {
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Merge into its twin.
    PatchTwin {
        /// Tags and desired properties.
        change: Box<ServiceChange>,
        /// Demanded of the twin.
        precondition: Precondition,
    },
}

/// How an identity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// There must be none.
    Create,
    /// There must be one, and this is demanded of it.
    Update(Precondition),
    /// Where there is one, this is demanded of it.
    CreateOrUpdate(Precondition),
}

/// A line that was not carried out, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// Which; the first is 1.
    pub line: u64,
    /// The device that it names, as far as it could be read.
    pub device: Option<String>,
    /// The module.
    pub module: Option<String>,
    /// The configuration.
    pub configuration: Option<String>,
    /// Why.
    pub reason: FaultReason,
}

/// Why a line was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum FaultReason {
    /// It cannot be read, or breaks a rule.
    #[error("{0}")]
    Refused(String),
    /// The device is there already.
    #[error("A device with this ID is already registered.")]
    DeviceExists,
    /// The module is there already.
    #[error("A module with this ID is already registered on the device.")]
    ModuleExists,
    /// The device is not there.
    #[error("The device was not found.")]
    DeviceNotFound,
    /// The module is not there.
    #[error("The module was not found.")]
    ModuleNotFound,
    /// The configuration is there already.
    #[error("A configuration with this ID exists.")]
    ConfigurationExists,
    /// The configuration is not there.
    #[error("The configuration was not found.")]
    ConfigurationNotFound,
    /// The hub takes no more configurations.
    #[error("The hub takes no more configurations.")]
    TooManyConfigurations,
    /// The identity, its twin or the configuration stands at another version.
    #[error("PreconditionFailed, ETag may be invalid.")]
    PreconditionFailed,
    /// The hub takes no more devices.
    #[error("The hub takes no more devices.")]
    TooManyDevices,
    /// The device takes no more modules.
    #[error("The device takes no more modules.")]
    TooManyModules,
    /// Our fault.
    #[error("Internal error.")]
    Internal,
}

impl LineFault {
    /// What is wrong with a line that asks for something about an identity.
    pub fn of_identity(line: u64, name: &IdentityName, reason: FaultReason) -> Self {
        let (device, module) = (Some(name.device.to_string()), name.module.as_ref().map(ToString::to_string));
        Self { line, device, module, configuration: None, reason }
    }

    /// What is wrong with a line that asks for something about a configuration.
    pub fn of_configuration(line: u64, id: &ConfigurationId, reason: FaultReason) -> Self {
        Self { line, device: None, module: None, configuration: Some(id.to_string()), reason }
    }

    /// What is wrong with a line that cannot be read.
    pub const fn unread(line: u64, reason: FaultReason) -> Self {
        Self { line, device: None, module: None, configuration: None, reason }
    }
}

impl FaultReason {
    /// That `name` is not there.
    pub const fn not_found(name: &IdentityName) -> Self {
        if name.module.is_some() { Self::ModuleNotFound } else { Self::DeviceNotFound }
    }

    /// That `name` is there already.
    pub const fn exists(name: &IdentityName) -> Self {
        if name.module.is_some() { Self::ModuleExists } else { Self::DeviceExists }
    }

    /// That there is no room for `name`.
    pub const fn full(name: &IdentityName) -> Self {
        if name.module.is_some() { Self::TooManyModules } else { Self::TooManyDevices }
    }

    /// The name of the failure, as a hub's service API calls the same (`contract/hub-service.md 3`).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "ArgumentInvalid",
            Self::DeviceExists => "DeviceAlreadyExists",
            Self::ModuleExists => "ModuleAlreadyExistsOnDevice",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::ModuleNotFound => "ModuleNotFound",
            Self::ConfigurationExists => "ConfigurationAlreadyExists",
            Self::ConfigurationNotFound => "ConfigurationNotFound",
            Self::TooManyConfigurations => "IotHubQuotaExceeded",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::TooManyDevices => "TooManyDevices",
            Self::TooManyModules => "TooManyModulesOnDevice",
            Self::Internal => "ServerError",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_an_address_with_a_signature() {
        let cases = [
            ("https://host/uploads?sr=c&sig=x", Ok("/uploads/a%20b/c.txt?sr=c&sig=x")),
            ("https://host:8443/account/uploads/?sig=x", Ok("/account/uploads/a%20b/c.txt?sig=x")),
            ("https://host/uploads", Err(())),
            ("https://host/uploads?", Err(())),
            ("https://host/?sig=x", Err(())),
            ("https://host?sig=x", Err(())),
            ("http://host/uploads?sig=x", Err(())),
            ("https://user@host/uploads?sig=x", Err(())),
            ("", Err(())),
        ];
        let name = FileName::parse("a b/c.txt").unwrap();
        for (text, expected) in cases {
            let found = Container::parse(text).map(|container| container.file(&name).path);
            assert_eq!(found.as_deref().map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn a_container_s_signature_is_not_printed() {
        let container = Container::parse("https://host/uploads?sig=secret").unwrap();
        assert!(!format!("{container:?}").contains("secret"));
    }
}
