//! Packet identifiers of what was sent and is not answered yet.

use std::collections::VecDeque;

use super::packet::PacketId;

/// The most identifiers an empty list keeps memory for.
pub(super) const KEPT_IDS_MAX: usize = 64;

/// Hands identifiers out, each one free, and takes them back (MQTT 3.1.1, section 2.3.1).
///
/// Identifiers go round through all 65,535, so that a late answer does not hit a younger packet.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Oldest first: peers answer in order, so looking from the front finds at once.
    ids: VecDeque<PacketId>,
    next: PacketId,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { ids: VecDeque::new(), next: PacketId::FIRST }
    }
}

impl InFlight {
    /// The most that can be out at once.
    pub(super) const MAX: usize = u16::MAX as usize;

    /// A free identifier, from here on in use; `None` if `max` are in use.
    pub(super) fn start(&mut self, max: usize) -> Option<PacketId> {
        if self.ids.len() >= max.min(Self::MAX) {
            return None;
        }
        while self.ids.contains(&self.next) {
            self.next = self.next.next();
        }
        let packet_id = self.next;
        self.next = packet_id.next();
        self.ids.push_back(packet_id);
        Some(packet_id)
    }

    /// Frees an identifier; `false` if it was not in use.
    pub(super) fn finish(&mut self, packet_id: PacketId) -> bool {
        let Some(index) = self.ids.iter().position(|&id| id == packet_id) else { return false };
        self.ids.remove(index);
        if self.ids.is_empty() && self.ids.capacity() > KEPT_IDS_MAX {
            self.ids = VecDeque::new();
        }
        true
    }

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_round_and_skip_those_in_use() {
        let mut in_flight = InFlight::default();
        let first = in_flight.start(2).unwrap();
        assert_eq!(first.get(), 1);
        for expected in 2..=u16::MAX {
            let packet_id = in_flight.start(2).unwrap();
            assert_eq!(packet_id.get(), expected);
            assert_eq!(in_flight.start(2), None, "two are out");
            assert!(in_flight.finish(packet_id));
            assert!(!in_flight.finish(packet_id), "it is back already");
        }
        assert_eq!(in_flight.start(2).unwrap().get(), 2, "1 is still out");
        assert_eq!(in_flight.len(), 2);
    }

    #[test]
    fn all_identifiers_can_be_out_and_no_more() {
        let mut in_flight = InFlight { ids: (1..=u16::MAX).filter_map(PacketId::new).collect(), ..InFlight::default() };
        assert_eq!(in_flight.start(usize::MAX), None);
        assert!(in_flight.finish(PacketId::new(500).unwrap()));
        assert_eq!(in_flight.start(usize::MAX), PacketId::new(500));
    }
}
