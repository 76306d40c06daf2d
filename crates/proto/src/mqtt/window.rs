//! Messages received and not yet acknowledged, so that acknowledgements leave in the order the messages came.

use std::collections::VecDeque;

use super::packet::PacketId;

/// The most slots an empty window keeps memory for.
const KEPT_SLOTS_MAX: usize = 32;

/// Stands for one received message until it is acknowledged. Never repeats on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The received messages of one connection (MQTT 3.1.1, section 4.6).
///
/// Messages may be acknowledged in any order. The answer to a QoS 1 message leaves when every QoS 1 message before it
/// is acknowledged too; QoS 0 messages hold nobody up, they only count.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// The ticket of the first slot.
    front: u64,
    /// How many slots at the front hold no answer back any more.
    answered: usize,
    /// Bytes of the messages that are not acknowledged.
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    /// `None` for QoS 0.
    packet_id: Option<PacketId>,
    bytes: usize,
    is_acknowledged: bool,
}

impl Window {
    /// Takes a message in.
    pub(super) fn push(&mut self, packet_id: Option<PacketId>, bytes: usize) -> Ticket {
        let ticket = Ticket(self.front + self.slots.len() as u64);
        self.slots.push_back(Slot { packet_id, bytes, is_acknowledged: false });
        self.bytes += bytes;
        ticket
    }

    /// Acknowledges a message, and calls `answer` for every identifier whose turn has come. A ticket that was used
    /// before changes nothing.
    pub(super) fn acknowledge(&mut self, ticket: Ticket, mut answer: impl FnMut(PacketId)) {
        let index = ticket.0.checked_sub(self.front).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else { return };
        if std::mem::replace(&mut slot.is_acknowledged, true) {
            return;
        }
        self.bytes -= slot.bytes;

        while let Some(slot) = self.slots.get(self.answered) {
            match slot.packet_id {
                Some(packet_id) if slot.is_acknowledged => answer(packet_id),
                Some(_) => break,
                None => {}
            }
            self.answered += 1;
        }
        while self.answered > 0 && self.slots.front().is_some_and(|slot| slot.is_acknowledged) {
            self.slots.pop_front();
            self.front += 1;
            self.answered -= 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > KEPT_SLOTS_MAX {
            self.slots = VecDeque::new();
        }
    }

    /// Whether a QoS 1 message with this identifier is not answered yet.
    pub(super) fn holds(&self, packet_id: PacketId) -> bool {
        self.slots.iter().skip(self.answered).any(|slot| slot.packet_id == Some(packet_id))
    }

    /// How many messages are not acknowledged, or wait behind one that is not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The bytes of the messages that are not acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(window: &mut Window, ticket: Ticket) -> Vec<u16> {
        let mut answered = Vec::new();
        window.acknowledge(ticket, |packet_id| answered.push(packet_id.get()));
        answered
    }

    #[test]
    fn answers_leave_in_order_of_arrival() {
        let mut window = Window::default();
        let tickets: Vec<Ticket> = [5, 3, 9].map(|id| window.push(PacketId::new(id), 10)).into();
        assert_eq!(answers(&mut window, tickets[2]), [0u16; 0]);
        assert_eq!(answers(&mut window, tickets[1]), [0u16; 0]);
        assert_eq!((window.len(), window.bytes()), (3, 10));
        assert_eq!(answers(&mut window, tickets[0]), [5, 3, 9]);
        assert_eq!((window.len(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_message_of_qos_0_holds_nobody_up() {
        let mut window = Window::default();
        let quiet = window.push(None, 1);
        let first = window.push(PacketId::new(1), 1);
        let second = window.push(PacketId::new(2), 1);
        assert_eq!(answers(&mut window, second), [0u16; 0]);
        assert_eq!(answers(&mut window, first), [1, 2]);
        assert_eq!(window.len(), 3, "they are behind one that is in work");
        assert!(!window.holds(PacketId::FIRST));
        assert_eq!(answers(&mut window, quiet), [0u16; 0]);
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn a_ticket_works_once() {
        let mut window = Window::default();
        let first = window.push(PacketId::new(1), 7);
        let second = window.push(PacketId::new(2), 7);
        assert_eq!(answers(&mut window, second), [0u16; 0]);
        assert_eq!(answers(&mut window, second), [0u16; 0]);
        assert_eq!(answers(&mut window, first), [1, 2]);
        assert_eq!(answers(&mut window, first), [0u16; 0]);
        assert_eq!(answers(&mut window, Ticket(77)), [0u16; 0]);
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn an_empty_window_keeps_little_memory() {
        let mut window = Window::default();
        let tickets: Vec<Ticket> = (1..=1000).map(|id| window.push(PacketId::new(id), 1)).collect();
        assert_eq!(tickets.iter().flat_map(|&ticket| answers(&mut window, ticket)).count(), 1000);
        assert!(window.slots.capacity() <= KEPT_SLOTS_MAX);
    }
}
