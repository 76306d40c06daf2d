//! Bytes read as choices: what the targets that play a conversation are told by.

/// A script. At its end every choice is the first one.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// One of two.
    pub fn bit(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// From `min` to `max`, both included.
    pub fn number(&mut self, min: usize, max: usize) -> usize {
        min + usize::from(self.byte()) % (max - min + 1)
    }

    /// A place among `count`; `None` if there is none.
    pub fn index(&mut self, count: usize) -> Option<usize> {
        usize::from(self.byte()).checked_rem(count)
    }

    /// One of `choices`, if there are any.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = self.index(choices.len())?;
        choices.get(index).copied()
    }

    /// As many bytes as are left of `count`.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Up to 255 `times` over so many bytes.
    pub fn bytes(&mut self, times: usize) -> &'a [u8] {
        let count = usize::from(self.byte()) * times;
        self.take(count)
    }

    /// Up to `most` bytes.
    pub fn bytes_to(&mut self, most: usize) -> &'a [u8] {
        let count = self.number(0, most);
        self.take(count)
    }
}
