//! Bytes received and not yet taken as packets.

use bytes::{Buf, BytesMut};

use super::codec::{self, Header, Malformed};
use super::packet::{Packet, PacketType};

/// Holds received bytes until their packet is complete, and complete packets until they are taken.
///
/// Empty, it owns no memory. It grows with what has arrived, never with what a packet announces.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: BytesMut,
    /// How many bytes at the front belong to packets that `scan` has shown.
    scanned: usize,
}

impl Input {
    /// Appends what the peer sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::from(bytes);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Shows every complete packet not shown before, its type and body, without taking it. Stops at a malformed
    /// header, which [`Self::peek`] reports in its turn. Returns whether there was any.
    pub(super) fn scan(&mut self, packet_bytes_max: usize, mut show: impl FnMut(PacketType, &[u8])) -> bool {
        let before = self.scanned;
        loop {
            let rest = self.bytes.get(self.scanned..).unwrap_or_default();
            let Ok(Some(header)) = codec::decode_header(rest, packet_bytes_max) else { break };
            let Some(body) = rest.get(header.header_bytes..header.packet_bytes()) else { break };
            show(header.packet_type, body);
            self.scanned += header.packet_bytes();
        }
        self.scanned > before
    }

    /// The header of the next packet, complete or not; `None` asks for more bytes.
    pub(super) fn peek(&self, packet_bytes_max: usize) -> Result<Option<Header>, Malformed> {
        codec::decode_header(&self.bytes, packet_bytes_max)
    }

    /// Takes the next packet; `None` asks for more bytes.
    pub(super) fn take(&mut self, packet_bytes_max: usize) -> Result<Option<Packet>, Malformed> {
        let before = self.bytes.remaining();
        let packet = codec::decode(&mut self.bytes, packet_bytes_max)?;
        self.scanned = self.scanned.saturating_sub(before - self.bytes.remaining());
        if self.bytes.is_empty() {
            self.clear();
        }
        Ok(packet)
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How much memory the bytes take.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}
