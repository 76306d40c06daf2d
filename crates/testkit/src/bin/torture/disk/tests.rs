use std::fs;

use super::*;
use crate::trace::OpenFlags;

const ROOT: &str = "/outside/d";
const A: &str = "/outside/d/a";
const B: &str = "/outside/d/b";

/// A script of calls on a folder that is there, each of which begins when the one before it is over.
fn disk(calls: Vec<Call>) -> Disk {
    script([vec![Call::MakeFolder { path: ROOT.to_owned() }, sync("/outside")], calls].concat())
}

fn script(calls: Vec<Call>) -> Disk {
    let mut disk = Disk::new(Path::new(ROOT)).unwrap();
    for (at, call) in (0..).step_by(10).zip(calls) {
        disk.apply(&Event { began_at: at, ended_at: at + 5, call }).unwrap();
    }
    disk
}

fn open(path: &str) -> Call {
    Call::Open { path: path.to_owned(), descriptor: 3, flags: OpenFlags { create: true, ..OpenFlags::default() } }
}

fn write(path: &str, offset: u64, text: &str) -> Call {
    let bytes = text.as_bytes().to_vec();
    Call::Write { path: path.to_owned(), descriptor: 3, offset: Some(offset), bytes }
}

fn append(path: &str, text: &str) -> Call {
    Call::Write { path: path.to_owned(), descriptor: 3, offset: None, bytes: text.as_bytes().to_vec() }
}

fn sync(path: &str) -> Call {
    Call::Sync { path: path.to_owned() }
}

fn remains(disk: &Disk, cut: Cut) -> Vec<(String, String)> {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("remains");
    disk.write_remains(&target, cut).unwrap();
    let mut found: Vec<(String, String)> = fs::read_dir(target)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn only_what_was_synced_is_left() {
    type Case<'a> = (&'a str, Vec<Call>, &'a [(&'a str, &'a str)]);
    let rename = || Call::Rename { from: A.to_owned(), to: B.to_owned() };
    let remove = || Call::Remove { path: A.to_owned() };
    let truncate = |length| Call::Truncate { path: A.to_owned(), length };
    let cases: Vec<Case<'_>> = vec![
        ("nothing synced", vec![open(A), write(A, 0, "text")], &[]),
        ("a name that was not synced", vec![open(A), write(A, 0, "text"), sync(A)], &[]),
        ("content that was not synced", vec![open(A), write(A, 0, "text"), sync(ROOT)], &[("a", "")]),
        ("both synced", vec![open(A), write(A, 0, "text"), sync(A), sync(ROOT)], &[("a", "text")]),
        (
            "written after the sync",
            vec![open(A), write(A, 0, "text"), sync(A), sync(ROOT), write(A, 2, "st")],
            &[("a", "text")],
        ),
        (
            "written where the descriptor stands",
            vec![open(A), append(A, "te"), append(A, "xt"), sync(A), sync(ROOT)],
            &[("a", "text")],
        ),
        (
            "a rename that was not synced",
            vec![open(A), write(A, 0, "text"), sync(A), sync(ROOT), rename()],
            &[("a", "text")],
        ),
        ("a rename that was", vec![open(A), write(A, 0, "text"), sync(A), rename(), sync(ROOT)], &[("b", "text")]),
        ("a removal that was not synced", vec![open(A), sync(ROOT), remove()], &[("a", "")]),
        ("a removal that was", vec![open(A), sync(ROOT), remove(), sync(ROOT)], &[]),
        (
            "shortened and not synced",
            vec![open(A), write(A, 0, "text"), sync(A), sync(ROOT), truncate(1)],
            &[("a", "text")],
        ),
        ("shortened and synced", vec![open(A), write(A, 0, "text"), truncate(1), sync(A), sync(ROOT)], &[("a", "t")]),
    ];
    for (name, calls, expected) in cases {
        let found = remains(&disk(calls), Cut::Clean);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_folder_that_was_not_synced_takes_everything_along() {
    let calls = vec![Call::MakeFolder { path: ROOT.to_owned() }, open(A), write(A, 0, "text"), sync(A), sync(ROOT)];
    let place = tempfile::tempdir().unwrap();
    script(calls).write_remains(&place.path().join("remains"), Cut::Clean).unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_sync_covers_the_writes_that_were_over_when_it_began() {
    let mut disk = disk(vec![open(A), sync(ROOT), write(A, 0, "before")]);
    let during = write(A, 6, "during");
    disk.apply(&Event { began_at: 100, ended_at: 120, call: during }).unwrap();
    disk.apply(&Event { began_at: 110, ended_at: 130, call: sync(A) }).unwrap();
    assert_eq!(remains(&disk, Cut::Clean), [("a".to_owned(), "before".to_owned())]);
}

#[test]
fn a_torn_cut_keeps_some_sectors_and_never_touches_what_was_synced() {
    let sector = SECTOR_BYTES as usize;
    let (old, fresh) = ("o".repeat(8 * sector), "f".repeat(7 * sector));
    let disk = disk(vec![open(A), write(A, 0, &old), sync(A), sync(ROOT), write(A, SECTOR_BYTES, &fresh)]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let content = remains(&disk, Cut::Torn(seed)).remove(0).1;
        let sectors: Vec<&str> =
            content.as_bytes().chunks(sector).map(|sector| std::str::from_utf8(sector).unwrap()).collect();
        assert_eq!(sectors.len(), 8, "{seed}");
        assert!(sectors[0].chars().all(|c| c == 'o'), "{seed}");
        assert!(sectors.iter().all(|text| text.chars().all(|c| c == 'o') || text.chars().all(|c| c == 'f')), "{seed}");
        seen.insert(content);
    }
    assert!(seen.len() > 10, "chance keeps different sectors");
}
