//! Addresses of links, as every SDK writes them (`contract/hub-device.md 4.4`, `contract/dps-device.md 4.5`). Start at
//! [`Address::parse`].

use percent_encoding::percent_decode_str;
use proto::amqp::{Attach, AttachTarget, Role};

/// Longest address that is looked at; the longest that an SDK makes has a host, two identities and a suffix.
const ADDRESS_BYTES_MAX: usize = 1024;

/// The first segment of the addresses of a hub's devices.
const DEVICES: &str = "devices";
/// The second segment of the addresses of a provisioning service.
const REGISTRATIONS: &str = "registrations";

/// The address of a link without what clients write around it: `amqps://authority` and the first slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The authority, if the client wrote one.
    pub authority: Option<Box<str>>,
    path: Box<str>,
}

impl Address {
    /// Takes `text` apart; `None` if it is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }
        let (authority, path) = match text.split_once("://") {
            Some((_, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                (Some(authority.into()), path)
            }
            None => (None, text.strip_prefix('/').unwrap_or(text)),
        };
        (!path.is_empty()).then(|| Self { authority, path: path.into() })
    }

    /// The path, as the client wrote it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path's segments, as the client wrote them.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/')
    }

    /// The ID scope and the registration ID, if this is an address of a provisioning service. A hub's device may be
    /// called `registrations` too, but its addresses begin with another word.
    pub fn registration(&self) -> Option<(String, String)> {
        let mut segments = self.segments();
        let (scope, word, id) = (segments.next()?, segments.next()?, segments.next()?);
        let is_it = segments.next().is_none()
            && word.eq_ignore_ascii_case(REGISTRATIONS)
            && !scope.eq_ignore_ascii_case(DEVICES)
            && !scope.is_empty()
            && !id.is_empty();
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        is_it.then(|| (decode(scope), decode(id)))
    }

    /// Whether this is an address of a provisioning service.
    pub fn is_registration(&self) -> bool {
        self.registration().is_some()
    }
}

/// The address that the peer's attach names at our end: the target of its sender, the source of its receiver.
pub fn address_of(attach: &Attach) -> Option<Address> {
    let text = match attach.role {
        Role::Sender => match attach.target.as_deref()? {
            AttachTarget::Node(target) => target.address.as_ref()?,
            AttachTarget::Coordinator(_) => return None,
        },
        Role::Receiver => attach.source.as_deref()?.address.as_ref()?,
    };
    Address::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_provisioning_service_are_told_from_those_of_a_hub() {
        let cases = [
            ("Node, C#", "0ne00/registrations/dev-1", Some(("0ne00", "dev-1"))),
            ("Java", "/0ne00/registrations/dev-1", Some(("0ne00", "dev-1"))),
            ("C", "amqps://127.0.0.1/0ne00/registrations/dev-1", Some(("0ne00", "dev-1"))),
            ("with a port", "amqps://127.0.0.1:5671/0ne00/Registrations/a%3ab", Some(("0ne00", "a:b"))),
            ("a device called registrations", "/devices/registrations/twin", None),
            ("one segment more", "0ne00/registrations/dev-1/x", None),
            ("no registration ID", "0ne00/registrations/", None),
            ("no ID scope", "//registrations/dev-1", None),
            ("CBS", "$cbs", None),
            ("an event hub", "hub/ConsumerGroups/$Default/Partitions/0", None),
        ];
        for (case, text, expected) in cases {
            let expected = expected.map(|(scope, id)| (scope.to_owned(), id.to_owned()));
            assert_eq!(Address::parse(text).unwrap().registration(), expected, "{case}");
        }
    }

    #[test]
    fn what_names_nothing_is_no_address() {
        for text in ["", "/", "amqps://127.0.0.1", "amqps://127.0.0.1/", &"a".repeat(ADDRESS_BYTES_MAX + 1)] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
