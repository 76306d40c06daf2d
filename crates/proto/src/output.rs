//! Bytes to be sent and not yet written.

/// The most memory an empty output keeps: enough for sixty small answers, little enough for an idle connection.
const KEPT_BYTES_MAX: usize = 256;

/// One buffer that is filled at the back and written from the front, and starts over whenever it is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Where in `bytes` ends what is to be written by itself; 0 if nothing is.
    apart: usize,
}

impl Output {
    /// What is to be written next.
    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// The part of [`Self::pending`] that is to be written in one go.
    pub(crate) fn piece(&self) -> &[u8] {
        match self.apart {
            0 => self.pending(),
            end => self.bytes.get(self.written..end).unwrap_or_default(),
        }
    }

    /// Has what is pending written before anything that is appended, and not together with it. Something that is set apart
    /// already keeps its bound.
    pub(crate) fn set_apart(&mut self) {
        if self.apart == 0 && !self.pending().is_empty() {
            self.apart = self.bytes.len();
        }
    }

    /// Forgets the first `count` bytes of [`Self::pending`].
    pub(crate) fn advance(&mut self, count: usize) {
        self.written = self.written.saturating_add(count).min(self.bytes.len());
        if self.written >= self.apart {
            self.apart = 0;
        }
        if self.written < self.bytes.len() {
            return;
        }
        self.written = 0;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Appends bytes that are ready to be sent.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.back().extend_from_slice(bytes);
    }

    /// Where to append. Written bytes are dropped first when they are at least half, so that a peer that reads slowly
    /// costs at most one more copy of each byte, and never twice the memory.
    pub(crate) fn back(&mut self) -> &mut Vec<u8> {
        if self.written > 0 && self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.apart = self.apart.saturating_sub(self.written);
            self.written = 0;
        }
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_leaves_in_order() {
        let mut output = Output::default();
        for number in 0..=255u8 {
            output.push_bytes(&[number; 16]);
            output.advance(5);
        }
        let expected: Vec<u8> = (0..=255u8).flat_map(|number| [number; 16]).skip(256 * 5).collect();
        assert_eq!(output.pending(), expected);

        output.advance(usize::MAX);
        assert_eq!(output.pending(), b"");
        assert_eq!(output.bytes.capacity(), 0, "the memory is given back");
    }

    #[test]
    fn what_is_set_apart_is_written_by_itself() {
        let mut output = Output::default();
        output.set_apart();
        output.push_bytes(b"first");
        output.set_apart();
        output.push_bytes(b"second");
        output.set_apart();
        output.push_bytes(b"third");
        assert_eq!((output.piece(), output.pending().len()), (&b"first"[..], 16));
        output.advance(4);
        output.push_bytes(b"!");
        assert_eq!(output.piece(), b"t");
        output.advance(1);
        assert_eq!(output.piece(), b"secondthird!");
        output.advance(12);
        output.push_bytes(b"more");
        assert_eq!(output.piece(), b"more");
    }

    #[test]
    fn a_peer_that_is_always_a_little_behind_costs_little() {
        let mut output = Output::default();
        output.push_bytes(&[0; 64]);
        for _ in 0..10_000 {
            output.push_bytes(&[0; 16]);
            output.advance(16);
            assert_eq!(output.pending().len(), 64);
            assert!(output.bytes.capacity() <= 256, "{}", output.bytes.capacity());
        }
    }
}
