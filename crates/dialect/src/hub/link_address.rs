//! What a device's AMQP link is for, by its address (`contract/hub-device.md 4.4`).
//!
//! Clients write one address in many ways: with or without scheme, host and leading slash, in either letter case,
//! percent-encoded or not. The grammar decides nothing about who may attach. Start at [`LinkAddress::read`].

use domain::ids::{DeviceId, InvalidName, ModuleId};
use domain::operation::identity::IdentityName;
use percent_encoding::percent_decode_str;

use crate::amqp::Address;

/// A link's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// Whose it is.
    pub identity: IdentityName,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a link of a device is for. Together with the direction this tells what is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Telemetry; to an edge module, what comes in at its inputs.
    Events,
    /// Cloud-to-device messages.
    DeviceBound,
    /// Requests about the twin, and what is said of it.
    Twin,
    /// Direct method requests, and their results.
    Methods,
}

/// Why a text is no address of a device's link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It is not below `devices/`.
    #[error("the address is not one of a device")]
    NotDevice,
    /// The name of the device or the module is none.
    #[error("the address names no identity: {0}")]
    Name(InvalidName),
    /// What follows the name is not known.
    #[error("the address ends in nothing that a device has")]
    Purpose,
}

impl LinkAddress {
    /// Takes `address` apart. Names are percent-decoded; a plus is a plus, because no name holds a space.
    pub fn read(address: &Address) -> Result<Self, InvalidAddress> {
        Self::read_with(address, decode)
    }

    /// Takes `address` apart with its names as they stand, as one client writes them that does not encode.
    pub fn read_undecoded(address: &Address) -> Result<Self, InvalidAddress> {
        Self::read_with(address, str::to_owned)
    }

    fn read_with(address: &Address, decode: fn(&str) -> String) -> Result<Self, InvalidAddress> {
        let mut segments = address.path().trim_matches('/').split('/').peekable();
        let is = |segment: Option<&str>, word: &str| segment.is_some_and(|text| text.eq_ignore_ascii_case(word));
        if !is(segments.next(), "devices") {
            return Err(InvalidAddress::NotDevice);
        }
        let device = segments.next().ok_or(InvalidAddress::NotDevice)?;
        let device = DeviceId::parse(&decode(device)).map_err(InvalidAddress::Name)?;
        let module = if is(segments.peek().copied(), "modules") {
            segments.next();
            let module = segments.next().ok_or(InvalidAddress::Purpose)?;
            Some(ModuleId::parse(&decode(module)).map_err(InvalidAddress::Name)?)
        } else {
            None
        };
        let rest: Vec<String> = segments.map(str::to_ascii_lowercase).collect();
        let purpose = match *rest.iter().map(String::as_str).collect::<Vec<_>>() {
            ["messages", "events"] => Purpose::Events,
            ["messages", "devicebound"] => Purpose::DeviceBound,
            ["twin"] => Purpose::Twin,
            ["methods", "devicebound"] => Purpose::Methods,
            _ => return Err(InvalidAddress::Purpose),
        };
        Ok(Self { identity: IdentityName { device, module }, purpose })
    }
}

/// Reads `{device}` or `{device}/{module}`, as a user name holds it.
pub fn read_identity(text: &str) -> Result<IdentityName, InvalidName> {
    let (device, module) = text.split_once('/').map_or((text, None), |(device, module)| (device, Some(module)));
    Ok(IdentityName { device: DeviceId::parse(device)?, module: module.map(ModuleId::parse).transpose()? })
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(address: &str) -> Result<LinkAddress, InvalidAddress> {
        LinkAddress::read(&Address::parse(address).unwrap())
    }

    #[test]
    fn every_clients_form_is_read() {
        let cases: &[(&str, &str, &str, Purpose)] = &[
            ("Node", "/devices/dev-1/messages/events", "dev-1", Purpose::Events),
            ("without the slash", "devices/dev-1/twin", "dev-1", Purpose::Twin),
            ("C", "amqps://127.0.0.9/devices/dev1/messages/devicebound", "dev1", Purpose::DeviceBound),
            ("C#", "amqps://127.0.0.9:5671/devices/dev1/messages/deviceBound", "dev1", Purpose::DeviceBound),
            ("C#, methods", "/devices/d/methods/deviceBound", "d", Purpose::Methods),
            ("upper case", "AMQPS://HUB/DEVICES/D/TWIN", "D", Purpose::Twin),
            ("a module", "/devices/d/modules/m/messages/events", "d/m", Purpose::Events),
            ("a device called modules", "/devices/modules/twin", "modules", Purpose::Twin),
            ("encoded names", "/devices/a%40b%3a1/modules/m%2b/twin", "a@b:1/m+", Purpose::Twin),
            ("a plus is a plus", "/devices/a+b/twin", "a+b", Purpose::Twin),
            ("a slash at the end", "/devices/d/twin/", "d", Purpose::Twin),
        ];
        for (name, address, identity, purpose) in cases {
            let found = read(address).map(|found| (found.identity.to_string(), found.purpose));
            assert_eq!(found, Ok(((*identity).to_owned(), *purpose)), "{name}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_device_is_refused() {
        let cases: &[(&str, &str, InvalidAddress)] = &[
            ("CBS", "$cbs", InvalidAddress::NotDevice),
            ("the service's", "/messages/devicebound", InvalidAddress::NotDevice),
            ("no device", "/devices", InvalidAddress::NotDevice),
            ("no purpose", "/devices/d", InvalidAddress::Purpose),
            ("another purpose", "/devices/d/messages/eventsx", InvalidAddress::Purpose),
            ("more behind it", "/devices/d/twin/x", InvalidAddress::Purpose),
            ("no module", "/devices/d/modules", InvalidAddress::Purpose),
        ];
        for (name, address, expected) in cases {
            assert_eq!(read(address), Err(expected.clone()), "{name}");
        }
        for address in ["/devices//twin", "/devices/a b/twin", "/devices/d/modules/%00/twin", "/devices/a%2fb/twin"] {
            assert!(matches!(read(address), Err(InvalidAddress::Name(_))), "{address}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(address in ".*") {
            if let Some(address) = Address::parse(&address) {
                let _ = LinkAddress::read(&address);
            }
        }
    }
}
