//! Lists of blocks, as storage clients write and read them in XML.
//!
//! Read event by event: a document has two levels, one kind of root and a bounded number of entries, and nothing in it
//! refers to anything. Start at [`decode`].

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::file::{BLOCKS_MAX, BlockId, BlockSource};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Most bytes of a list: an entry names its kind twice, and a block by up to 88 characters of base64.
pub const BYTES_MAX: usize = BLOCKS_MAX * 128;

/// Why a document is no list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlockList {
    /// Not XML, or XML of another shape.
    #[error("the body is not a BlockList in XML")]
    Shape,
    /// Too many entries.
    #[error("the list has more than {BLOCKS_MAX} blocks")]
    TooMany,
    /// An entry that names no block.
    #[error("a block's name is not base64 of 1 to {} bytes", BlockId::BYTES_MAX)]
    Name,
}

/// Reads a list.
pub fn decode(bytes: &[u8]) -> Result<Vec<(BlockId, BlockSource)>, InvalidBlockList> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidBlockList::Shape)?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let (mut blocks, mut inside, mut entry) = (Vec::new(), Inside::Nothing, None);
    loop {
        let event = reader.read_event().map_err(|_| InvalidBlockList::Shape)?;
        inside = match (event, inside) {
            (Event::Decl(_) | Event::Comment(_), inside) => inside,
            (Event::Start(start), Inside::Nothing) if start.name().as_ref() == "BlockList" => Inside::List,
            (Event::Empty(start), Inside::Nothing) if start.name().as_ref() == "BlockList" => Inside::End,
            (Event::Start(start), Inside::List) => {
                if blocks.len() >= BLOCKS_MAX {
                    return Err(InvalidBlockList::TooMany);
                }
                entry = Some((source_of(&start)?, String::new()));
                Inside::Entry
            }
            (Event::Text(text), Inside::Entry) => {
                let (_, name) = entry.as_mut().ok_or(InvalidBlockList::Shape)?;
                name.push_str(&text);
                Inside::Entry
            }
            (Event::Text(text), inside) if text.trim().is_empty() => inside,
            (Event::End(_), Inside::Entry) => {
                let (source, name) = entry.take().ok_or(InvalidBlockList::Shape)?;
                blocks.push((parse_name(name.trim()).ok_or(InvalidBlockList::Name)?, source));
                Inside::List
            }
            (Event::End(_), Inside::List) => Inside::End,
            (Event::Eof, Inside::End) => return Ok(blocks),
            _ => return Err(InvalidBlockList::Shape),
        };
    }
}

/// What the reader is inside of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    List,
    Entry,
    End,
}

fn source_of(start: &BytesStart<'_>) -> Result<BlockSource, InvalidBlockList> {
    Ok(match start.name().as_ref() {
        "Committed" => BlockSource::Committed,
        "Uncommitted" => BlockSource::Uncommitted,
        "Latest" => BlockSource::Latest,
        _ => return Err(InvalidBlockList::Shape),
    })
}

/// A block's name as clients write it: base64.
pub fn parse_name(text: &str) -> Option<BlockId> {
    BlockId::from_bytes(&STANDARD.decode(text).ok()?)
}

/// Writes the blocks of an upload that no file is made of, with their lengths.
pub fn encode(uncommitted: &[(BlockId, u64)]) -> String {
    let mut text =
        String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><CommittedBlocks /><UncommittedBlocks>");
    for (block, bytes) in uncommitted {
        let name = STANDARD.encode(block.bytes());
        let _ = write!(text, "<Block><Name>{name}</Name><Size>{bytes}</Size></Block>");
    }
    text.push_str("</UncommittedBlocks></BlockList>");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> BlockId {
        BlockId::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn lists_of_every_client_are_read() {
        let head = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
        let python = format!("{head}<BlockList><Latest>YjE=</Latest><Latest>YjI=</Latest></BlockList>");
        let node =
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><BlockList><Latest>YjE=</Latest></BlockList>";
        let spaced =
            format!("\u{feff}{head}<BlockList>\r\n  <Committed>\n YjE= </Committed>\r\n <!-- c --> </BlockList>\n");
        let cases: &[(&str, &str, Vec<(BlockId, BlockSource)>)] = &[
            ("Python", &python, vec![(block("b1"), BlockSource::Latest), (block("b2"), BlockSource::Latest)]),
            ("Node", node, vec![(block("b1"), BlockSource::Latest)]),
            ("with blanks", &spaced, vec![(block("b1"), BlockSource::Committed)]),
            ("nothing in it", "<BlockList></BlockList>", vec![]),
            ("nothing in it, in short", "<BlockList/>", vec![]),
            (
                "the same twice",
                "<BlockList><Uncommitted>YjE=</Uncommitted><Latest>YjE=</Latest></BlockList>",
                vec![(block("b1"), BlockSource::Uncommitted), (block("b1"), BlockSource::Latest)],
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(decode(text.as_bytes()).as_ref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        use InvalidBlockList::{Name, Shape, TooMany};

        let many = format!("<BlockList>{}</BlockList>", "<Latest>YjE=</Latest>".repeat(BLOCKS_MAX + 1));
        let long = format!("<BlockList><Latest>{}</Latest></BlockList>", STANDARD.encode([0; 65]));
        let deep = "<BlockList>".repeat(10_000);
        let bomb = "<!DOCTYPE a [<!ENTITY b \"YjE=\">]><BlockList><Latest>&b;</Latest></BlockList>";
        let cases: &[(&str, &str, InvalidBlockList)] = &[
            ("nothing", "", Shape),
            ("no XML", "{}", Shape),
            ("text before it", "x<BlockList/>", Shape),
            ("another root", "<Blocks/>", Shape),
            ("two roots", "<BlockList/><BlockList/>", Shape),
            ("more behind it", "<BlockList/>x", Shape),
            ("cut short", "<BlockList><Latest>YjE=", Shape),
            ("ends that do not meet", "<BlockList><Latest>YjE=</Committed></BlockList>", Shape),
            ("another kind of entry", "<BlockList><Newest>YjE=</Newest></BlockList>", Shape),
            ("an entry in an entry", "<BlockList><Latest><Latest>YjE=</Latest></Latest></BlockList>", Shape),
            ("very deep", &deep, Shape),
            ("definitions", bomb, Shape),
            ("a reference", "<BlockList><Latest>Yj&#69;=</Latest></BlockList>", Shape),
            ("unread text", "<BlockList><Latest><![CDATA[YjE=]]></Latest></BlockList>", Shape),
            ("an empty name", "<BlockList><Latest></Latest></BlockList>", Name),
            ("a name in short", "<BlockList><Latest/></BlockList>", Shape),
            ("no base64", "<BlockList><Latest>b1!</Latest></BlockList>", Name),
            ("a long name", &long, Name),
            ("too many", &many, TooMany),
        ];
        for (name, text, expected) in cases {
            assert_eq!(decode(text.as_bytes()), Err(*expected), "{name}");
        }
    }

    #[test]
    fn what_waits_is_shown() {
        let shown = encode(&[(block("b1"), 7)]);
        assert!(
            shown.ends_with(
                "<UncommittedBlocks><Block><Name>YjE=</Name><Size>7</Size></Block></UncommittedBlocks></BlockList>"
            ),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
