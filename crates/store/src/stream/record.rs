//! How a message lies in the log: a version, the stamped fields, the properties, and the body as the rest.
//!
//! Text is preceded by its length as a variable-length integer of 7 bits a byte, lowest first. Reading never panics and
//! allocates no more than the record is long.

use bytes::Bytes;
use domain::ids::{DeviceId, HubKey, ModuleId};
use domain::message::{Draft, EventSource, Message, Origin, SystemProperties};
use domain::operation::identity::IdentityName;
use domain::operation::session::AuthenticationMethod;

const VERSION: u8 = 1;

/// The bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[error("it is not a record of a message")]
pub(crate) struct NotARecord;

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let draft = &message.draft;
    let mut out = Vec::with_capacity(draft.size() + 4 * draft.properties.len() + 160);
    out.push(VERSION);
    out.push(match message.origin {
        Origin::Telemetry(AuthenticationMethod::DeviceKey) => 0,
        Origin::Telemetry(AuthenticationMethod::PolicyKey) => 1,
        Origin::Telemetry(AuthenticationMethod::X509) => 2,
        Origin::Hub(EventSource::TwinChange) => 3,
        Origin::Hub(EventSource::Lifecycle) => 4,
        Origin::Hub(EventSource::ConnectionState) => 5,
        Origin::Hub(EventSource::DigitalTwinChange) => 6,
    });
    put_text(&mut out, message.sender.device.as_str());
    put_optional(&mut out, message.sender.module.as_ref().map(ModuleId::as_str));
    put_text(&mut out, &message.generation);
    put_optional(&mut out, message.model_id.as_deref());
    for value in system_values(&draft.system) {
        put_optional(&mut out, value.as_deref());
    }
    put_length(&mut out, draft.properties.len());
    for (name, value) in &draft.properties {
        put_text(&mut out, name);
        put_optional(&mut out, value.as_deref());
    }
    out.extend_from_slice(&draft.body);
    out
}

/// The system properties in the order of the record, which never changes.
fn system_values(system: &SystemProperties) -> [&Option<String>; 13] {
    [
        &system.message_id,
        &system.correlation_id,
        &system.user_id,
        &system.content_type,
        &system.content_encoding,
        &system.expires_at,
        &system.created_at,
        &system.component,
        &system.output_name,
        &system.interface_id,
        &system.message_schema,
        &system.diagnostic_id,
        &system.correlation_context,
    ]
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Nothing is 0, text is 1 and the text.
fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_text(out, text);
        }
    }
}

pub(crate) fn decode(hub: HubKey, partition: u16, record: Vec<u8>) -> Result<Message, NotARecord> {
    let record = Bytes::from(record);
    let mut rest = Reader(&record);
    if rest.byte()? != VERSION {
        return Err(NotARecord);
    }
    let origin = match rest.byte()? {
        0 => Origin::Telemetry(AuthenticationMethod::DeviceKey),
        1 => Origin::Telemetry(AuthenticationMethod::PolicyKey),
        2 => Origin::Telemetry(AuthenticationMethod::X509),
        3 => Origin::Hub(EventSource::TwinChange),
        4 => Origin::Hub(EventSource::Lifecycle),
        5 => Origin::Hub(EventSource::ConnectionState),
        6 => Origin::Hub(EventSource::DigitalTwinChange),
        _ => return Err(NotARecord),
    };
    let device = DeviceId::parse(rest.text()?).map_err(|_| NotARecord)?;
    let module = rest.optional()?.map(ModuleId::parse).transpose().map_err(|_| NotARecord)?;
    let generation = rest.text()?.to_owned();
    let model_id = rest.optional()?.map(str::to_owned);
    let system = rest.system()?;
    let count = rest.length()?;
    // Each property takes two bytes at least, so that a lying count allocates nothing.
    if count > rest.0.len() / 2 {
        return Err(NotARecord);
    }
    let mut properties = Vec::with_capacity(count);
    for _ in 0..count {
        properties.push((rest.text()?.to_owned(), rest.optional()?.map(str::to_owned)));
    }
    let body = record.slice_ref(rest.0);
    let sender = IdentityName { device, module };
    let draft = Draft { body, system, properties };
    Ok(Message { hub, partition, sender, generation, origin, model_id, draft })
}

struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    fn byte(&mut self) -> Result<u8, NotARecord> {
        let (first, rest) = self.0.split_first().ok_or(NotARecord)?;
        self.0 = rest;
        Ok(*first)
    }

    fn length(&mut self) -> Result<usize, NotARecord> {
        let mut length = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(NotARecord)
    }

    fn text(&mut self) -> Result<&'r str, NotARecord> {
        let length = self.length()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(NotARecord)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| NotARecord)
    }

    fn optional(&mut self) -> Result<Option<&'r str>, NotARecord> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(NotARecord),
        }
    }

    fn system(&mut self) -> Result<SystemProperties, NotARecord> {
        let mut next = || Ok::<_, NotARecord>(self.optional()?.map(str::to_owned));
        Ok(SystemProperties {
            message_id: next()?,
            correlation_id: next()?,
            user_id: next()?,
            content_type: next()?,
            content_encoding: next()?,
            expires_at: next()?,
            created_at: next()?,
            component: next()?,
            output_name: next()?,
            interface_id: next()?,
            message_schema: next()?,
            diagnostic_id: next()?,
            correlation_context: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let text = || "[ -~é]{0,20}";
        let optional = || proptest::option::of(text());
        let system = (optional(), optional(), optional()).prop_map(|(message_id, content_type, message_schema)| {
            SystemProperties { message_id, content_type, message_schema, ..SystemProperties::default() }
        });
        let draft = (
            proptest::collection::vec(any::<u8>(), 0..300),
            system,
            proptest::collection::vec((text(), optional()), 0..5),
        );
        (draft, proptest::option::of("[a-z]{1,9}"), 0..7_usize, optional()).prop_map(
            |((body, system, properties), module, origin, model_id)| Message {
                hub: HubKey(7),
                partition: 3,
                sender: IdentityName {
                    device: DeviceId::parse("dev-1").unwrap(),
                    module: module.map(|module| ModuleId::parse(&module).unwrap()),
                },
                generation: "638000000000000001".to_owned(),
                origin: match origin {
                    0 => Origin::Telemetry(AuthenticationMethod::DeviceKey),
                    1 => Origin::Telemetry(AuthenticationMethod::PolicyKey),
                    2 => Origin::Telemetry(AuthenticationMethod::X509),
                    event => Origin::Hub(EventSource::ALL[event - 3]),
                },
                model_id,
                draft: Draft { body: Bytes::from(body), system, properties },
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_survives_being_written_and_read(message in message()) {
            prop_assert_eq!(decode(HubKey(7), 3, encode(&message)).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_reading_panic(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(HubKey(7), 3, record);
        }

        #[test]
        fn a_damaged_record_makes_nothing_panic(message in message(), at in any::<proptest::sample::Index>(), to: u8) {
            let mut record = encode(&message);
            let at = at.index(record.len());
            record[at] = to;
            let _ = decode(HubKey(7), 3, record);
        }
    }
}
