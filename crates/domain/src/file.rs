//! Files that devices upload: names, signatures, limits, and what is told of them.
//!
//! A device asks for a place, gets a signature that lets whoever holds it write and read one file for a while, and says at
//! the end how it went (`contract/hub-device.md 5.4`). The name of a file never names anything on a disk. Knows no wire
//! and no clock. Start at [`FileName`] and [`FileToken`].

pub mod checksum;

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use crate::clock::UnixTime;
use crate::cloud_to_device::{FeedbackSettings, InvalidQueue, QueueSettings};
use crate::ids::{ContentId, Etag, HubKey, LockToken, UploadId};
use crate::operation::identity::IdentityName;
use crate::sas::{SymmetricKey, sha256};

use self::checksum::Md5;

/// Most blocks that one file is made of. Azure takes 50,000 of them; here a list of blocks is one change of the store, which
/// holds up all others for as long as it takes.
pub const BLOCKS_MAX: usize = 1_000;
/// Files of a hub that holders of tokens for its container have begun and not written.
pub const CONTAINER_UPLOADS_MAX: u32 = 1_000;
/// Bytes that a piece of content counts for at least, so that there is a bound on how many there are.
pub const CHARGED_BYTES_MIN: u64 = 4_096;

/// The name under which a hub keeps a file: that of the identity, a slash, and the name the device gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(Box<str>);

/// Why a text is no name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    /// Empty or too long.
    #[error("a file's name has 1 to {} bytes, with that of its device before it", FileName::BYTES_MAX)]
    Length,
    /// A control character, or a backslash, which clients turn into a slash.
    #[error("a file's name holds a control character or a backslash")]
    Character,
    /// An empty segment, or one of dots, which clients leave out.
    #[error("a segment of a file's name is empty or made of dots alone")]
    Segment,
}

impl FileName {
    /// Most bytes of a name (1,024 characters in Azure).
    pub const BYTES_MAX: usize = 1_024;

    /// Reads a whole name, as it is kept.
    pub fn parse(text: &str) -> Result<Self, InvalidFileName> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(InvalidFileName::Length);
        }
        if text.chars().any(|character| character.is_control() || character == '\\') {
            return Err(InvalidFileName::Character);
        }
        if text.split('/').any(|segment| segment.bytes().all(|byte| byte == b'.')) {
            return Err(InvalidFileName::Segment);
        }
        Ok(Self(text.into()))
    }

    /// The name of a file that `owner` calls `text`.
    pub fn of(owner: &IdentityName, text: &str) -> Result<Self, InvalidFileName> {
        match &owner.module {
            None => Self::parse(&format!("{}/{text}", owner.device)),
            Some(module) => Self::parse(&format!("{}/{module}/{text}", owner.device)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = InvalidFileName;
    fn try_from(text: String) -> Result<Self, InvalidFileName> {
        Self::parse(&text)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls one block of a file that it uploads block by block.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct BlockId(Box<[u8]>);

impl BlockId {
    /// Most bytes.
    pub const BYTES_MAX: usize = 64;

    /// Takes 1 to 64 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=Self::BYTES_MAX).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where a block of a list is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockSource {
    /// Among those of the file as it stands.
    Committed,
    /// Among those that were sent since.
    Uncommitted,
    /// Among those sent since, and then among those of the file.
    Latest,
}

/// What a token lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Read the file.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

impl Permissions {
    /// What a device is given.
    pub const READ_WRITE: Self = Self { read: true, write: true };
}

/// What a holder of a token wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read the file.
    Read,
    /// To write it.
    Write,
    /// To remove it.
    Delete,
}

impl Permissions {
    /// Whether they suffice.
    pub const fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Delete => false,
        }
    }
}

/// A signature over the right to one file until a time. Having one proves nothing before [`Self::is_signed_by`].
#[derive(Clone, PartialEq, Eq)]
pub struct FileToken {
    /// The upload it was given out for.
    pub upload: UploadId,
    /// What it allows.
    pub permissions: Permissions,
    /// Until when.
    pub expires_at: UnixTime,
    /// HMAC-SHA256 over the above, the hub and the file's name.
    pub signature: [u8; 32],
}

impl FileToken {
    /// Signs the right to read and write `file` of `hub`. The time is cut to whole seconds.
    pub fn issue(key: &SymmetricKey, (hub, file): (HubKey, &FileName), upload: UploadId, expires_at: UnixTime) -> Self {
        let expires_at = UnixTime::from_seconds(expires_at.seconds());
        let permissions = Permissions::READ_WRITE;
        let mut token = Self { upload, permissions, expires_at, signature: [0; 32] };
        token.signature = key.sign(&token.message(hub, file));
        token
    }

    /// Whether `key` signed it for `file` of `hub`; takes the same time whatever the answer.
    pub fn is_signed_by(&self, key: &SymmetricKey, hub: HubKey, file: &FileName) -> bool {
        key.sign(&self.message(hub, file)).ct_eq(&self.signature).into()
    }

    /// What is signed. The name is last and holds no line end, so that no two tokens have one message.
    fn message(&self, hub: HubKey, file: &FileName) -> Vec<u8> {
        let Permissions { read, write } = self.permissions;
        let seconds = self.expires_at.seconds();
        format!("{}\n{}\n{read}\n{write}\n{seconds}\n{file}", hub.0, self.upload).into_bytes()
    }
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToken")
            .field("upload", &self.upload)
            .field("permissions", &self.permissions)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A signature over the right to every file of a container until a time, for operators' programs. Having one proves
/// nothing before [`Self::is_signed_by`].
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerToken {
    /// What it allows.
    pub permissions: Permissions,
    /// Until when.
    pub expires_at: UnixTime,
    /// HMAC-SHA256 over the above, the hub and the container's name.
    pub signature: [u8; 32],
}

impl ContainerToken {
    /// Longest time for which one is given out.
    pub const TTL_MAX: Duration = Duration::from_hours(7 * 24);

    /// Signs the right to read and write the files of `container`. The time is cut to whole seconds.
    pub fn issue(key: &SymmetricKey, (hub, container): (HubKey, &str), expires_at: UnixTime) -> Self {
        let expires_at = UnixTime::from_seconds(expires_at.seconds());
        let mut token = Self { permissions: Permissions::READ_WRITE, expires_at, signature: [0; 32] };
        token.signature = key.sign(&token.message(hub, container));
        token
    }

    /// Whether `key` signed it for `container` of `hub`; takes the same time whatever the answer.
    pub fn is_signed_by(&self, key: &SymmetricKey, hub: HubKey, container: &str) -> bool {
        key.sign(&self.message(hub, container)).ct_eq(&self.signature).into()
    }

    /// By what `file` is written while the token is good: the same however often its holder begins.
    pub fn upload_of(&self, file: &FileName) -> UploadId {
        let digest = sha256(&[&self.signature[..], file.as_str().as_bytes()].concat());
        let (bits, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
        UploadId::from_bits(u128::from_be_bytes(*bits))
    }

    /// What is signed. It begins with a word, which what a [`FileToken`] signs does not.
    fn message(&self, hub: HubKey, container: &str) -> Vec<u8> {
        let Permissions { read, write } = self.permissions;
        format!("container\n{}\n{read}\n{write}\n{}\n{container}", hub.0, self.expires_at.seconds()).into_bytes()
    }
}

impl fmt::Debug for ContainerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerToken")
            .field("permissions", &self.permissions)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What the holder of a signature shows to the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageToken {
    /// For one file.
    File(FileToken),
    /// For all files of a container.
    Container(ContainerToken),
}

impl StorageToken {
    /// Until when.
    pub const fn expires_at(&self) -> UnixTime {
        match self {
            Self::File(token) => token.expires_at,
            Self::Container(token) => token.expires_at,
        }
    }

    /// What it allows.
    pub const fn permissions(&self) -> Permissions {
        match self {
            Self::File(token) => token.permissions,
            Self::Container(token) => token.permissions,
        }
    }
}

/// Bytes that are kept, by the name under which they are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Content {
    /// Which.
    pub id: ContentId,
    /// How many.
    pub bytes: u64,
}

/// What a client says of a file's content, given back unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct FileProperties {
    /// Content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Content encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// What the content adds up to: as was found of one that came whole, else as its sender says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_md5: Option<Md5>,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name.
    pub name: FileName,
    /// Its bytes, in their order.
    pub content: Vec<Content>,
    /// What was said of them.
    pub properties: FileProperties,
    /// When it was first there.
    pub created_at: UnixTime,
    /// When it was last written.
    pub written_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

impl StoredFile {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.content.iter().map(|content| content.bytes).sum()
    }
}

/// How an upload went, as its device says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadOutcome {
    /// Whether the file is there as the device meant it.
    pub is_success: bool,
    /// What the storage had answered, for the log.
    pub status: i64,
}

/// That a file was uploaded, for back-end programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNotification {
    /// Who uploaded it.
    pub device: IdentityName,
    /// The file.
    pub file: FileName,
    /// Its bytes.
    pub bytes: u64,
    /// When it was last written.
    pub written_at: UnixTime,
    /// When the notification was enqueued.
    pub enqueued_at: UnixTime,
}

/// A notification in the hands of a back-end program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedNotification {
    /// By which it is settled.
    pub lock: LockToken,
    /// What it tells.
    pub notification: FileNotification,
    /// Where the file is found: the hub's own host name and the container.
    pub host: String,
    /// The container.
    pub container: String,
}

/// How a hub treats files (`contract/control-plane.md 4.2`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct FileSettings {
    /// What stands before the names of files in their addresses; empty where devices may upload none.
    pub container: String,
    /// How long a device has to upload a file.
    pub upload_ttl: Duration,
    /// Whether back-end programs are told of files.
    pub notifies: bool,
    /// How those notifications wait.
    pub notifications: FeedbackSettings,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            container: String::new(),
            upload_ttl: Duration::from_hours(1),
            notifies: false,
            notifications: FeedbackSettings::default(),
        }
    }
}

/// Which setting of files is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFiles {
    /// The name of the container.
    #[error("a container's name has 3 to 63 lower-case letters, digits and single hyphens, none of them at an end")]
    Container,
    /// The time for an upload.
    #[error("a device has 1 minute to 24 hours to upload a file")]
    UploadTtl,
    /// How notifications wait.
    #[error("{0}")]
    Notifications(InvalidQueue),
}

impl FileSettings {
    /// Shortest time for an upload.
    pub const UPLOAD_TTL_MIN: Duration = Duration::from_mins(1);
    /// Longest time for an upload.
    pub const UPLOAD_TTL_MAX: Duration = Duration::from_hours(24);

    /// Whether devices may upload files.
    pub fn are_taken(&self) -> bool {
        !self.container.is_empty()
    }

    /// Whether every setting is in its range.
    pub fn check(&self) -> Result<(), InvalidFiles> {
        if self.are_taken() && !is_container(&self.container) {
            return Err(InvalidFiles::Container);
        }
        if !(Self::UPLOAD_TTL_MIN..=Self::UPLOAD_TTL_MAX).contains(&self.upload_ttl) {
            return Err(InvalidFiles::UploadTtl);
        }
        let settings = QueueSettings { feedback: self.notifications, ..QueueSettings::default() };
        settings.check().map_err(InvalidFiles::Notifications)
    }
}

fn is_container(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| is_plain(byte) || byte == b'-')
        && name.split('-').all(|word| !word.is_empty())
}

/// Which bytes of a file are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last, itself included; to the end if there is none.
    pub last: Option<u64>,
}

impl Range {
    /// The part of a file of `bytes` bytes: where it begins and how long it is. `None` if it begins behind the end.
    pub fn within(self, bytes: u64) -> Option<(u64, u64)> {
        if self.first >= bytes {
            return None;
        }
        let last = self.last.map_or(bytes - 1, |last| last.min(bytes - 1));
        (last >= self.first).then(|| (self.first, last - self.first + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, ModuleId};

    const NOON: UnixTime = UnixTime::from_seconds(1_700_000_000);

    fn device() -> IdentityName {
        IdentityName::device(DeviceId::parse("dev-1").unwrap())
    }

    #[test]
    fn a_name_stays_below_its_device_and_leads_nowhere_else() {
        let longest = "a".repeat(FileName::BYTES_MAX - "dev-1/".len());
        let longer = format!("{longest}a");
        let cases: &[(&str, Result<&str, InvalidFileName>)] = &[
            ("log.txt", Ok("dev-1/log.txt")),
            ("a/b c/ü.bin", Ok("dev-1/a/b c/ü.bin")),
            ("..a/.b", Ok("dev-1/..a/.b")),
            ("", Err(InvalidFileName::Segment)),
            ("/etc/passwd", Err(InvalidFileName::Segment)),
            ("../other/log.txt", Err(InvalidFileName::Segment)),
            ("a/../../b", Err(InvalidFileName::Segment)),
            ("a/./b", Err(InvalidFileName::Segment)),
            ("a//b", Err(InvalidFileName::Segment)),
            ("a/", Err(InvalidFileName::Segment)),
            ("a/...", Err(InvalidFileName::Segment)),
            ("a\\..\\b", Err(InvalidFileName::Character)),
            ("a\nb", Err(InvalidFileName::Character)),
            ("a\0b", Err(InvalidFileName::Character)),
            (&longer, Err(InvalidFileName::Length)),
        ];
        for (text, expected) in cases {
            let found = FileName::of(&device(), text);
            assert_eq!(found.as_ref().map(FileName::as_str).map_err(|error| *error), *expected, "{text}");
        }
        assert!(FileName::of(&device(), &longest).is_ok());
        let module = IdentityName { module: Some(ModuleId::parse("m").unwrap()), ..device() };
        assert_eq!(FileName::of(&module, "x").unwrap().as_str(), "dev-1/m/x");
    }

    #[test]
    fn a_token_is_good_for_its_file_its_hub_and_its_time_alone() {
        let key = SymmetricKey::from_bytes(&[1; 32]).unwrap();
        let file = FileName::parse("dev-1/a").unwrap();
        let token = FileToken::issue(&key, (HubKey(1), &file), UploadId::from_bits(7), NOON);
        assert!(token.is_signed_by(&key, HubKey(1), &file));
        let other_key = SymmetricKey::from_bytes(&[2; 32]).unwrap();
        let other_file = FileName::parse("dev-2/a").unwrap();
        assert!(!token.is_signed_by(&other_key, HubKey(1), &file), "another key");
        assert!(!token.is_signed_by(&key, HubKey(2), &file), "another hub");
        assert!(!token.is_signed_by(&key, HubKey(1), &other_file), "another file");
        let changed = [
            FileToken { expires_at: NOON.plus(Duration::from_secs(1)), ..token.clone() },
            FileToken { upload: UploadId::from_bits(8), ..token.clone() },
            FileToken { permissions: Permissions { read: true, write: false }, ..token.clone() },
            FileToken { signature: [0; 32], ..token },
        ];
        for token in changed {
            assert!(!token.is_signed_by(&key, HubKey(1), &file), "{token:?}");
        }
    }

    #[test]
    fn a_container_s_token_is_good_for_its_container_its_hub_and_its_time_alone() {
        let key = SymmetricKey::from_bytes(&[1; 32]).unwrap();
        let token = ContainerToken::issue(&key, (HubKey(1), "uploads"), NOON);
        assert!(token.is_signed_by(&key, HubKey(1), "uploads"));
        assert!(!token.is_signed_by(&key, HubKey(2), "uploads"), "another hub");
        assert!(!token.is_signed_by(&key, HubKey(1), "others"), "another container");
        let other_key = SymmetricKey::from_bytes(&[2; 32]).unwrap();
        assert!(!token.is_signed_by(&other_key, HubKey(1), "uploads"), "another key");
        let longer = ContainerToken { expires_at: NOON.plus(Duration::from_secs(1)), ..token.clone() };
        assert!(!longer.is_signed_by(&key, HubKey(1), "uploads"), "another time");

        let [one, other] = ["a", "b"].map(|name| FileName::parse(name).unwrap());
        assert_eq!(token.upload_of(&one), token.upload_of(&one));
        assert_ne!(token.upload_of(&one), token.upload_of(&other));
        let later = ContainerToken::issue(&key, (HubKey(1), "uploads"), NOON.plus(Duration::from_secs(1)));
        assert_ne!(token.upload_of(&one), later.upload_of(&one));
    }

    #[test]
    fn nobody_is_given_the_right_to_remove() {
        let allowed = [Access::Read, Access::Write, Access::Delete].map(|access| Permissions::READ_WRITE.allow(access));
        assert_eq!(allowed, [true, true, false]);
        let read = Permissions { read: true, write: false };
        assert_eq!([read.allow(Access::Read), read.allow(Access::Write)], [true, false]);
    }

    #[test]
    fn ranges_end_with_the_file() {
        let cases = [
            ((0, None), 10, Some((0, 10))),
            ((3, None), 10, Some((3, 7))),
            ((3, Some(3)), 10, Some((3, 1))),
            ((3, Some(99)), 10, Some((3, 7))),
            ((0, Some(u64::MAX)), 1, Some((0, 1))),
            ((10, None), 10, None),
            ((5, Some(4)), 10, None),
            ((0, None), 0, None),
        ];
        for ((first, last), bytes, expected) in cases {
            assert_eq!(Range { first, last }.within(bytes), expected, "{first}-{last:?} of {bytes}");
        }
    }

    #[test]
    fn settings_have_ranges() {
        let with = |change: fn(&mut FileSettings)| {
            let mut settings = FileSettings::default();
            change(&mut settings);
            settings.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|it| it.container = "uploads-1".into()), Ok(()));
        for name in ["ab", "Uploads", "a--b", "-ab", "ab-", "a/b", "../a", "ü-ü", &"a".repeat(64)] {
            let settings = FileSettings { container: name.to_owned(), ..FileSettings::default() };
            assert_eq!(settings.check(), Err(InvalidFiles::Container), "{name}");
        }
        assert_eq!(with(|it| it.upload_ttl = Duration::from_secs(59)), Err(InvalidFiles::UploadTtl));
        assert_eq!(with(|it| it.upload_ttl = Duration::from_hours(25)), Err(InvalidFiles::UploadTtl));
        let lock = Err(InvalidFiles::Notifications(InvalidQueue::Lock));
        assert_eq!(with(|it| it.notifications.lock = Duration::from_secs(4)), lock);
        assert!(!FileSettings::default().are_taken());
    }

    #[test]
    fn a_block_has_a_name_of_bounded_length() {
        assert!(BlockId::from_bytes(&[0; 64]).is_some());
        assert_eq!((BlockId::from_bytes(&[]), BlockId::from_bytes(&[0; 65])), (None, None));
    }
}
