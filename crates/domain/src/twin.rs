//! The twin of an identity: tags, desired and reported properties, with their versions and metadata.
//!
//! Everything here is a rule over JSON that is already in memory: nothing is read, stored or sent, and a change that
//! breaks a rule leaves the twin as it was. The names `$version`, `$metadata` and `$lastUpdated` stand here because they
//! are members of the document itself. Start at [`Twin`]; the rules of a patch are in [`limits`], the merge in `merge`.

pub mod limits;
mod merge;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use limits::{KeyFault, PatchError, SectionName};

use crate::clock::UnixTime;
use crate::ids::Etag;
use merge::Stamp;
pub(crate) use merge::{LAST_UPDATED, LAST_UPDATED_VERSION, timestamp};

/// Member that holds a section's version.
pub const VERSION: &str = "$version";
/// Member that holds a section's metadata.
pub const METADATA: &str = "$metadata";

/// The state document of a device or module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Labels that only operators see.
    pub tags: Map<String, Value>,
    /// What the device is wanted to be; written by operators.
    pub desired: Section,
    /// What the device says it is; written by the device.
    pub reported: Section,
    /// Counts every change of the twin, whichever part it concerned.
    pub version: u64,
    /// Moves with tags and desired properties, and with nothing else.
    pub etag: Etag,
    /// The configurations that it fulfils, by name, and whether each applies; as documents show them.
    #[serde(default)]
    pub configurations: Map<String, Value>,
}

/// Desired or reported properties: the document, when each part of it was written, and how often the whole was.
///
/// The document never holds `$version` or `$metadata`; the metadata has a node for every object and leaf of the document
/// and no other. Arrays are leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    document: Map<String, Value>,
    metadata: Map<String, Value>,
    version: u64,
}

/// What an operator wants of a twin; a part that is `None` is left alone. As the content of a twin to begin with, `None`
/// means empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Tags.
    pub tags: Option<Map<String, Value>>,
    /// Desired properties; `$version` and `$metadata` at its root are ignored, since clients send back what they read.
    pub desired: Option<Map<String, Value>>,
}

/// What a change of a twin means for others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// What the device is to be told, `$version` included: the merge patch as it was applied, or the whole document if it
    /// was replaced. `None` if the desired properties were left alone.
    pub desired: Option<Map<String, Value>>,
}

/// Reads the text of a patch.
pub fn parse_patch(text: &str) -> Result<Map<String, Value>, PatchError> {
    if text.len() > limits::PATCH_TEXT_BYTES_MAX {
        return Err(PatchError::TextTooLong { bytes: text.len() });
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(patch)) => Ok(patch),
        Ok(_) => Err(PatchError::NotAnObject),
        Err(_) => Err(PatchError::NotJson),
    }
}

impl Twin {
    /// Version of a fresh twin, which the hub itself has written twice (`contract/hub-service.md 5`).
    const FIRST_VERSION: u64 = 2;

    /// The twin of an identity that begins with nothing.
    pub fn new(etag: Etag) -> Self {
        Self {
            tags: Map::new(),
            desired: Section::untouched(),
            reported: Section::untouched(),
            version: Self::FIRST_VERSION,
            etag,
            configurations: Map::new(),
        }
    }

    /// The twin of an identity that begins with tags and desired properties. Versions are those of [`Twin::new`].
    pub fn with_initial(initial: ServiceChange, etag: Etag, now: UnixTime) -> Result<Self, PatchError> {
        let initial = initial.checked()?;
        let mut twin = Self::new(etag);
        if let Some(tags) = initial.tags {
            twin.tags = merge::without_nulls(tags);
        }
        if let Some(desired) = initial.desired {
            twin.desired.fill(desired, SectionName::Desired, now);
        }
        Ok(twin)
    }

    /// Merges `patch` into the reported properties; returns their new version.
    pub fn apply_reported(&mut self, patch: Map<String, Value>, now: UnixTime) -> Result<u64, PatchError> {
        if let Some(name) = [VERSION, METADATA].into_iter().find(|&name| patch.contains_key(name)) {
            return Err(PatchError::Reserved { name });
        }
        limits::check(SectionName::Reported, &patch)?;
        self.reported = self.reported.merged(patch, SectionName::Reported, now)?;
        self.version += 1;
        Ok(self.reported.version)
    }

    /// Merges `change` into tags and desired properties, both or neither; the twin takes the etag `fresh`. A change that
    /// names neither part changes nothing, not even the etag.
    pub fn apply_service_patch(
        &mut self,
        change: ServiceChange,
        fresh: Etag,
        now: UnixTime,
    ) -> Result<Changes, PatchError> {
        let change = change.checked()?;
        let tags = match change.tags {
            Some(patch) => Some(merge_tags(&self.tags, patch)?),
            None => None,
        };
        let pushed = change.desired.clone();
        let desired = match change.desired {
            Some(patch) => Some(self.desired.merged(patch, SectionName::Desired, now)?),
            None => None,
        };
        self.settle(tags, desired, fresh);
        Ok(Changes { desired: pushed.map(|patch| self.desired.with_version(patch)) })
    }

    /// Replaces tags and desired properties by those of `change`, both or neither; members that are null are left out.
    /// Otherwise as [`Twin::apply_service_patch`].
    pub fn replace(&mut self, change: ServiceChange, fresh: Etag, now: UnixTime) -> Result<Changes, PatchError> {
        let change = change.checked()?;
        let tags = change.tags.map(merge::without_nulls);
        let desired = change.desired.map(|document| self.desired.replaced(document, SectionName::Desired, now));
        let touched = desired.is_some();
        self.settle(tags, desired, fresh);
        Ok(Changes { desired: touched.then(|| self.desired.device_document()) })
    }

    /// Sets the twin back to what it began with, on the same hub: parts that `initial` lacks become empty. Versions go on
    /// counting, so that a connected device takes the change for newer than what it knows.
    pub fn reset_to(&mut self, initial: ServiceChange, fresh: Etag, now: UnixTime) -> Result<Changes, PatchError> {
        let initial = initial.checked()?;
        let tags = merge::without_nulls(initial.tags.unwrap_or_default());
        let desired = self.desired.replaced(initial.desired.unwrap_or_default(), SectionName::Desired, now);
        self.reported = self.reported.replaced(Map::new(), SectionName::Reported, now);
        self.settle(Some(tags), Some(desired), fresh);
        Ok(Changes { desired: Some(self.desired.device_document()) })
    }

    /// The twin as it arrives at another hub: everything is carried along, metadata and versions included, because the
    /// device goes on comparing versions with those it knows.
    pub fn migrate(&self, fresh: Etag) -> Self {
        // Another hub has configurations of its own.
        Self { version: self.version + 1, etag: fresh, configurations: Map::new(), ..self.clone() }
    }

    /// What the device reads: both sections with their versions, without metadata and tags
    /// (`contract/hub-device.md 3.1`).
    pub fn device_document(&self) -> Map<String, Value> {
        let section = |section: &Section| Value::Object(section.device_document());
        Map::from_iter([
            ("desired".to_owned(), section(&self.desired)),
            ("reported".to_owned(), section(&self.reported)),
        ])
    }

    fn settle(&mut self, tags: Option<Map<String, Value>>, desired: Option<Section>, fresh: Etag) {
        if tags.is_none() && desired.is_none() {
            return;
        }
        if let Some(tags) = tags {
            self.tags = tags;
        }
        if let Some(desired) = desired {
            self.desired = desired;
        }
        self.version += 1;
        self.etag = fresh;
    }
}

fn merge_tags(tags: &Map<String, Value>, patch: Map<String, Value>) -> Result<Map<String, Value>, PatchError> {
    let mut tags = tags.clone();
    merge::merge(&mut tags, patch);
    limits::check_total(SectionName::Tags, &tags)?;
    Ok(tags)
}

impl Section {
    const FIRST_VERSION: u64 = 1;

    /// A section that nobody has written.
    pub fn untouched() -> Self {
        Self { document: Map::new(), metadata: merge::untouched_metadata(), version: Self::FIRST_VERSION }
    }

    /// A section as storage kept its parts.
    pub const fn from_parts(document: Map<String, Value>, metadata: Map<String, Value>, version: u64) -> Self {
        Self { document, metadata, version }
    }

    /// The properties alone.
    pub const fn document(&self) -> &Map<String, Value> {
        &self.document
    }

    /// A tree like the document's whose nodes say when they were last written.
    pub const fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Counts the accepted changes of this section, those that changed no value included; 1 before the first.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The properties and `$version`.
    pub fn device_document(&self) -> Map<String, Value> {
        self.with_version(self.document.clone())
    }

    /// The properties, `$metadata` and `$version`.
    pub fn service_document(&self) -> Map<String, Value> {
        let mut document = self.document.clone();
        document.insert(METADATA.to_owned(), Value::Object(self.metadata.clone()));
        self.with_version(document)
    }

    fn with_version(&self, mut document: Map<String, Value>) -> Map<String, Value> {
        document.insert(VERSION.to_owned(), self.version.into());
        document
    }

    fn merged(&self, patch: Map<String, Value>, name: SectionName, now: UnixTime) -> Result<Self, PatchError> {
        let mut next = self.clone();
        next.version += 1;
        let stamp = next.stamp(name, now);
        merge::merge_stamped(&mut next.document, &mut next.metadata, patch, &stamp);
        limits::check_total(name, &next.document)?;
        Ok(next)
    }

    fn replaced(&self, document: Map<String, Value>, name: SectionName, now: UnixTime) -> Self {
        let mut next = Self { version: self.version + 1, ..Self::untouched() };
        next.fill(document, name, now);
        next
    }

    /// Writes `document` into an empty section without counting the version up.
    fn fill(&mut self, document: Map<String, Value>, name: SectionName, now: UnixTime) {
        let stamp = self.stamp(name, now);
        merge::merge_stamped(&mut self.document, &mut self.metadata, document, &stamp);
    }

    fn stamp(&self, name: SectionName, now: UnixTime) -> Stamp {
        Stamp::new(now, (name == SectionName::Desired).then_some(self.version))
    }
}

impl ServiceChange {
    /// Whether the change breaks a rule whatever twin it meets; for content that is kept before there is a twin.
    pub fn check(&self) -> Result<(), PatchError> {
        self.clone().checked().map(|_| ())
    }

    /// The change without the members that are not the caller's to set, if it keeps the rules.
    fn checked(mut self) -> Result<Self, PatchError> {
        if let Some(tags) = &self.tags {
            limits::check(SectionName::Tags, tags)?;
        }
        if let Some(desired) = &mut self.desired {
            desired.retain(|name, _| name != VERSION && name != METADATA);
            limits::check(SectionName::Desired, desired)?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
