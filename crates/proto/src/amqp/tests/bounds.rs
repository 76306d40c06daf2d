//! What announces more than is there, or more than is taken.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn fault(bytes: &str) -> Fault {
    Value::decode(&hex(bytes)).unwrap_err().fault
}

#[test]
fn a_count_that_lies_is_refused_before_anything_is_allocated() {
    let cases: &[(&str, &str, Fault)] = &[
        ("four billion nulls in no bytes", "f0 00000005 ffffffff 40", Fault::TooManyValues),
        ("four billion empty lists in no bytes", "f0 00000005 ffffffff 45", Fault::TooManyValues),
        ("four billion described nulls", "f0 00000007 ffffffff 00 43 40", Fault::TooManyValues),
        ("one null more than the most", "f0 00000005 00004000 40", Fault::TooManyValues),
        ("a list that has fewer bytes than elements", "d0 00000005 ffffffff 40", Fault::Truncated),
        ("a map that has fewer bytes than elements", "d1 00000005 00000004 40", Fault::Truncated),
        ("an array longer than the input", "f0 ffffffff 00000001 50 01", Fault::Truncated),
        ("an array of bytes that are not there", "e0 03 02 50 01", Fault::Truncated),
        ("a binary longer than the input", "b0 ffffffff 61", Fault::Truncated),
        ("a string longer than its list", "c0 04 01 a1 05 61 6161616161", Fault::Truncated),
        ("a list with bytes left over", "c0 03 01 40 40", Fault::Trailing),
        ("a list whose size leaves no place for its count", "c0 00", Fault::Truncated),
        ("an array without a constructor", "e0 01 01", Fault::Truncated),
        ("two values", "40 40", Fault::Trailing),
        ("nothing", "", Fault::Truncated),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(fault(bytes), *expected, "{name}");
    }
}

#[test]
fn a_value_that_is_none_is_refused() {
    let cases: &[(&str, &str, Fault)] = &[
        ("a format code of no type", "3f", Fault::FormatCode(0x3f)),
        ("an array of no type", "e0 03 01 3f 00", Fault::FormatCode(0x3f)),
        ("an empty array of no type", "e0 02 00 3f", Fault::FormatCode(0x3f)),
        ("an empty array of no type, described", "e0 04 00 00 43 04", Fault::FormatCode(0x04)),
        ("half a character", "a1 01 c3", Fault::NotText),
        ("a symbol beyond ASCII", "a3 02 c3a4", Fault::NotText),
        ("a surrogate", "73 0000d800", Fault::NotChar(0xd800)),
        ("a boolean of 2", "56 02", Fault::NotBoolean(2)),
        ("a key without a value", "c1 02 01 40", Fault::OddMap),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(fault(bytes), *expected, "{name}");
    }
}

#[test]
fn a_descriptor_counts_with_every_element_that_has_it() {
    const NULLS: usize = 1000;

    // Each element is one value for being described, one for the list, one for each null in it, and one for itself.
    let most = (VALUES_MAX - 1 - (NULLS + 2)) / (NULLS + 3);
    let array = |count: usize| -> Bytes {
        let nulls = [&[0xd0][..], &(NULLS as u32 + 4).to_be_bytes(), &(NULLS as u32).to_be_bytes(), &[0x40; NULLS]];
        let constructor = [&[0x00][..], &nulls.concat(), &[0x40]].concat();
        let size = constructor.len() as u32 + 4;
        [&[0xf0][..], &size.to_be_bytes(), &(count as u32).to_be_bytes(), &constructor].concat().into()
    };
    assert!(Value::decode(&array(most)).is_ok());
    assert_eq!(Value::decode(&array(most + 1)).unwrap_err().fault, Fault::TooManyValues);
}

#[test]
fn values_are_nested_only_so_deep() {
    let nested = |depth: usize, open: &[u8]| -> Bytes { [open.repeat(depth), vec![0x40]].concat().into() };
    let lists = |depth: usize| {
        let mut value = Value::Null;
        for _ in 0..depth {
            value = Value::List(vec![value]);
        }
        encoded_value(&value)
    };
    assert!(Value::decode(&lists(DEPTH_MAX)).is_ok());
    assert_eq!(Value::decode(&lists(DEPTH_MAX + 1)).unwrap_err().fault, Fault::TooDeep);
    assert!(Value::decode(&nested(DEPTH_MAX, &[0x00, 0x43])).is_ok());
    for open in [&[0x00, 0x43][..], &[0x00]] {
        assert_eq!(Value::decode(&nested(100_000, open)).unwrap_err().fault, Fault::TooDeep);
    }
    for empty in [&[0x45][..], &[0xc0, 1, 0], &[0xd0, 0, 0, 0, 4, 0, 0, 0, 0]] {
        let described = |depth: usize| -> Bytes { [[0x00, 0x43].repeat(depth), empty.to_vec()].concat().into() };
        assert!(Value::decode(&described(DEPTH_MAX - 1)).is_ok());
        assert_eq!(Value::decode(&described(DEPTH_MAX)).unwrap_err().fault, Fault::TooDeep, "in every form");
    }
    let arrays: Bytes = [vec![0xf0, 0, 0, 0xff, 0xff, 0, 0, 0, 1], vec![0x00; 0xffff]].concat().into();
    assert_eq!(Value::decode(&arrays).unwrap_err().fault, Fault::TooDeep, "descriptors of an array's constructor");
}

#[test]
fn a_performative_that_is_none_says_what_is_wrong() {
    let cases: &[(&str, &str, Malformed)] = &[
        ("no description", "40", Malformed { offset: 0, fault: Fault::Descriptor { expected: "performative" } }),
        ("a section", "005370 45", Malformed { offset: 0, fault: Fault::Descriptor { expected: "performative" } }),
        ("no container", "005310 45", Malformed { offset: 4, fault: Fault::Missing("container_id") }),
        (
            "a map for a list",
            "005317 c1 01 00",
            Malformed { offset: 4, fault: Fault::Type { expected: "list", code: 0xc1 } },
        ),
        (
            "a handle of text",
            "005316 c0 04 01 a1 01 61",
            Malformed { offset: 7, fault: Fault::Type { expected: "uint", code: 0xa1 } },
        ),
        ("a field too many", "005317 c0 03 02 40 41", Malformed { offset: 8, fault: Fault::ExtraField }),
        (
            "a settle mode of 3",
            "005312 c0 0a 04 a1 01 6c 43 41 50 03 0000",
            Malformed { offset: 13, fault: Fault::Choice { expected: "SenderSettleMode", value: 3 } },
        ),
        (
            "symbols of no type, none of them",
            "005311 c0 0a 06 40 43 43 43 40 e0 02 00 3f",
            Malformed { offset: 15, fault: Fault::FormatCode(0x3f) },
        ),
        (
            "an error that is a source",
            "005317 c0 05 01 005328 45",
            Malformed { offset: 7, fault: Fault::Descriptor { expected: "Error" } },
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(Performative::decode(&hex(bytes)).unwrap_err(), *expected, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = (Value::decode(&bytes), Performative::decode(&bytes), SaslFrame::decode(&bytes), Message::decode(&bytes));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        sample in samples::performative(),
        message in samples::message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for bytes in [encoded(&sample), message.to_bytes()] {
            let mut bytes = bytes.to_vec();
            for (index, byte) in &changes {
                if !bytes.is_empty() {
                    let index = index.index(bytes.len());
                    bytes[index] = *byte;
                }
            }
            let bytes = Bytes::from(bytes);
            if let Ok((performative, _)) = Performative::decode(&bytes) {
                let again = encoded(&performative);
                prop_assert_eq!(encoded(&super::performative(&again)), again);
            }
            let _ = Message::decode(&bytes);
        }
    }
}
