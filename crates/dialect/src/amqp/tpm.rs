//! The framing of the TPM mechanism: what a device and a provisioning service say to each other in SASL frames before the
//! service knows that the device has the TPM (`contract/dps-device.md 4.3`).
//!
//! Knows bytes alone: it must never judge a key or make a challenge. Start at [`Exchange::begin`].

use bytes::{BufMut as _, Bytes, BytesMut};
use domain::operation::Secret;

/// Longest piece of a challenge, in bytes: with its control byte it stays far below a SASL frame's 512.
const SEGMENT_BYTES_MAX: usize = 470;
/// What stands before everything that a device says, and is all that the service says to hear more.
const MORE: u8 = 0;
/// The control bytes of the two segments of a challenge: there is one, its number, and in the last that it is the last. Java
/// takes this pair alone.
const CONTROLS: [u8; 2] = [0x80, 0xC1];

/// What a device says first. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The ID scope.
    pub id_scope: String,
    /// The registration ID.
    pub registration_id: String,
    /// The public endorsement key, a `TPM2B_PUBLIC`.
    pub endorsement_key: Bytes,
}

/// What is said next.
#[derive(Debug)]
pub enum Step {
    /// The service says this.
    Say(Bytes),
    /// The device has told its storage root key, a `TPM2B_PUBLIC`: [`Exchange::challenge`] is to be called.
    StorageRootKey(Bytes),
    /// The device has signed with the key of the challenge.
    Token(Secret),
}

/// Why what was said is none of the mechanism's. Says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTpm {
    /// Not the zero bytes that there should be.
    #[error("what a TPM's device said is not framed as it should be")]
    Framing,
    /// A name or a token that is no text.
    #[error("what a TPM's device said holds something else than text")]
    NotText,
    /// The device speaks where it is not its turn.
    #[error("a TPM's device spoke out of turn")]
    Turn,
    /// The challenge has no room in two frames.
    #[error("the challenge of a TPM is too long")]
    TooLong,
}

/// Where an exchange is.
#[derive(Debug)]
enum State {
    StorageRootKey,
    Challenge,
    Second(Bytes),
    Token,
    Over,
}

/// One exchange, as the service sees it.
#[derive(Debug)]
pub struct Exchange(State);

impl Exchange {
    /// Reads the initial response. The service answers with the bytes beside, and hears the storage root key.
    pub fn begin(response: &Bytes) -> Result<(Self, Claim, Bytes), InvalidTpm> {
        // The key may hold zero bytes, so that only the first three part anything.
        let mut parts = response.splitn(4, |byte| *byte == MORE);
        let (Some([]), Some(scope), Some(name), Some(key)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTpm::Framing);
        };
        let text = |part: &[u8]| std::str::from_utf8(part).map(str::to_owned).map_err(|_| InvalidTpm::NotText);
        let claim =
            Claim { id_scope: text(scope)?, registration_id: text(name)?, endorsement_key: response.slice_ref(key) };
        Ok((Self(State::StorageRootKey), claim, Bytes::from_static(&[MORE])))
    }

    /// Reads what the device says next.
    pub fn hear(&mut self, response: &Bytes) -> Result<Step, InvalidTpm> {
        let Some((&MORE, said)) = response.split_first() else { return Err(InvalidTpm::Framing) };
        match std::mem::replace(&mut self.0, State::Over) {
            State::StorageRootKey => {
                self.0 = State::Challenge;
                Ok(Step::StorageRootKey(response.slice_ref(said)))
            }
            State::Second(segment) if said.is_empty() => {
                self.0 = State::Token;
                Ok(Step::Say(segment))
            }
            State::Second(_) => Err(InvalidTpm::Framing),
            State::Token => {
                let token = std::str::from_utf8(said).map_err(|_| InvalidTpm::NotText)?;
                Ok(Step::Token(Secret::new(token)))
            }
            State::Challenge | State::Over => Err(InvalidTpm::Turn),
        }
    }

    /// Frames the challenge for a device that told its storage root key: what the service says, in two pieces.
    pub fn challenge(&mut self, challenge: &[u8]) -> Result<Step, InvalidTpm> {
        if !matches!(self.0, State::Challenge) {
            return Err(InvalidTpm::Turn);
        }
        let (first, second) = challenge.split_at(challenge.len().div_ceil(2));
        if first.len() > SEGMENT_BYTES_MAX {
            return Err(InvalidTpm::TooLong);
        }
        let [first, second] = [(CONTROLS[0], first), (CONTROLS[1], second)].map(|(control, segment)| {
            let mut said = BytesMut::with_capacity(1 + segment.len());
            said.put_u8(control);
            said.put_slice(segment);
            said.freeze()
        });
        self.0 = State::Second(second);
        Ok(Step::Say(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: &[u8] = b"\0scope\0dev-1\0\x01\x3a\0key\0";

    fn begun() -> Exchange {
        Exchange::begin(&Bytes::from_static(INIT)).unwrap().0
    }

    #[test]
    fn an_exchange_goes_as_the_clients_of_azure_hold_it() {
        let (mut exchange, claim, answer) = Exchange::begin(&Bytes::from_static(INIT)).unwrap();
        assert_eq!((claim.id_scope.as_str(), claim.registration_id.as_str()), ("scope", "dev-1"));
        assert_eq!(claim.endorsement_key.as_ref(), b"\x01\x3a\0key\0", "zero bytes of the key are the key's");
        assert_eq!(answer.as_ref(), [0]);
        let step = exchange.hear(&Bytes::from_static(b"\0srk\0")).unwrap();
        assert!(matches!(&step, Step::StorageRootKey(key) if key.as_ref() == b"srk\0"), "{step:?}");
        let blob: Vec<u8> = (0..=254).collect();
        let Ok(Step::Say(first)) = exchange.challenge(&blob) else { panic!("no first segment") };
        let Ok(Step::Say(second)) = exchange.hear(&Bytes::from_static(b"\0")) else { panic!("no second segment") };
        assert_eq!((first.first(), second.first()), (Some(&0x80), Some(&0xC1)));
        assert_eq!([&first[1..], &second[1..]].concat(), blob);
        let step = exchange.hear(&Bytes::from_static(b"\0SharedAccessSignature sr=x")).unwrap();
        assert!(matches!(&step, Step::Token(token) if token.expose() == "SharedAccessSignature sr=x"), "{step:?}");
        assert_eq!(exchange.hear(&Bytes::from_static(b"\0")).unwrap_err(), InvalidTpm::Turn);
    }

    #[test]
    fn what_begins_otherwise_is_refused() {
        let cases: [(&[u8], InvalidTpm); 6] = [
            (b"", InvalidTpm::Framing),
            (b"\0", InvalidTpm::Framing),
            (b"scope\0dev-1\0key\0", InvalidTpm::Framing),
            (b"\x80scope\0dev-1\0key", InvalidTpm::Framing),
            (b"\0scope\0dev-1", InvalidTpm::Framing),
            (b"\0sc\xffpe\0dev-1\0key", InvalidTpm::NotText),
        ];
        for (response, expected) in cases {
            assert_eq!(Exchange::begin(&Bytes::from_static(response)).unwrap_err(), expected, "{response:?}");
        }
    }

    #[test]
    fn what_goes_on_otherwise_is_refused() {
        assert_eq!(begun().hear(&Bytes::new()).unwrap_err(), InvalidTpm::Framing);
        assert_eq!(begun().challenge(b"blob").unwrap_err(), InvalidTpm::Turn, "before the storage root key");
        let mut exchange = begun();
        exchange.hear(&Bytes::from_static(b"\0srk")).unwrap();
        assert_eq!(exchange.challenge(&[0; 2 * SEGMENT_BYTES_MAX + 1]).unwrap_err(), InvalidTpm::TooLong);
        exchange.challenge(&[0; 2 * SEGMENT_BYTES_MAX]).unwrap();
        assert_eq!(exchange.hear(&Bytes::from_static(b"\0token")).unwrap_err(), InvalidTpm::Framing, "too early");
        assert_eq!(exchange.hear(&Bytes::from_static(b"\0")).unwrap_err(), InvalidTpm::Turn, "it is over then");
    }
}
