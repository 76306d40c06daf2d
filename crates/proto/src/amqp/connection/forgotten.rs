//! Which deliveries nobody had to settle when they were sent, so that they are told from those that are unknown: a peer that
//! tells of one all the same has its way. Keeps ranges of numbers, and nothing of the deliveries. Start at
//! [`Forgotten::parts`].

use std::collections::VecDeque;

/// Ranges that are kept. When there are more, the two oldest become one, with what lies between them: an outcome that
/// comes so late is taken for one of a delivery that was forgotten.
const RANGES_MAX: usize = 64;

/// How far behind the newest a number is still known: numbers that are further apart have no order (RFC 1982).
const AGE_MAX: u32 = 1 << 31;

/// Numbers of the deliveries of one session. They may wrap around (RFC 1982).
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// First and last of each range, in the order sent.
    ranges: VecDeque<(u32, u32)>,
}

/// Numbers from `first` to `last`, both included, of which all or none were forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) is_forgotten: bool,
}

impl Forgotten {
    /// Takes note of a delivery, later than all before.
    pub(super) fn insert(&mut self, number: u32) {
        match self.ranges.back_mut() {
            Some((_, last)) if last.wrapping_add(1) == number => *last = number,
            _ => self.ranges.push_back((number, number)),
        }
        while let Some((first, last)) = self.ranges.front_mut() {
            if number.wrapping_sub(*last) >= AGE_MAX {
                self.ranges.pop_front();
                continue;
            }
            if number.wrapping_sub(*first) >= AGE_MAX {
                *first = number.wrapping_sub(AGE_MAX - 1);
            }
            break;
        }
        if self.ranges.len() > RANGES_MAX
            && let Some((oldest, _)) = self.ranges.pop_front()
            && let Some((first, _)) = self.ranges.front_mut()
        {
            *first = oldest;
        }
    }

    /// The parts of the numbers from `first` to `last`, in order.
    pub(super) fn parts(&self, first: u32, last: u32) -> Vec<Part> {
        let length = last.wrapping_sub(first);
        // As distances from `first`, so that nothing wraps around.
        let overlap = |&(start, end): &(u32, u32)| {
            let (from, to) = (start.wrapping_sub(first), end.wrapping_sub(first));
            let from = if from > to { 0 } else { from };
            (from <= length).then_some((from, to.min(length)))
        };
        let mut forgotten: Vec<(u32, u32)> = self.ranges.iter().filter_map(overlap).collect();
        forgotten.sort_unstable();
        let mut parts = Vec::new();
        let mut push = |from: u32, to: u32, is_forgotten| {
            parts.push(Part { first: first.wrapping_add(from), last: first.wrapping_add(to), is_forgotten });
        };
        let mut next = Some(0);
        for (from, to) in forgotten {
            if let Some(unknown) = next.filter(|next| *next < from) {
                push(unknown, from - 1, false);
            }
            push(from, to, true);
            next = to.checked_add(1);
        }
        if let Some(unknown) = next.filter(|next| *next <= length) {
            push(unknown, length, false);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgotten(numbers: impl IntoIterator<Item = u32>) -> Forgotten {
        let mut forgotten = Forgotten::default();
        numbers.into_iter().for_each(|number| forgotten.insert(number));
        forgotten
    }

    fn parts(forgotten: &Forgotten, first: u32, last: u32) -> Vec<(u32, u32, bool)> {
        forgotten.parts(first, last).into_iter().map(|part| (part.first, part.last, part.is_forgotten)).collect()
    }

    #[test]
    fn what_was_forgotten_is_told_from_what_is_unknown() {
        const MAX: u32 = u32::MAX;
        let cases: &[(&str, &[u32], (u32, u32), &[(u32, u32, bool)])] = &[
            ("nothing was", &[], (3, 7), &[(3, 7, false)]),
            ("all were", &[2, 3, 4, 5], (3, 5), &[(3, 5, true)]),
            ("the first were", &[1, 2, 3], (2, 5), &[(2, 3, true), (4, 5, false)]),
            ("the last were", &[5, 6, 7], (3, 6), &[(3, 4, false), (5, 6, true)]),
            (
                "some were",
                &[1, 4, 6, 9],
                (3, 7),
                &[(3, 3, false), (4, 4, true), (5, 5, false), (6, 6, true), (7, 7, false)],
            ),
            ("others were", &[1, 9], (3, 7), &[(3, 7, false)]),
            (
                "numbers wrap",
                &[MAX, 0, 2],
                (MAX - 1, 2),
                &[(MAX - 1, MAX - 1, false), (MAX, 0, true), (1, 1, false), (2, 2, true)],
            ),
            (
                "every number there is",
                &[1, 5],
                (3, 2),
                &[(3, 4, false), (5, 5, true), (6, 0, false), (1, 1, true), (2, 2, false)],
            ),
            ("up to the last number", &[MAX], (MAX - 1, MAX), &[(MAX - 1, MAX - 1, false), (MAX, MAX, true)]),
        ];
        for (name, numbers, (first, last), expected) in cases {
            assert_eq!(parts(&forgotten(numbers.iter().copied()), *first, *last), *expected, "{name}");
        }
    }

    #[test]
    fn what_is_too_old_to_have_an_order_is_unknown() {
        let mut old = Forgotten { ranges: VecDeque::from([(0, 9), (20, AGE_MAX + 8)]) };
        old.insert(AGE_MAX + 9);
        assert_eq!(parts(&old, 0, 21), [(0, 19, false), (20, 21, true)]);
        old.insert(AGE_MAX + 24);
        assert_eq!(parts(&old, 20, 26), [(20, 24, false), (25, 26, true)]);
    }

    #[test]
    fn few_ranges_are_kept_and_the_newest_exactly() {
        let count = RANGES_MAX as u32 + 2;
        let forgotten = forgotten((0..count).map(|index| index * 2));
        assert_eq!(forgotten.ranges.len(), RANGES_MAX);
        assert_eq!(parts(&forgotten, 0, 6), [(0, 4, true), (5, 5, false), (6, 6, true)]);
    }
}
