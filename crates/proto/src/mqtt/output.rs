//! Packets into the output.

use super::codec::{self, Oversized};
use super::packet::{Packet, PacketId, PacketType};

pub(super) use crate::output::Output;

impl Output {
    /// Appends a packet.
    pub(super) fn push(&mut self, packet: &Packet) -> Result<(), Oversized> {
        codec::encode(packet, self.back())
    }

    /// Appends a packet whose size cannot be wrong: one without strings and payloads.
    pub(super) fn push_small(&mut self, packet: &Packet) {
        self.push(packet).expect("a packet without strings and payloads is short");
    }

    /// Appends PUBACK, UNSUBACK and their like.
    pub(super) fn push_ack(&mut self, packet_type: PacketType, packet_id: PacketId) {
        codec::encode_ack(packet_type, packet_id, self.back());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_reuse_a_small_buffer() {
        let mut output = Output::default();
        output.push_ack(PacketType::Puback, PacketId::FIRST);
        output.advance(4);
        let kept = output.back().as_ptr();
        for _ in 0..1000 {
            output.push_ack(PacketType::Puback, PacketId::FIRST);
            assert_eq!(output.pending(), [0x40, 2, 0, 1]);
            assert_eq!(output.pending().as_ptr(), kept);
            output.advance(4);
        }
    }
}
