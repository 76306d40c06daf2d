//! Secrets at rest: sealed with AES-256-GCM under a key that lies beside the store in a file of its own (`rules.md` 20).
//!
//! A sealed value is bound to its table, row and column, so that it cannot be moved to another record by someone who can
//! write the store and not read the key. Nothing here may log, print or return the key. Start at [`Sealer::seal`].
//!
//! The envelope is: version (1 byte), key ID (4), nonce (12), ciphertext and tag (16).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use domain::clock::{Entropy, random};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::OpenError;
use crate::folder;

/// The name of the key file in the data folder.
pub const KEY_FILE: &str = "sealing.key";

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What a key file begins with; the key follows in hexadecimal.
const KEY_FILE_PREFIX: &str = "muster-sealing-key-1 ";
/// Permission bits that let others at a file.
const OTHERS: u32 = 0o077;

/// Tells sealing keys apart without telling anything about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    /// Its number, for storage.
    pub const fn number(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

/// Where a sealed value lies.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The table.
    pub table: &'static str,
    /// The natural key of the row; it must not hold what the record alone decides, since it cannot change later.
    pub row: &'a str,
    /// The column.
    pub column: &'static str,
}

impl Place<'_> {
    /// The associated data: the three parts with their lengths, so that no two places read the same.
    fn associated(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.table.len() + self.row.len() + self.column.len() + 12);
        for part in [self.table, self.row, self.column] {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Why a sealed value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// Not an envelope.
    #[error("it is not a sealed value")]
    Envelope,
    /// Sealed under another key.
    #[error("it was sealed under another key")]
    OtherKey,
    /// Changed, or moved from another place.
    #[error("it was changed, or belongs to another record")]
    Altered,
}

/// Seals and opens secrets.
pub struct Sealer {
    key: RandomizedNonceKey,
    id: KeyId,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Sealer {
    /// A sealer under a fresh key that is kept nowhere.
    pub fn ephemeral(entropy: &dyn Entropy) -> Self {
        let mut key = random::<KEY_BYTES>(entropy);
        let sealer = Self::new(&key);
        key.zeroize();
        sealer
    }

    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"muster sealing key id");
        context.update(key);
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).expect("a key of AES-256 has 32 bytes");
        Self { key, id: KeyId(id) }
    }

    /// Opens the key file, or makes one if there is none and `may_create`.
    ///
    /// A missing file beside a store that has secrets is an error: a fresh key could open none of them.
    pub fn open(path: &Path, may_create: bool, entropy: &dyn Entropy) -> Result<Self, OpenError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound && may_create => return Self::create(path, entropy),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(OpenError::KeyUnusable { path: path.to_owned(), problem: "is missing" });
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(damaged(path)),
            Err(error) => return Err(OpenError::file("cannot read the sealing key", path, error)),
        };
        let metadata =
            fs::metadata(path).map_err(|error| OpenError::file("cannot look at the sealing key", path, error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(OpenError::KeyExposed { path: path.to_owned(), mode });
        }
        let mut key = parse_key(&text).ok_or_else(|| damaged(path))?;
        let sealer = Self::new(&key);
        key.zeroize();
        Ok(sealer)
    }

    fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, OpenError> {
        let mut key = random::<KEY_BYTES>(entropy);
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_PREFIX.len() + 2 * KEY_BYTES + 1));
        text.push_str(KEY_FILE_PREFIX);
        for byte in key {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit of base 16"));
            }
        }
        text.push('\n');
        folder::write_private(path, text.as_bytes())?;
        let sealer = Self::new(&key);
        key.zeroize();
        Ok(sealer)
    }

    /// Which key this is.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Seals `plain` for `place`.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(plain.len() + TAG_BYTES);
        body.extend_from_slice(plain);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(place.associated()), &mut body)
            .expect("AES-GCM seals any secret far below its limit of 64 GiB");
        let mut envelope = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_BYTES + body.len());
        envelope.push(VERSION);
        envelope.extend_from_slice(&self.id.0);
        envelope.extend_from_slice(nonce.as_ref());
        envelope.extend_from_slice(&body);
        envelope
    }

    /// Opens what [`Self::seal`] made for the same place.
    pub fn open_sealed(&self, place: Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (head, rest) = envelope.split_first_chunk::<{ 1 + KEY_ID_BYTES }>().ok_or(Unsealable::Envelope)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Unsealable::Envelope)?;
        let [version, id @ ..] = head;
        if *version != VERSION {
            return Err(Unsealable::Envelope);
        }
        if *id != self.id.0 {
            return Err(Unsealable::OtherKey);
        }
        let mut body = Zeroizing::new(body.to_vec());
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.associated()), body.as_mut_slice())
            .map_err(|_| Unsealable::Altered)?;
        let length = opened.len();
        body.truncate(length);
        Ok(body)
    }
}

fn damaged(path: &Path) -> OpenError {
    OpenError::KeyUnusable { path: path.to_owned(), problem: "is damaged" }
}

fn parse_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.strip_prefix(KEY_FILE_PREFIX)?.trim_end().as_bytes();
    let mut key = [0; KEY_BYTES];
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = (*byte << 4) | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::clock::SeededEntropy;

    const PLACE: Place<'_> = Place { table: "identity", row: "1/dev-1", column: "keys" };

    #[test]
    fn what_was_sealed_is_opened_in_its_place_alone() {
        let sealer = Sealer::ephemeral(&SeededEntropy::new(1));
        let sealed = sealer.seal(PLACE, b"secret");
        assert_eq!(sealer.open_sealed(PLACE, &sealed).unwrap().as_slice(), b"secret");

        let elsewhere = [
            ("another table", Place { table: "enrollment", ..PLACE }),
            ("another row", Place { row: "1/dev-2", ..PLACE }),
            ("another column", Place { column: "token", ..PLACE }),
            ("the boundary moved", Place { table: "identity1", row: "/dev-1", ..PLACE }),
        ];
        for (name, place) in elsewhere {
            assert_eq!(sealer.open_sealed(place, &sealed).unwrap_err(), Unsealable::Altered, "{name}");
        }
    }

    #[test]
    fn damaged_envelopes_are_told_apart() {
        let sealer = Sealer::ephemeral(&SeededEntropy::new(1));
        let sealed = sealer.seal(PLACE, b"secret");
        for length in 0..sealed.len() {
            assert!(sealer.open_sealed(PLACE, &sealed[..length]).is_err(), "{length} bytes of it");
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open_sealed(PLACE, &changed).is_err(), "byte {index} changed");
        }
        let other = Sealer::ephemeral(&SeededEntropy::new(2));
        assert_eq!(other.open_sealed(PLACE, &sealed).unwrap_err(), Unsealable::OtherKey);
        assert_eq!(sealer.open_sealed(PLACE, b"").unwrap_err(), Unsealable::Envelope);
    }

    #[test]
    fn two_seals_of_one_secret_differ() {
        let sealer = Sealer::ephemeral(&SeededEntropy::new(1));
        assert_ne!(sealer.seal(PLACE, b"secret"), sealer.seal(PLACE, b"secret"));
    }

    #[test]
    fn a_key_file_is_private_and_found_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(KEY_FILE);
        let first = Sealer::open(&path, true, &SeededEntropy::new(1)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Sealer::open(&path, true, &SeededEntropy::new(2)).unwrap();
        assert_eq!(again.open_sealed(PLACE, &first.seal(PLACE, b"secret")).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn key_files_that_cannot_be_trusted_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(KEY_FILE);
        let refused = |may_create| Sealer::open(&path, may_create, &SeededEntropy::new(1)).unwrap_err().to_string();

        assert!(refused(false).contains("is missing"), "{}", refused(false));
        assert!(!path.exists());

        Sealer::open(&path, true, &SeededEntropy::new(1)).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused(true).contains("can be read by others"), "{}", refused(true));
        }
        for content in ["", "muster-sealing-key-1 00", "muster-sealing-key-1 zz", "\u{fffd}"] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(refused(true).contains("is damaged"), "{content:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
