//! Which changes of desired properties a connection is told, and when (`rules.md` 12).
//!
//! Changes arrive in the order of their versions. None is ever skipped silently: where one is missing, the connection has
//! to end, so that the device reads its twin afresh. Changes wait while an answer about the twin is under way, because an
//! application that compares versions must not read an older document after a newer change
//! (`contract/hub-device.md 2.9`).

use std::collections::VecDeque;

use domain::operation::twin::DesiredChange;

/// Changes that wait for one connection; more end it.
pub const WAITING_MAX: usize = 32;

/// The changes of one connection.
#[derive(Debug, Default)]
pub struct Feed {
    /// The version up to which the device has been told, or which it has missed by not listening.
    known: Option<u64>,
    waiting: VecDeque<DesiredChange>,
}

/// What is to be done with a change.
#[derive(Debug)]
pub enum Next {
    /// Tell the device.
    Tell(DesiredChange),
    /// End the connection: versions between the two are missing.
    Gap {
        /// The last version told.
        known: u64,
        /// The version at hand.
        found: u64,
    },
}

/// Too many changes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl Feed {
    /// Takes a change in.
    pub fn push(&mut self, change: DesiredChange) -> Result<(), Overrun> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Overrun);
        }
        self.waiting.push_back(change);
        Ok(())
    }

    /// Takes note that the device has read its twin, desired properties at `version`.
    pub fn read(&mut self, version: u64) {
        self.known = self.known.max(Some(version));
    }

    /// What to do next; `None` if nothing waits. Changes that the device knows are passed over, and so are those that
    /// come while it does not listen: they are not kept for it (`contract/hub-device.md 2.3`).
    pub fn poll(&mut self, is_listening: bool) -> Option<Next> {
        while let Some(change) = self.waiting.pop_front() {
            if self.waiting.is_empty() {
                self.waiting = VecDeque::new();
            }
            let found = change.version;
            let known = self.known.replace(self.known.unwrap_or(0).max(found));
            match known {
                Some(known) if found <= known => {}
                _ if !is_listening => {}
                Some(known) if found > known + 1 => return Some(Next::Gap { known, found }),
                Some(_) | None => return Some(Next::Tell(change)),
            }
        }
        None
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.waiting = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u64) -> DesiredChange {
        DesiredChange { version, patch: std::sync::Arc::default() }
    }

    /// What `feed` tells of `versions`, and the gap that ends it.
    fn told(feed: &mut Feed, versions: &[u64], is_listening: bool) -> (Vec<u64>, Option<(u64, u64)>) {
        let mut told = Vec::new();
        for &version in versions {
            feed.push(change(version)).unwrap();
        }
        while let Some(next) = feed.poll(is_listening) {
            match next {
                Next::Tell(change) => told.push(change.version),
                Next::Gap { known, found } => return (told, Some((known, found))),
            }
        }
        (told, None)
    }

    #[test]
    fn only_newer_versions_are_told_in_order_and_a_gap_is_never_skipped() {
        type Case<'a> = (&'a str, Option<u64>, &'a [u64], &'a [u64], Option<(u64, u64)>);
        let cases: &[Case<'_>] = &[
            ("nothing is known, so any version may be the first", None, &[7, 8], &[7, 8], None),
            ("older than what was read", Some(7), &[6, 7, 8], &[8], None),
            ("repeated", Some(7), &[8, 8, 9], &[8, 9], None),
            ("a gap behind what was read", Some(7), &[9], &[], Some((7, 9))),
            ("a gap among changes", None, &[2, 3, 5], &[2, 3], Some((3, 5))),
            ("the largest number is no overflow", Some(u64::MAX), &[1], &[], None),
        ];
        for (name, read, versions, expected, gap) in cases {
            let mut feed = Feed::default();
            if let Some(version) = *read {
                feed.read(version);
            }
            assert_eq!(told(&mut feed, versions, true), (expected.to_vec(), *gap), "{name}");
        }
    }

    #[test]
    fn what_came_while_nobody_listened_is_no_gap() {
        let mut feed = Feed::default();
        feed.read(3);
        assert_eq!(told(&mut feed, &[4, 6], false), (vec![], None));
        assert_eq!(told(&mut feed, &[7], true), (vec![7], None));
    }

    #[test]
    fn reading_an_older_document_takes_nothing_back() {
        let mut feed = Feed::default();
        assert_eq!(told(&mut feed, &[5], true), (vec![5], None));
        feed.read(4);
        assert_eq!(told(&mut feed, &[5, 6], true), (vec![6], None));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut feed = Feed::default();
        for version in 1..=WAITING_MAX as u64 {
            assert_eq!(feed.push(change(version)), Ok(()));
        }
        assert_eq!(feed.push(change(99)), Err(Overrun));
        feed.clear();
        assert_eq!(feed.push(change(99)), Ok(()));
    }
}
