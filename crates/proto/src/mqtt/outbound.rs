//! What either end sends: bytes to be written, and messages whose acknowledgement is awaited.

use std::collections::VecDeque;

use super::in_flight::{InFlight, KEPT_IDS_MAX};
use super::output::Output;
use super::packet::{Delivery, Message, Packet, PacketId, Publish, QoS};

/// Why a message or a request was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    /// The connection is not accepted yet, or is over.
    #[error("not connected")]
    NotConnected,
    /// Too much is sent and not acknowledged; try again after an acknowledgement.
    #[error("too many messages are in flight")]
    InFlightFull,
    /// Too much is not written; try again when it is.
    #[error("too many bytes wait to be written")]
    OutputFull,
    /// QoS 2 is not offered.
    #[error("QoS 2 is not offered")]
    ExactlyOnce,
    /// Longer than MQTT can say.
    #[error("longer than MQTT can say")]
    Oversized,
}

/// The sending half of a connection.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) output: Output,
    pub(super) in_flight: InFlight,
    /// Identifiers that came back and were not reported yet; each was in flight.
    acknowledged: VecDeque<PacketId>,
}

impl Outbound {
    /// Gives `message` its identifier, if it needs one, and puts it into the output.
    pub(super) fn publish(&mut self, message: &Message, in_flight_max: usize) -> Result<Option<PacketId>, Unpublished> {
        match message.qos {
            QoS::AtMostOnce => {
                let sent = self.output.push(&Packet::Publish(wire(message, Delivery::AtMostOnce)));
                sent.map(|()| None).map_err(|_| Unpublished::Oversized)
            }
            QoS::AtLeastOnce => {
                let publish = |packet_id| Packet::Publish(wire(message, Delivery::AtLeastOnce(packet_id)));
                self.request(in_flight_max, publish).map(Some)
            }
            QoS::ExactlyOnce => Err(Unpublished::ExactlyOnce),
        }
    }

    /// Puts a packet that will be answered into the output, made with the identifier it gets.
    pub(super) fn request(
        &mut self,
        in_flight_max: usize,
        packet: impl FnOnce(PacketId) -> Packet,
    ) -> Result<PacketId, Unpublished> {
        let packet_id = self.in_flight.start(in_flight_max).ok_or(Unpublished::InFlightFull)?;
        if self.output.push(&packet(packet_id)).is_err() {
            self.in_flight.finish(packet_id);
            return Err(Unpublished::Oversized);
        }
        Ok(packet_id)
    }

    /// Takes the body of a PUBACK in. An identifier that is not in flight, 0 included, is let pass: peers send them
    /// (`contract/dps-device.md` 3.5).
    pub(super) fn handle_puback(&mut self, body: &[u8]) {
        let &[high, low] = body else { return };
        let packet_id = PacketId::new(u16::from_be_bytes([high, low]));
        self.acknowledged.extend(packet_id.filter(|&packet_id| self.in_flight.finish(packet_id)));
    }

    /// An identifier that came back by PUBACK.
    pub(super) fn poll_acknowledged(&mut self) -> Option<PacketId> {
        let packet_id = self.acknowledged.pop_front()?;
        if self.acknowledged.is_empty() && self.acknowledged.capacity() > KEPT_IDS_MAX {
            self.acknowledged = VecDeque::new();
        }
        Some(packet_id)
    }

    /// Waits for no answer any more. What is in the output stays.
    pub(super) fn end(&mut self) {
        self.in_flight = InFlight::default();
    }
}

fn wire(message: &Message, delivery: Delivery) -> Publish {
    let Message { topic, payload, retain, dup, .. } = message.clone();
    Publish { topic, payload, delivery, retain, dup }
}
