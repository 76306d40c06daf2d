//! The property bag behind a telemetry topic, or one of messages to a device (`contract/hub-device.md 2.7` and `2.8`).
//!
//! Every SDK writes it in its own way; one decoder reads them all and never fails on content, because a message that is
//! refused is sent again for ever. Start at [`decode`].

use std::borrow::Cow;

use domain::cloud_to_device::{Acknowledgement, Delivery};
use domain::message::{Draft, InvalidMessage, PROPERTIES_MAX, Property, SystemProperties};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::words;
use crate::time;

/// What is written as it is; everything else is percent-encoded in upper case, as `encodeURIComponent` does.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'!').remove(b'~').remove(b'*');

/// Decodes `bag` into the properties of `draft`. One trailing slash belongs to nobody.
///
/// Pairs are split at `&` and at their first `=`, then percent-decoded; a plus is a plus. Bytes that are not UTF-8 become
/// U+FFFD. Of two properties of one name the later counts. Unknown names that begin with `$.` stay application
/// properties; those that only the hub or a gateway may set are dropped.
pub fn decode(bag: &str, draft: &mut Draft) -> Result<(), InvalidMessage> {
    let bag = bag.strip_suffix('/').unwrap_or(bag);
    for pair in bag.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, Some(decode_text(value))),
            None => (pair, None),
        };
        let name = decode_text(name);
        if name.is_empty() || matches!(&*name, "$.to" | "$.cdid" | "$.cmid") {
            continue;
        }
        match system(&mut draft.system, &name) {
            Some(slot) => *slot = value.map(Cow::into_owned),
            None => draft.set_property(&name, value.as_deref()),
        }
        if draft.properties.len() > PROPERTIES_MAX {
            return Err(InvalidMessage::TooManyProperties { properties: draft.properties.len() });
        }
    }
    Ok(())
}

/// Writes properties as Node and Python do: system properties first, every name and value encoded.
pub fn encode(system: &SystemProperties, properties: &[Property]) -> String {
    let mut system = system.clone();
    let mut pairs = Vec::new();
    for name in SYSTEM_NAMES {
        if let Some(value) = self::system(&mut system, name).and_then(Option::take) {
            pairs.push(encode_pair(name, Some(&value)));
        }
    }
    pairs.extend(properties.iter().map(|(name, value)| encode_pair(name, value.as_deref())));
    pairs.join("&")
}

/// Writes the properties of a message to a device, system properties first, and among them always the address: several
/// clients read nothing before the first, and fail on a bag without any (`contract/hub-device.md 2.8`). A property
/// without a value, or of a name that clients would take for the system's, is left out.
pub fn encode_delivery(delivery: &Delivery, address: &str) -> String {
    let Delivery { expires_at, message, .. } = delivery;
    let system = &message.system;
    let expires_at = message.expires_at.map(|_| time::rfc3339(*expires_at));
    let acknowledgement = match message.acknowledgement {
        Acknowledgement::None => None,
        asked => Some(words::acknowledgement(asked)),
    };
    let said = [
        ("$.mid", system.message_id.as_deref()),
        ("$.to", Some(address)),
        ("$.cid", system.correlation_id.as_deref()),
        ("$.uid", system.user_id.as_deref()),
        ("$.exp", expires_at.as_deref()),
        ("$.ct", system.content_type.as_deref()),
        ("$.ce", system.content_encoding.as_deref()),
        (ACKNOWLEDGEMENT, acknowledgement),
    ];
    let is_own = |name: &str| !name.is_empty() && !name.starts_with("$.") && name != ACKNOWLEDGEMENT;
    let own = message.properties.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    let pairs = said.into_iter().chain(own.filter(|(name, _)| is_own(name)));
    let told = pairs.filter(|(_, value)| value.is_some_and(|value| !value.is_empty()));
    told.map(|(name, value)| encode_pair(name, value)).collect::<Vec<_>>().join("&")
}

/// The property by which a message says what its sender wants to hear of.
const ACKNOWLEDGEMENT: &str = "iothub-ack";

fn decode_text(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

fn encode_pair(name: &str, value: Option<&str>) -> String {
    let encode = |text| utf8_percent_encode(text, PLAIN);
    match value {
        Some(value) => format!("{}={}", encode(name), encode(value)),
        None => encode(name).to_string(),
    }
}

/// The names that have a slot, in the order written.
const SYSTEM_NAMES: [&str; 13] = [
    "$.mid",
    "$.cid",
    "$.uid",
    "$.ct",
    "$.ce",
    "$.exp",
    "$.ctime",
    "$.sub",
    "$.on",
    "$.ifid",
    "$.schema",
    "$.diagid",
    "$.diagctx",
];

/// Where the system property `name` is kept.
fn system<'a>(system: &'a mut SystemProperties, name: &str) -> Option<&'a mut Option<String>> {
    Some(match name {
        "$.mid" => &mut system.message_id,
        "$.cid" => &mut system.correlation_id,
        "$.uid" => &mut system.user_id,
        "$.ct" => &mut system.content_type,
        "$.ce" => &mut system.content_encoding,
        "$.exp" => &mut system.expires_at,
        "$.ctime" => &mut system.created_at,
        "$.sub" => &mut system.component,
        "$.on" => &mut system.output_name,
        "$.ifid" => &mut system.interface_id,
        "$.schema" => &mut system.message_schema,
        "$.diagid" => &mut system.diagnostic_id,
        "$.diagctx" => &mut system.correlation_context,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::cloud_to_device;
    use domain::ids::{DeviceId, LockToken, ModuleId};
    use domain::operation::identity::IdentityName;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::topics;
    use super::*;

    fn decoded(bag: &str) -> Draft {
        let mut draft = Draft::default();
        decode(bag, &mut draft).unwrap();
        draft
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        source: String,
        bag: String,
        system: SystemProperties,
        properties: Vec<Property>,
    }

    #[test]
    fn every_clients_bag_is_read() {
        let text = include_str!("../../../../testdata/wire/hub/property-bags.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 8);
        for Vector { source, bag, system, properties } in vectors {
            assert_eq!(decoded(&bag), Draft { system, properties, ..Draft::default() }, "{source}: {bag}");
        }
    }

    fn delivery(message: cloud_to_device::Draft) -> Delivery {
        let lock = LockToken::from_bits(1);
        let enqueued_at = UnixTime::from_seconds(1_575_892_800);
        Delivery { lock, sequence: 1, enqueued_at, expires_at: enqueued_at, delivery_count: 0, message }
    }

    #[test]
    fn the_bag_of_a_message_to_a_device_is_one_that_every_client_reads() {
        let text = |text: &str| Some(text.to_owned());
        let full = cloud_to_device::Draft {
            system: cloud_to_device::SystemProperties {
                message_id: text("m/1"),
                correlation_id: text("c 1"),
                user_id: text("u"),
                content_type: text("application/json"),
                content_encoding: text("utf-8"),
            },
            properties: vec![
                ("k $".to_owned(), text("v/ä +")),
                ("null".to_owned(), None),
                ("empty".to_owned(), text("")),
                ("$.mid".to_owned(), text("false")),
                ("iothub-ack".to_owned(), text("false")),
                (String::new(), text("nameless")),
            ],
            expires_at: Some(UnixTime::from_seconds(0)),
            acknowledgement: Acknowledgement::Full,
            ..cloud_to_device::Draft::default()
        };
        let bag = encode_delivery(&delivery(full), "/devices/d/messages/deviceBound");
        assert_eq!(
            bag,
            "%24.mid=m%2F1&%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&%24.cid=c%201&%24.uid=u\
             &%24.exp=2019-12-09T12%3A00%3A00.0000000Z&%24.ct=application%2Fjson&%24.ce=utf-8&iothub-ack=full\
             &k%20%24=v%2F%C3%A4%20%2B"
        );
        let bare = encode_delivery(&delivery(cloud_to_device::Draft::default()), "/a");
        assert_eq!(bare, "%24.to=%2Fa");
    }

    #[test]
    fn every_message_that_is_taken_fits_into_a_topic() {
        const TOPIC_BYTES_MAX: usize = 65_535;

        // The costliest of all: nothing but bytes that take three each, spread over as many properties as there may be.
        let bytes = cloud_to_device::PROPERTIES_BYTES_MAX / PROPERTIES_MAX;
        let value = "é".repeat((bytes - 4) / 2);
        let properties = (0..PROPERTIES_MAX).map(|number| (format!("%{number:03}"), Some(value.clone()))).collect();
        let largest = cloud_to_device::Draft {
            properties,
            acknowledgement: Acknowledgement::Negative,
            expires_at: Some(UnixTime::from_seconds(0)),
            ..cloud_to_device::Draft::default()
        };
        assert_eq!(largest.check(), Ok(()));
        let device = IdentityName {
            device: DeviceId::parse(&"%".repeat(128)).unwrap(),
            module: Some(ModuleId::parse(&"%".repeat(128)).unwrap()),
        };
        let bag = encode_delivery(&delivery(largest), &topics::cloud_to_device_address(&device));
        assert!(topics::cloud_to_device(&device, &bag).len() < TOPIC_BYTES_MAX);
    }

    #[test]
    fn all_system_properties_have_a_name() {
        let bag: Vec<String> = SYSTEM_NAMES.iter().map(|name| format!("{name}=x")).collect();
        let draft = decoded(&bag.join("&"));
        assert_eq!(draft.properties, []);
        let stored = serde_json::to_value(&draft.system).unwrap();
        assert_eq!(stored.as_object().unwrap().len(), SYSTEM_NAMES.len());
        assert_eq!(encode(&draft.system, &[]), bag.join("&").replace('$', "%24"));
    }

    #[test]
    fn more_properties_than_a_message_may_have_are_not_collected() {
        let bag: Vec<String> = (0..=PROPERTIES_MAX).map(|number| format!("p{number}=")).collect();
        let mut draft = Draft::default();
        let expected = InvalidMessage::TooManyProperties { properties: PROPERTIES_MAX + 1 };
        assert_eq!(decode(&bag.join("&"), &mut draft), Err(expected));
        assert!(decode(&"a=b&".repeat(10_000), &mut Draft::default()).is_ok(), "it is one property");
    }

    proptest! {
        #[test]
        fn any_text_is_read(bag in ".*") {
            let _ = decode(&bag, &mut Draft::default());
        }

        #[test]
        fn what_is_written_is_read_again(
            values in proptest::collection::vec(proptest::option::of(".*"), SYSTEM_NAMES.len()),
            names in proptest::collection::btree_map("[^$].*", proptest::option::of(".*"), 0..8),
        ) {
            let mut expected = Draft { properties: names.into_iter().collect(), ..Draft::default() };
            for (name, value) in SYSTEM_NAMES.into_iter().zip(values) {
                *system(&mut expected.system, name).unwrap() = value;
            }
            let bag = encode(&expected.system, &expected.properties);
            prop_assert_eq!(decoded(&bag), expected.clone());
            prop_assert_eq!(decoded(&(bag + "/")), expected);
        }
    }
}
