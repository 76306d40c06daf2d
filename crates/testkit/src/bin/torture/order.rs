//! The order of things in a trace: the record is written, its file is synced, and only then the acknowledgement leaves.
//!
//! A `kill -9` cannot show this, since what was written and not synced survives it. Start at [`check`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::journal::{Act, Change, Ends, MARK_DIGITS, MARK_PREFIX, Mark, nanoseconds};
use crate::trace::{Call, Event};

/// The journal counts in microseconds; what happened within the last one counts.
const JOURNAL_STEP: u64 = 1_000;

/// When something began and ended.
#[derive(Clone, Copy, Debug)]
struct Span {
    began_at: u64,
    ended_at: u64,
}

/// What the trace says, by what is looked for.
#[derive(Default)]
struct Index<'t> {
    /// The writes that carry a mark.
    records: HashMap<Mark, Vec<(Span, &'t str)>>,
    /// The syncs of a file.
    syncs: HashMap<&'t str, Vec<Span>>,
    /// The writes to a connection.
    sends: HashMap<Ends, Vec<Span>>,
}

/// What the order of the acknowledgements was.
#[derive(Debug, Default)]
pub struct Order {
    /// How many acknowledgements came after the sync of their record, by kind.
    pub kept: BTreeMap<&'static str, usize>,
    /// Those that did not, in words.
    pub broken: Vec<String>,
    /// The kinds of both.
    kinds: BTreeSet<&'static str>,
}

impl Order {
    /// The kinds of which no acknowledgement was looked at, though their connections are known.
    pub fn absent(&self) -> impl Iterator<Item = &'static str> {
        Change::TRACED_KINDS.into_iter().filter(|kind| !self.kinds.contains(kind))
    }

    /// How many were looked at, by kind.
    pub fn told(&self) -> String {
        let kinds: Vec<String> = self.kept.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        kinds.join(", ")
    }
}

/// Looks at every acknowledged act of which the connection is known.
pub fn check(events: &[Event], acts: &[Act]) -> Order {
    let index = Index::read(events);
    let mut order = Order::default();
    for act in acts {
        let (Some(connection), Some(acknowledged)) = (act.connection, &act.acknowledged) else { continue };
        let asked = Span { began_at: nanoseconds(act.sent_at), ended_at: nanoseconds(acknowledged.at) + JOURNAL_STEP };
        order.kinds.insert(act.change.kind());
        match index.judge(act.mark, connection, asked) {
            Ok(()) => *order.kept.entry(act.change.kind()).or_default() += 1,
            Err(why) => order.broken.push(format!("{:?} {}: {why}", act.change, act.mark)),
        }
    }
    order
}

impl<'t> Index<'t> {
    fn read(events: &'t [Event]) -> Self {
        let mut index = Self::default();
        for event in events {
            let span = Span { began_at: event.began_at, ended_at: event.ended_at };
            match &event.call {
                Call::Write { path, bytes, .. } => {
                    for mark in marks(bytes) {
                        index.records.entry(mark).or_default().push((span, path));
                    }
                }
                Call::Sync { path } => index.syncs.entry(path).or_default().push(span),
                Call::Send { connection } => index.sends.entry(*connection).or_default().push(span),
                _ => {}
            }
        }
        index
    }

    /// Whether everything written to the connection between request and acknowledgement, which can be nothing but the
    /// acknowledgement, was written after the sync of the first write that carries the mark.
    fn judge(&self, mark: Mark, connection: Ends, asked: Span) -> Result<(), &'static str> {
        let sends = self.sends.get(&connection).map(Vec::as_slice).unwrap_or_default();
        let mut sends = sends.iter().filter(|send| asked.began_at <= send.began_at && send.began_at <= asked.ended_at);
        let acknowledgement = sends.next().ok_or("the acknowledgement is not in the trace")?;
        let records = self.records.get(&mark).map(Vec::as_slice).unwrap_or_default();
        let mut records = records.iter().filter(|(record, _)| record.began_at >= asked.began_at);
        let (record, path) = records.next().ok_or("no write carries its record")?;
        let syncs = self.syncs.get(path).map(Vec::as_slice).unwrap_or_default();
        let sync = syncs.iter().find(|sync| sync.began_at >= record.ended_at).ok_or("its record was never synced")?;
        match sync.ended_at <= acknowledgement.began_at {
            true => Ok(()),
            false => Err("the acknowledgement left before the sync of its record was over"),
        }
    }
}

/// The marks in `bytes`.
fn marks(bytes: &[u8]) -> impl Iterator<Item = Mark> {
    let length = MARK_PREFIX.len() + MARK_DIGITS;
    bytes.windows(length).filter_map(|window| {
        let digits = window.strip_prefix(MARK_PREFIX.as_bytes())?;
        std::str::from_utf8(digits).ok()?.parse().ok().map(Mark)
    })
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;

    use super::*;
    use crate::journal::{Acknowledged, Change};

    const MARK: Mark = Mark(7);

    fn ends(server: &str) -> Ends {
        Ends { server: server.parse().unwrap(), client: "127.0.0.1:40000".parse().unwrap() }
    }

    fn at(began_at: u64, call: Call) -> Event {
        // The request is sent at the first microsecond and acknowledged at the ninth.
        Event { began_at: began_at * 100, ended_at: began_at * 100 + 50, call }
    }

    fn write(path: &str) -> Call {
        let bytes = format!("\0page {MARK} page").into_bytes();
        Call::Write { path: path.to_owned(), descriptor: 3, offset: Some(0), bytes }
    }

    fn sync(path: &str) -> Call {
        Call::Sync { path: path.to_owned() }
    }

    #[test]
    fn an_acknowledgement_follows_the_sync_of_its_record() {
        type Case<'a> = (&'a str, Vec<Event>, Option<&'a str>);
        let send = || Call::Send { connection: ends("127.0.0.1:443") };
        let elsewhere = || Call::Send { connection: ends("127.0.0.2:443") };
        let cases: Vec<Case<'_>> = vec![
            ("in order", vec![at(20, write("x")), at(30, sync("x")), at(40, send())], None),
            (
                "the sync is still going on",
                vec![at(20, write("x")), Event { began_at: 3_000, ended_at: 5_000, call: sync("x") }, at(40, send())],
                Some("left before the sync"),
            ),
            ("never synced", vec![at(20, write("x")), at(40, send())], Some("never synced")),
            (
                "synced before the write",
                vec![at(15, sync("x")), at(20, write("x")), at(40, send())],
                Some("never synced"),
            ),
            ("another file synced", vec![at(20, write("x")), at(30, sync("y")), at(40, send())], Some("never synced")),
            (
                "acknowledged before the write",
                vec![at(15, send()), at(20, write("x")), at(30, sync("x")), at(40, send())],
                Some("left before the sync"),
            ),
            ("never written", vec![at(30, sync("x")), at(40, send())], Some("no write")),
            (
                "another connection of the same port",
                vec![at(20, write("x")), at(30, sync("x")), at(40, elsewhere())],
                Some("not in the trace"),
            ),
        ];
        let act = Act {
            change: Change::Telemetry,
            mark: MARK,
            connection: Some(ends("127.0.0.1:443")),
            sent_at: UnixTime::from_micros(1),
            acknowledged: Some(Acknowledged { at: UnixTime::from_micros(9), hub: None }),
        };
        for (name, events, expected) in cases {
            let order = check(&events, std::slice::from_ref(&act));
            match expected {
                None => assert_eq!((order.kept.len(), order.broken.len()), (1, 0), "{name}: {:?}", order.broken),
                Some(why) => assert!(order.broken.join("").contains(why), "{name}: {:?}", order.broken),
            }
            let others = ["enrollments", "desired patches", "accepted registrations"];
            assert_eq!(order.absent().collect::<Vec<_>>(), others, "{name}");
        }
    }

    #[test]
    fn a_load_without_an_acknowledgement_shows_nothing_of_any_order() {
        assert_eq!(check(&[], &[]).absent().collect::<Vec<_>>(), Change::TRACED_KINDS);
    }
}
