//! Reads packet bodies. The fixed header has been read and checked by [`super::decode_header`].

use bytes::{Buf, Bytes};

use super::{FILTERS_MAX, Header, Malformed};
use crate::mqtt::packet::{
    Connack, Connect, Delivery, Filter, Packet, PacketId, PacketType, Publish, QoS, Refusal, SubackCode, Will,
};
use crate::mqtt::text::Text;

/// Reads the `body` that `header` announced, all of it and nothing else.
pub(super) fn decode_body(header: Header, body: Bytes) -> Result<Packet, Malformed> {
    let mut body = Reader(body);
    let packet = match header.packet_type {
        PacketType::Connect => return decode_connect(body),
        PacketType::Publish => return decode_publish(header.flags, body),
        PacketType::Connack => decode_connack(&mut body)?,
        PacketType::Puback => Packet::Puback(PacketId::new(body.take_u16()?)),
        PacketType::Pubrec => Packet::Pubrec(body.take_packet_id()?),
        PacketType::Pubrel => Packet::Pubrel(body.take_packet_id()?),
        PacketType::Pubcomp => Packet::Pubcomp(body.take_packet_id()?),
        PacketType::Subscribe => {
            Packet::Subscribe { packet_id: body.take_packet_id()?, filters: body.take_all(Reader::take_filter)? }
        }
        PacketType::Suback => {
            Packet::Suback { packet_id: body.take_packet_id()?, codes: body.take_all(Reader::take_suback_code)? }
        }
        PacketType::Unsubscribe => {
            Packet::Unsubscribe { packet_id: body.take_packet_id()?, filters: body.take_all(Reader::take_topic)? }
        }
        PacketType::Unsuback => Packet::Unsuback(body.take_packet_id()?),
        PacketType::Pingreq => Packet::Pingreq,
        PacketType::Pingresp => Packet::Pingresp,
        PacketType::Disconnect => Packet::Disconnect,
    };
    body.finish()?;
    Ok(packet)
}

/// Reads a CONNECT as far as it is one of this protocol (MQTT 3.1.1, section 3.1).
fn decode_connect(mut body: Reader) -> Result<Packet, Malformed> {
    let name = body.take_text()?;
    let level = body.take_u8()?;
    if name != "MQTT" || level != 4 {
        return Ok(Packet::ForeignConnect { name, level });
    }

    let flags = ConnectFlags::parse(body.take_u8()?)?;
    let keep_alive_s = body.take_u16()?;
    let client_id = body.take_text()?;
    let will = match flags.will {
        Some((qos, retain)) => {
            Some(Box::new(Will { topic: body.take_topic()?, payload: body.take_binary()?, qos, retain }))
        }
        None => None,
    };
    let username = if flags.username { Some(body.take_text()?) } else { None };
    let password = if flags.password { Some(body.take_binary()?) } else { None };
    body.finish()?;

    let clean_session = flags.clean_session;
    Ok(Packet::Connect(Box::new(Connect { client_id, clean_session, keep_alive_s, will, username, password })))
}

/// The flags of CONNECT (MQTT 3.1.1, section 3.1.2.3 to 3.1.2.9).
struct ConnectFlags {
    clean_session: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn parse(bits: u8) -> Result<Self, Malformed> {
        let is_set = |bit: u8| bits & bit != 0;
        let (username, password) = (is_set(0x80), is_set(0x40));
        let (will_retain, will_qos) = (is_set(0x20), bits >> 3 & 0b11);
        let has_will = is_set(0x04);

        let will_bits_without_will = !has_will && (will_retain || will_qos != 0);
        if is_set(0x01) || will_bits_without_will || (password && !username) {
            return Err(Malformed::ConnectFlags);
        }
        let will = if has_will { Some((decode_qos(will_qos)?, will_retain)) } else { None };
        Ok(Self { clean_session: is_set(0x02), will, username, password })
    }
}

/// Reads a PUBLISH (MQTT 3.1.1, section 3.3). DUP on a QoS 0 message is let pass: it harms nobody.
fn decode_publish(flags: u8, mut body: Reader) -> Result<Packet, Malformed> {
    let topic = body.take_topic()?;
    let delivery = match decode_qos(flags >> 1 & 0b11)? {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(body.take_packet_id()?),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(body.take_packet_id()?),
    };
    let (retain, dup) = (flags & 0b0001 != 0, flags & 0b1000 != 0);
    Ok(Packet::Publish(Publish { topic, payload: body.0, delivery, retain, dup }))
}

/// Reads a CONNACK. A refusal that also speaks of a session (against rule 3.2.2-4) is a refusal.
fn decode_connack(body: &mut Reader) -> Result<Packet, Malformed> {
    let flags = body.take_u8()?;
    if flags & !0x01 != 0 {
        return Err(Malformed::ConnackFlags);
    }
    Ok(Packet::Connack(match body.take_u8()? {
        0 => Connack::Accepted { session_present: flags != 0 },
        1 => Connack::Refused(Refusal::ProtocolVersion),
        2 => Connack::Refused(Refusal::IdentifierRejected),
        3 => Connack::Refused(Refusal::ServerUnavailable),
        4 => Connack::Refused(Refusal::BadUsernameOrPassword),
        5 => Connack::Refused(Refusal::NotAuthorized),
        other => return Err(Malformed::ReturnCode(other)),
    }))
}

fn decode_qos(bits: u8) -> Result<QoS, Malformed> {
    match bits {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err(Malformed::QoS),
    }
}

/// Takes fields off the front of a body, sharing its memory.
struct Reader(Bytes);

impl Reader {
    fn take_u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed::Truncated)
    }

    fn take_u16(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16().map_err(|_| Malformed::Truncated)
    }

    fn take_packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.take_u16()?).ok_or(Malformed::PacketId)
    }

    fn take_binary(&mut self) -> Result<Bytes, Malformed> {
        let bytes = usize::from(self.take_u16()?);
        if bytes > self.0.len() {
            return Err(Malformed::Truncated);
        }
        Ok(self.0.split_to(bytes))
    }

    fn take_text(&mut self) -> Result<Text, Malformed> {
        Ok(Text::parse(self.take_binary()?)?)
    }

    fn take_topic(&mut self) -> Result<Text, Malformed> {
        let topic = self.take_text()?;
        if topic.is_empty() { Err(Malformed::EmptyTopic) } else { Ok(topic) }
    }

    fn take_filter(&mut self) -> Result<Filter, Malformed> {
        Ok(Filter { topic: self.take_topic()?, qos: decode_qos(self.take_u8()?)? })
    }

    fn take_suback_code(&mut self) -> Result<SubackCode, Malformed> {
        match self.take_u8()? {
            0x80 => Ok(SubackCode::Failure),
            other => decode_qos(other).map(SubackCode::Granted).map_err(|_| Malformed::SubackCode(other)),
        }
    }

    /// Takes items to the end of the body: at least one, at most [`FILTERS_MAX`].
    fn take_all<T>(&mut self, take: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            if items.len() == FILTERS_MAX {
                return Err(Malformed::TooManyFilters);
            }
            items.push(take(self)?);
        }
        if items.is_empty() { Err(Malformed::NoFilters) } else { Ok(items) }
    }

    fn finish(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}
