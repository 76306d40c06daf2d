use super::*;

/// Two devices: one that sent four times, the second time unheard, and one that sent once.
fn sent() -> Everything {
    let log = |acknowledged: &[bool]| Log { transport: Transport::Mqtt, is_acknowledged: acknowledged.to_vec() };
    BTreeMap::from([("a".to_owned(), log(&[true, false, true, true])), ("b".to_owned(), log(&[true]))])
}

/// A partition with these bodies, each of the device that it names.
fn partition(bodies: &[&str]) -> Vec<Read> {
    let device = |body: &str| body.split(' ').next().unwrap_or_default().to_owned();
    let message = |(place, body): (usize, &&str)| Read {
        sequence: place as u64,
        offset: place as u64 * 9,
        device: device(body),
        body: (*body).to_owned(),
    };
    bodies.iter().enumerate().map(message).collect()
}

/// Partitions by their numbers.
fn partitions(all: impl IntoIterator<Item = Vec<Read>>) -> BTreeMap<u16, Vec<Read>> {
    (0..).zip(all).collect()
}

#[test]
fn whatever_is_wrong_with_the_log_is_found() {
    let cases: &[(&str, &[&[&str]], &[&str])] = &[
        ("all is well", &[&["a 0", "a 2", "b 0", "a 3"]], &[]),
        ("what was not acknowledged may be there", &[&["a 0", "a 1", "a 2", "a 3"], &["b 0"]], &[]),
        ("one is missing", &[&["a 0", "a 3", "b 0"]], &["\"a 2\" was acknowledged and is not there"]),
        ("a device is missing", &[&["a 0", "a 2", "a 3"]], &["\"b 0\" was acknowledged and is not there"]),
        (
            "one is there twice",
            &[&["a 0", "a 2", "a 2", "a 3", "b 0"]],
            &["\"a 2\" was sent once and is there 2 times"],
        ),
        (
            "one that was not acknowledged is there twice",
            &[&["a 0", "a 1", "a 1", "a 2", "a 3", "b 0"]],
            &["\"a 1\" was sent once and is there 2 times"],
        ),
        ("two are swapped", &[&["a 0", "a 3", "a 2", "b 0"]], &["a: what was sent at 2 stands behind 3"]),
        ("a device is in two partitions", &[&["a 0", "a 2"], &["a 3", "b 0"]], &["a is in the partitions 0 and 1"]),
        ("nobody sent it", &[&["a 0", "a 2", "a 3", "b 0", "b 7"]], &["b never sent \"b 7\""]),
        ("another device", &[&["a 0", "a 2", "a 3", "b 0", "c 0"]], &["\"c 0\" is of c, who sent nothing"]),
    ];
    for (name, bodies, problems) in cases {
        let read = partitions(bodies.iter().map(|bodies| partition(bodies)));
        assert_eq!(check(&sent(), &read).problems, *problems, "{name}");
    }
}

#[test]
fn what_is_there_and_was_not_acknowledged_is_counted_apart() {
    let found = check(&sent(), &partitions([partition(&["a 0", "a 1", "a 2", "a 3", "b 0"])]));
    assert_eq!(found.told(), "4 messages over MQTT; 1 unheard");
}

#[test]
fn places_that_do_not_rise_are_found() {
    let whole = || partition(&["a 0", "a 2", "a 3", "b 0"]);
    let cases: [(&str, fn(&mut Read)); 4] = [
        ("a number comes twice", |read| read.sequence = 0),
        ("a number falls", |read| read.sequence = 3),
        ("an offset comes twice", |read| read.offset = 0),
        ("an offset falls", |read| read.offset = 27),
    ];
    for (name, spoil) in cases {
        let mut messages = whole();
        spoil(&mut messages[1]);
        assert!(!check(&sent(), &partitions([messages])).problems.is_empty(), "{name}");
    }
    let mut foreign = whole();
    foreign[3].device = "a".to_owned();
    assert_eq!(check(&sent(), &partitions([foreign])).problems.len(), 2, "another device's body");
}
