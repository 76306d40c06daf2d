//! Shared access signatures and the symmetric keys that make them (`contract/dps-device.md 5`,
//! `contract/hub-device.md 6.1`).
//!
//! A token is parsed by slicing: what is signed is the resource text exactly as it stands in the token, so it is kept raw
//! beside its decoded form. Start at [`SasToken`].

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use crate::clock::{Entropy, UnixTime, random};
use crate::host::HostName;

/// A key for signing, 16 to 64 bytes. Never printed, never serialised, wiped when dropped.
#[derive(Clone)]
pub struct SymmetricKey(Box<[u8]>);

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not base64.
    #[error("the key is not base64")]
    Base64,
    /// Too short or too long.
    #[error("the key has {bytes} bytes; 16 to 64 are allowed")]
    Length {
        /// Bytes found.
        bytes: usize,
    },
}

impl SymmetricKey {
    /// Fewest bytes of a key.
    pub const BYTES_MIN: usize = 16;
    /// Most bytes of a key.
    pub const BYTES_MAX: usize = 64;

    /// Takes `bytes` if there are 16 to 64.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        if (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(InvalidKey::Length { bytes: bytes.len() })
        }
    }

    /// Reads the base64 form.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidKey::Base64)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        key
    }

    /// A fresh key of 32 bytes, which every client and a TPM can hold.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random::<32>(entropy).into())
    }

    /// The base64 form; the caller takes over the duty not to print it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// The bytes; the caller takes over the duty not to print them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the key: tells keys apart without holding them.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// HMAC-SHA256 of `message` under this key.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), message);
        tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// The key of a device of a group: the HMAC of its registration ID, spelled as given.
    pub fn derive(&self, registration_id: &str) -> Self {
        Self(self.sign(registration_id.as_bytes()).into())
    }
}

impl Drop for SymmetricKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

/// Two keys of which either will do, so that one can be rolled while devices use the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// First key.
    pub primary: SymmetricKey,
    /// Second key.
    pub secondary: SymmetricKey,
}

impl KeyPair {
    /// Two fresh keys.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self { primary: SymmetricKey::generate(entropy), secondary: SymmetricKey::generate(entropy) }
    }

    /// SHA-256 of the key that made `token`'s signature, if one of the two did. Both are always tried.
    pub fn signer(&self, token: &SasToken) -> Option<[u8; 32]> {
        match (token.is_signed_by(&self.primary), token.is_signed_by(&self.secondary)) {
            (true, _) => Some(self.primary.digest()),
            (false, true) => Some(self.secondary.digest()),
            (false, false) => None,
        }
    }

    /// As [`Self::signer`], where the key's text may have signed in the place of its bytes: at the Event Hubs-compatible
    /// endpoint.
    pub fn signer_by_text(&self, token: &SasToken) -> Option<[u8; 32]> {
        let by_text = match (token.is_signed_by_text(&self.primary), token.is_signed_by_text(&self.secondary)) {
            (true, _) => Some(self.primary.digest()),
            (false, true) => Some(self.secondary.digest()),
            (false, false) => None,
        };
        self.signer(token).or(by_text)
    }

    /// The keys of a device of a group, each derived from its counterpart; see [`SymmetricKey::derive`].
    pub fn derive(&self, registration_id: &str) -> Self {
        Self { primary: self.primary.derive(registration_id), secondary: self.secondary.derive(registration_id) }
    }
}

/// Which keys of a pair are made afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// The first.
    Primary,
    /// The second.
    Secondary,
    /// Both.
    Both,
}

/// Fresh keys in the place of one or both of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    choice: KeyChoice,
    fresh: KeyPair,
}

impl KeyRotation {
    /// Makes the keys that take the place of those of `choice`.
    pub fn generate(choice: KeyChoice, entropy: &dyn Entropy) -> Self {
        Self { choice, fresh: KeyPair::generate(entropy) }
    }

    /// The pair that becomes of `present`.
    pub fn apply(self, present: KeyPair) -> KeyPair {
        match self.choice {
            KeyChoice::Primary => KeyPair { primary: self.fresh.primary, ..present },
            KeyChoice::Secondary => KeyPair { secondary: self.fresh.secondary, ..present },
            KeyChoice::Both => self.fresh,
        }
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// A shared access signature: a claim to a resource until a time. Parsing it verifies nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    raw_resource: Box<str>,
    resource: Box<str>,
    raw_expiry: Box<str>,
    expires_at: UnixTime,
    signature: [u8; 32],
    policy: Option<Box<str>>,
}

/// Why a text is not a shared access signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Does not begin with the scheme's name.
    #[error("it does not begin with SharedAccessSignature")]
    Scheme,
    /// Longer than any client's.
    #[error("it is longer than {} bytes", SasToken::BYTES_MAX)]
    TooLong,
    /// `sr`, `sig` or `se` is missing, doubled, or has no `=`.
    #[error("the fields sr, sig and se are not each there once")]
    Fields,
    /// `se` is not a number of seconds.
    #[error("the expiry is not a number of seconds")]
    Expiry,
    /// `sig` is not base64 of 32 bytes.
    #[error("the signature is not base64 of 32 bytes")]
    Signature,
    /// `sr` or `skn` is not UTF-8 once decoded.
    #[error("the resource is not UTF-8")]
    Resource,
}

impl SasToken {
    /// Most bytes of a token that is looked at.
    pub const BYTES_MAX: usize = 4_096;
    const SCHEME: &'static str = "SharedAccessSignature";

    /// Reads `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, fields in any order.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let (scheme, fields) = text.trim().split_once(' ').ok_or(InvalidToken::Scheme)?;
        if !scheme.eq_ignore_ascii_case(Self::SCHEME) {
            return Err(InvalidToken::Scheme);
        }
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for field in fields.trim().split('&') {
            let (name, value) = field.split_once('=').ok_or(InvalidToken::Fields)?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(InvalidToken::Fields);
            }
        }
        let (Some(raw), Some(signature), Some(expiry)) = (resource, signature, expiry) else {
            return Err(InvalidToken::Fields);
        };
        Ok(Self {
            raw_resource: raw.into(),
            resource: decode(raw).ok_or(InvalidToken::Resource)?.into(),
            raw_expiry: expiry.into(),
            expires_at: parse_expiry(expiry)?,
            signature: parse_signature(signature)?,
            policy: match policy {
                None | Some("") => None,
                Some(policy) => Some(decode(policy).ok_or(InvalidToken::Resource)?.into()),
            },
        })
    }

    /// Whether the text of `key` made the signature, and not its bytes: so sign the clients of Event Hubs
    /// (`contract/eventhub-endpoint.md 0`). Takes the same time whatever the answer.
    fn is_signed_by_text(&self, key: &SymmetricKey) -> bool {
        let text = zeroize::Zeroizing::new(key.to_base64());
        self.is_signed_with(&hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// Writes a token for `resource` (already encoded as it shall stand in the token), signed with `key`.
    pub fn write(key: &SymmetricKey, raw_resource: &str, policy: Option<&str>, expires_at: UnixTime) -> String {
        Self::write_with(&hmac::Key::new(hmac::HMAC_SHA256, key.bytes()), (raw_resource, policy), expires_at)
    }

    /// As [`Self::write`], signed with the key's text in the place of its bytes: for an Event Hubs-compatible endpoint
    /// (`contract/eventhub-endpoint.md 4`).
    pub fn write_by_text(key: &SymmetricKey, raw_resource: &str, policy: Option<&str>, expires_at: UnixTime) -> String {
        let text = zeroize::Zeroizing::new(key.to_base64());
        Self::write_with(&hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()), (raw_resource, policy), expires_at)
    }

    fn write_with(key: &hmac::Key, (raw_resource, policy): (&str, Option<&str>), expires_at: UnixTime) -> String {
        let expiry = expires_at.seconds().max(0).to_string();
        let signature = STANDARD.encode(hmac::sign(key, format!("{raw_resource}\n{expiry}").as_bytes()));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let policy = policy.map(|policy| format!("&skn={policy}")).unwrap_or_default();
        format!("SharedAccessSignature sr={raw_resource}&sig={signature}&se={expiry}{policy}")
    }

    /// The resource, decoded.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The policy it names; an empty name counts as none.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// When it ends.
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// Whether `key` made the signature; takes the same time whatever the answer.
    pub fn is_signed_by(&self, key: &SymmetricKey) -> bool {
        self.is_signed_with(&hmac::Key::new(hmac::HMAC_SHA256, key.bytes()))
    }

    fn is_signed_with(&self, key: &hmac::Key) -> bool {
        let mut message = Vec::with_capacity(self.raw_resource.len() + 1 + self.raw_expiry.len());
        message.extend_from_slice(self.raw_resource.as_bytes());
        message.push(b'\n');
        message.extend_from_slice(self.raw_expiry.as_bytes());
        hmac::sign(key, &message).as_ref().ct_eq(&self.signature).into()
    }

    /// Whether either key of `keys` made the signature. Both are tried whatever the first says.
    pub fn is_signed_by_either(&self, keys: &KeyPair) -> bool {
        self.is_signed_by(&keys.primary) | self.is_signed_by(&keys.secondary)
    }

    /// The resource's segments: host in lower case without port and scheme, then the path.
    pub fn segments(&self) -> (String, Vec<&str>) {
        const SCHEMES: [&str; 3] = ["https://", "sb://", "amqps://"];

        let text = SCHEMES.iter().find_map(|scheme| self.resource.strip_prefix(scheme)).unwrap_or(&self.resource);
        let mut segments = text.trim_matches('/').split('/');
        let host = segments.next().unwrap_or_default();
        let host = HostName::parse(host).map_or_else(|_| host.to_ascii_lowercase(), |host| host.as_str().to_owned());
        (host, segments.collect())
    }

    /// Whether the token names exactly the registration `registration_id` under `id_scope`, without regard to case.
    pub fn is_for_registration(&self, id_scope: &str, registration_id: &str) -> bool {
        let mut segments = self.resource.trim_matches('/').split('/');
        let equal = |segment: Option<&str>, wanted: &str| segment.is_some_and(|text| text.eq_ignore_ascii_case(wanted));
        equal(segments.next(), id_scope)
            && equal(segments.next(), "registrations")
            && equal(segments.next(), registration_id)
            && segments.next().is_none()
    }

    /// Whether the token covers `path` on one of `hosts`, segment by segment: `/a/b` covers `/a/b/c`, not `/a/bc`.
    pub fn covers(&self, hosts: &[&str], path: &[&str]) -> bool {
        let (host, segments) = self.segments();
        hosts.iter().any(|known| known.eq_ignore_ascii_case(&host))
            && segments.len() <= path.len()
            && segments.iter().zip(path).all(|(segment, wanted)| segment == wanted)
    }

    /// Whether the token covers `path` on its host as [`Self::covers`] says, without regard to case: so the clients of Event
    /// Hubs write paths (`contract/eventhub-endpoint.md 4`).
    pub fn covers_in_any_case(&self, path: &[&str]) -> bool {
        let (_, segments) = self.segments();
        segments.len() <= path.len()
            && segments.iter().zip(path).all(|(segment, wanted)| segment.eq_ignore_ascii_case(wanted))
    }

    /// Whether the token covers the device (and, if named, the module) on one of `hosts`. A fourth segment other than
    /// `modules` is noise that some documented tokens carry (`contract/hub-device.md 6.1`).
    pub fn covers_device(&self, hosts: &[&str], device: &str, module: Option<&str>) -> bool {
        let (host, mut segments) = self.segments();
        if segments.get(2).is_some_and(|segment| *segment != "modules") {
            segments.truncate(2);
        }
        let mut path = vec!["devices", device];
        if let Some(module) = module {
            path.extend(["modules", module]);
        }
        hosts.iter().any(|known| known.eq_ignore_ascii_case(&host))
            && segments.len() <= path.len()
            && segments.iter().zip(&path).all(|(segment, wanted)| segment == wanted)
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expires_at", &self.expires_at)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn parse_expiry(text: &str) -> Result<UnixTime, InvalidToken> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidToken::Expiry);
    }
    // A number beyond the range is a time beyond the range: some clients write the largest one for "never".
    Ok(text.parse().map_or(UnixTime::from_micros(i64::MAX), UnixTime::from_seconds))
}

fn parse_signature(text: &str) -> Result<[u8; 32], InvalidToken> {
    let decoded = decode(text).ok_or(InvalidToken::Signature)?;
    let bytes = STANDARD.decode(decoded.as_bytes()).map_err(|_| InvalidToken::Signature)?;
    bytes.try_into().map_err(|_| InvalidToken::Signature)
}

/// Undoes percent-encoding; a plus stays a plus, and a stray percent sign stays itself.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(tail.first()), digit(tail.get(1))) {
            bytes.push((high * 16 + low) as u8);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    fn token(fields: &str) -> Result<SasToken, InvalidToken> {
        SasToken::parse(&format!("SharedAccessSignature {fields}"))
    }

    /// `contract/dps-device.md 12`.
    #[test]
    fn tokens_of_unmodified_clients_verify() {
        let key = SymmetricKey::parse(KEY).unwrap();
        let node = "sr=0ne00000000/registrations/dev-1&sig=CupbWQsstJqGhYMnN%2badgzOmVapK6PbhPC%2FJ%2BoTlApU%3D\
                    &skn=registration&se=1795223329";
        let python = "sr=0ne00000000%2Fregistrations%2Fdev-1\
                      &sig=Hvogs/MXNSNR9rHnvTbQc9DBSooejg6u93v/gVF+jcs=&se=1795223330&skn=";
        for (name, fields, policy) in [("Node", node, Some("registration")), ("Python", python, None)] {
            let token = token(fields).unwrap();
            assert!(token.is_signed_by(&key), "{name}");
            assert!(!token.is_signed_by(&key.derive("x")), "{name}");
            assert!(token.is_for_registration("0NE00000000", "DEV-1"), "{name}");
            assert!(!token.is_for_registration("0ne00000000", "dev-2"), "{name}");
            assert_eq!(token.policy(), policy, "{name}");
        }
    }

    /// `contract/dps-device.md 12`.
    #[test]
    fn a_token_is_signed_by_the_bytes_of_a_key_or_by_its_text() {
        let key = || SymmetricKey::from_bytes(&[7; 64]).unwrap();
        let keys = KeyPair { primary: key(), secondary: SymmetricKey::from_bytes(&[8; 64]).unwrap() };
        let at = UnixTime::from_seconds(1_795_224_005);
        let by_bytes = SasToken::parse(&SasToken::write(&key(), "sb%3A%2F%2Fh%2Fe", Some("service"), at)).unwrap();
        let by_text = SasToken::parse(&SasToken::write_by_text(&key(), "sb%3A%2F%2Fh%2Fe", None, at)).unwrap();
        let signer = Some(key().digest());
        assert_eq!((keys.signer(&by_bytes), keys.signer_by_text(&by_bytes)), (signer, signer));
        assert_eq!((keys.signer(&by_text), keys.signer_by_text(&by_text)), (None, signer));
        assert_eq!((by_text.resource(), by_text.policy(), by_bytes.policy()), ("sb://h/e", None, Some("service")));
    }

    #[test]
    fn a_device_key_is_derived_from_the_group_key() {
        let group = SymmetricKey::from_bytes(&(0..64).collect::<Vec<u8>>()).unwrap();
        assert_eq!(group.derive("dev-1").to_base64(), "hwMX6ImusIQR3uC8iZ8xvHD4mtPX7fK4reK/A0B+wK8=");
    }

    #[test]
    fn malformed_tokens_are_refused_each_for_its_reason() {
        let sig = "sig=CupbWQsstJqGhYMnN%2BadgzOmVapK6PbhPC%2FJ%2BoTlApU%3D";
        let cases: &[(String, InvalidToken)] = &[
            ("Bearer x".into(), InvalidToken::Scheme),
            ("SharedAccessSignature".into(), InvalidToken::Scheme),
            (format!("SharedAccessSignature sr=a&{sig}"), InvalidToken::Fields),
            (format!("SharedAccessSignature sr=a&sr=b&{sig}&se=1"), InvalidToken::Fields),
            (format!("SharedAccessSignature sr=a&{sig}&se=-1"), InvalidToken::Expiry),
            (format!("SharedAccessSignature sr=a&{sig}&se="), InvalidToken::Expiry),
            ("SharedAccessSignature sr=a&sig=AAAA&se=1".into(), InvalidToken::Signature),
            (format!("SharedAccessSignature sr=%ff&{sig}&se=1"), InvalidToken::Resource),
            (format!("SharedAccessSignature sr={}", "a".repeat(5_000)), InvalidToken::TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(SasToken::parse(text).unwrap_err(), *expected, "{text}");
        }
    }

    #[test]
    fn a_written_token_is_read_back_and_an_endless_expiry_is_far_away() {
        let key = SymmetricKey::parse(KEY).unwrap();
        let text = SasToken::write(&key, "h%2Fdevices%2Fd", Some("device"), UnixTime::from_seconds(99));
        let token = SasToken::parse(&text).unwrap();
        assert!(token.is_signed_by(&key));
        assert_eq!((token.resource(), token.expires_at().seconds()), ("h/devices/d", 99));
        let endless = text.replace("se=99", "se=99999999999999999999999");
        assert!(SasToken::parse(&endless).unwrap().expires_at() > UnixTime::from_seconds(1 << 40));
    }

    #[test]
    fn scope_is_compared_by_segment() {
        let of = |resource: &str| {
            token(&format!("sr={resource}&sig=CupbWQsstJqGhYMnN%2BadgzOmVapK6PbhPC%2FJ%2BoTlApU%3D&se=1")).unwrap()
        };
        let hosts = ["127.0.0.2", "hub.example.org", "2001:db8::2"];
        let cases: &[(&str, &str, Option<&str>, bool)] = &[
            ("127.0.0.2%2Fdevices%2Fdev", "dev", None, true),
            ("HUB.example.org:443/devices/dev", "dev", None, true),
            ("https%3A%2F%2F127.0.0.2", "dev", None, true),
            ("127.0.0.2/devices/dev", "dev", Some("m"), true),
            ("127.0.0.2/devices/dev/modules/m", "dev", Some("m"), true),
            ("127.0.0.2/devices/dev/modules/m", "dev", None, false),
            ("127.0.0.2/devices/dev/api-version=2016-11-14", "dev", None, true),
            ("127.0.0.2/devices/de", "dev", None, false),
            ("127.0.0.2/devices/DEV", "dev", None, false),
            ("127.0.0.3/devices/dev", "dev", None, false),
            ("2001:db8::2/devices/dev", "dev", None, true),
            ("[2001:DB8::2]:443/devices/dev", "dev", None, true),
            ("2001:db8::/devices/dev", "dev", None, false),
        ];
        for &(resource, device, module, expected) in cases {
            assert_eq!(of(resource).covers_device(&hosts, device, module), expected, "{resource} {module:?}");
        }
        assert!(of("127.0.0.2/enrollments").covers(&hosts, &["enrollments", "e"]));
        assert!(!of("127.0.0.2/enroll").covers(&hosts, &["enrollments", "e"]));
    }

    #[test]
    fn a_rotation_makes_the_chosen_keys_afresh_and_keeps_the_other() {
        let entropy = SeededEntropy::new(1);
        let present = KeyPair::generate(&entropy);
        for (choice, is_kept) in [
            (KeyChoice::Primary, (false, true)),
            (KeyChoice::Secondary, (true, false)),
            (KeyChoice::Both, (false, false)),
        ] {
            let rotation = KeyRotation::generate(choice, &entropy);
            assert!(!format!("{rotation:?}").contains('['), "{rotation:?}");
            let rotated = rotation.apply(present.clone());
            let kept = (rotated.primary == present.primary, rotated.secondary == present.secondary);
            assert_eq!(kept, is_kept, "{choice:?}");
            assert_ne!(rotated.primary, rotated.secondary, "{choice:?}");
        }
    }

    #[test]
    fn keys_have_16_to_64_bytes_and_do_not_print() {
        for (bytes, good) in [(15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(SymmetricKey::from_bytes(&vec![7; bytes]).is_ok(), good, "{bytes}");
        }
        assert_eq!(SymmetricKey::parse("!"), Err(InvalidKey::Base64));
        assert_eq!(format!("{:?}", SymmetricKey::parse(KEY).unwrap()), "SymmetricKey(..)");
    }
}
