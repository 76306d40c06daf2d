//! Cuts a file that is read in pieces into lines, wherever the pieces end.
//!
//! Holds no more than the longest line that is taken and the last piece: of a longer line only its length is kept. Start
//! at [`Lines`].

use domain::transfer::LINE_BYTES_MAX;

/// What was read of a file and is not carried out yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    waiting: Vec<u8>,
    /// Bytes at the beginning of what waits that were taken.
    taken: usize,
    /// Bytes of a line that is too long which wait no more.
    dropped: u64,
}

/// The next line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'l> {
    /// Without its end; `None` for one that is too long.
    pub text: Option<&'l [u8]>,
    /// With its end.
    pub bytes: u64,
    /// Those of it that wait.
    waiting: usize,
}

impl Lines {
    /// Takes what was read behind what was taken before.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        self.waiting.extend_from_slice(piece);
    }

    /// Bytes that were read and belong to no line that was taken.
    pub(super) fn ahead(&self) -> u64 {
        self.dropped + self.rest().len() as u64
    }

    /// The next line, if the end of it was read. A last line needs none.
    pub(super) fn peek(&mut self, is_last: bool) -> Option<Cut<'_>> {
        let (rest, dropped) = (self.rest(), self.dropped);
        let (text, waiting) = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end, end + 1),
            None if is_last && dropped + rest.len() as u64 > 0 => (rest.len(), rest.len()),
            None => {
                if dropped + rest.len() as u64 > LINE_BYTES_MAX as u64 {
                    self.dropped += rest.len() as u64;
                    self.taken = self.waiting.len();
                }
                return None;
            }
        };
        let is_short = dropped + text as u64 <= LINE_BYTES_MAX as u64;
        let text = self.rest().get(..text).filter(|_| is_short);
        Some(Cut { text, bytes: dropped + waiting as u64, waiting })
    }

    /// Passes over the line that [`Self::peek`] gave, of which so many bytes wait.
    pub(super) fn take(&mut self, waiting: usize) {
        self.taken += waiting;
        self.dropped = 0;
    }

    fn rest(&self) -> &[u8] {
        self.waiting.get(self.taken..).unwrap_or_default()
    }
}

impl Cut<'_> {
    /// What [`Lines::take`] wants to know.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `text` if it is read in pieces of so many bytes: the length of each, or `None`, and its bytes.
    fn cut(text: &[u8], piece: usize) -> Vec<(Option<usize>, u64)> {
        let (mut lines, mut found, mut held) = (Lines::default(), Vec::new(), 0);
        let pieces = text.chunks(piece).map(|piece| (piece, false));
        for (piece, is_last) in pieces.chain([(&b""[..], true)]) {
            lines.push(piece);
            while let Some(cut) = lines.peek(is_last) {
                found.push((cut.text.map(<[u8]>::len), cut.bytes));
                let waiting = cut.waiting();
                lines.take(waiting);
            }
            held = held.max(lines.waiting.len());
            let passed: u64 = found.iter().map(|(_, bytes)| bytes).sum();
            assert!(passed + lines.ahead() <= text.len() as u64);
        }
        assert!(held <= LINE_BYTES_MAX + 2 * piece, "{held} bytes are held");
        assert_eq!(found.iter().map(|(_, bytes)| bytes).sum::<u64>(), text.len() as u64, "every byte is passed");
        found
    }

    #[test]
    fn a_line_is_too_long_wherever_it_stands_and_wherever_pieces_end() {
        let max = LINE_BYTES_MAX;
        let line = |bytes: usize| [vec![b'a'; bytes], vec![b'\n']].concat();
        let of = |bytes: usize| (Some(bytes), bytes as u64 + 1);
        let long = |bytes: usize| (None, bytes as u64 + 1);
        let open = |bytes: usize| (Some(bytes), bytes as u64);
        let cases: &[(&str, Vec<u8>, Vec<(Option<usize>, u64)>)] = &[
            ("nothing", Vec::new(), vec![]),
            ("empty lines", b"\n\n".to_vec(), vec![of(0), of(0)]),
            ("no end", [line(3), vec![b'a'; 2]].concat(), vec![of(3), open(2)]),
            ("the longest", [line(1), line(max), line(1)].concat(), vec![of(1), of(max), of(1)]),
            ("longer, first", [line(max + 1), line(1)].concat(), vec![long(max + 1), of(1)]),
            ("longer, amid others", [line(1), line(3 * max), line(2)].concat(), vec![of(1), long(3 * max), of(2)]),
            ("longer, last", [line(1), line(2 * max)].concat(), vec![of(1), long(2 * max)]),
            ("longer, without an end", vec![b'a'; 2 * max], vec![(None, 2 * max as u64)]),
            ("the longest without an end", vec![b'a'; max], vec![open(max)]),
            ("two longer", [line(max + 1), line(max + 2)].concat(), vec![long(max + 1), long(max + 2)]),
        ];
        for (name, text, expected) in cases {
            for piece in [65_537, max - 1, max, max + 1, max + 2, 4 * max] {
                assert_eq!(&cut(text, piece), expected, "{name}, pieces of {piece} bytes");
            }
        }
        for piece in 1..8 {
            assert_eq!(cut(b"ab\n\r\n\nabc", piece), [of(2), of(1), of(0), open(3)], "pieces of {piece} bytes");
        }
    }
}
