//! AMQP 1.0's type system as the tables of the standard give it (part 1, sections 1.2 to 1.6): a second reader, naive
//! and slow, that the codec is held to.
//!
//! It shares nothing with the codec but two bounds and the liberties named here. Every form of a value is a row of
//! [`CONSTRUCTORS`]; what is read is a tree of type names and bytes, in which the form does not show. Start at [`read`].

use proto::amqp::{DEPTH_MAX, VALUES_MAX};

/// A value, whatever form it was written in.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A primitive type and the value's bytes, in the longest form of the type.
    Scalar(&'static str, Vec<u8>),
    /// A list, an array, or a map as keys and values by turns.
    Many(&'static str, Vec<Tree>),
    /// A descriptor, and what it describes.
    Described(Box<[Tree; 2]>),
}

/// What follows a format code (part 1, section 1.2). Widths are in bytes.
#[derive(Clone, Copy)]
enum Layout {
    /// Nothing: the code says it all, and this is the value.
    Implied(&'static [u8]),
    /// The value in so many bytes.
    Fixed(usize),
    /// One byte of so many, those before it being 0.
    Unsigned(usize),
    /// One byte of so many, those before it repeating its sign.
    Signed(usize),
    /// A length of this width, then the value.
    Variable(usize),
    /// A size and a count of this width, then values. Of width 0: none.
    Compound(usize),
    /// A size and a count of this width, a constructor, then values without theirs.
    Array(usize),
}

use Layout::{Array, Compound, Fixed, Implied, Signed, Unsigned, Variable};

/// Part 1, sections 1.6.1 to 1.6.24, row by row.
const CONSTRUCTORS: &[(u8, &str, Layout)] = &[
    (0x40, "null", Implied(&[])),
    (0x56, "boolean", Fixed(1)),
    (0x41, "boolean", Implied(&[1])),
    (0x42, "boolean", Implied(&[0])),
    (0x50, "ubyte", Fixed(1)),
    (0x60, "ushort", Fixed(2)),
    (0x70, "uint", Fixed(4)),
    (0x52, "uint", Unsigned(4)),
    (0x43, "uint", Implied(&[0; 4])),
    (0x80, "ulong", Fixed(8)),
    (0x53, "ulong", Unsigned(8)),
    (0x44, "ulong", Implied(&[0; 8])),
    (0x51, "byte", Fixed(1)),
    (0x61, "short", Fixed(2)),
    (0x71, "int", Fixed(4)),
    (0x54, "int", Signed(4)),
    (0x81, "long", Fixed(8)),
    (0x55, "long", Signed(8)),
    (0x72, "float", Fixed(4)),
    (0x82, "double", Fixed(8)),
    (0x74, "decimal32", Fixed(4)),
    (0x84, "decimal64", Fixed(8)),
    (0x94, "decimal128", Fixed(16)),
    (0x73, "char", Fixed(4)),
    (0x83, "timestamp", Fixed(8)),
    (0x98, "uuid", Fixed(16)),
    (0xa0, "binary", Variable(1)),
    (0xb0, "binary", Variable(4)),
    (0xa1, "string", Variable(1)),
    (0xb1, "string", Variable(4)),
    (0xa3, "symbol", Variable(1)),
    (0xb3, "symbol", Variable(4)),
    (0x45, "list", Compound(0)),
    (0xc0, "list", Compound(1)),
    (0xd0, "list", Compound(4)),
    (0xc1, "map", Compound(1)),
    (0xd1, "map", Compound(4)),
    (0xe0, "array", Array(1)),
    (0xf0, "array", Array(4)),
];

/// Reads one value that fills `input`; `None` where it has to be refused.
pub fn read(input: &[u8]) -> Option<Tree> {
    let (tree, rest) = read_first(input, DEPTH_MAX, VALUES_MAX)?;
    rest.is_empty().then_some(tree)
}

/// Reads the value that `input` begins with, nested `depth_max` deep and of `values_max` values at most. Gives what
/// follows it, too.
///
/// What describes the elements of an array counts once where it stands, and again with every element.
pub fn read_first(input: &[u8], depth_max: usize, values_max: usize) -> Option<(Tree, &[u8])> {
    let mut reading = Reading { rest: input, values_left: values_max };
    let tree = reading.value(depth_max)?;
    Some((tree, reading.rest))
}

struct Reading<'a> {
    rest: &'a [u8],
    values_left: usize,
}

/// Descriptors, the outermost first, and the format code and the row of what they describe.
struct Constructor {
    descriptors: Vec<Tree>,
    name: &'static str,
    layout: Layout,
}

impl<'a> Reading<'a> {
    fn value(&mut self, depth_left: usize) -> Option<Tree> {
        let constructor = self.constructor(depth_left)?;
        self.constructed(&constructor, depth_left)
    }

    fn constructor(&mut self, depth_left: usize) -> Option<Constructor> {
        let mut descriptors = Vec::new();
        loop {
            let code = self.number(1)?;
            if code != 0 {
                let &(_, name, layout) = CONSTRUCTORS.iter().find(|row| usize::from(row.0) == code)?;
                return Some(Constructor { descriptors, name, layout });
            }
            self.spend(1)?;
            descriptors.push(self.value(depth_left.checked_sub(descriptors.len() + 1)?)?);
        }
    }

    /// What follows a constructor, and belongs to it.
    fn constructed(&mut self, constructor: &Constructor, depth_left: usize) -> Option<Tree> {
        let Constructor { descriptors, name, layout } = constructor;
        self.spend(1)?;
        let tree = match *layout {
            Compound(width) | Array(width) => self.many(name, width, depth_left.checked_sub(descriptors.len() + 1)?)?,
            _ => self.scalar(name, *layout)?,
        };
        let describe = |tree, descriptor: &Tree| Tree::Described(Box::new([descriptor.clone(), tree]));
        Some(descriptors.iter().rev().fold(tree, describe))
    }

    fn scalar(&mut self, name: &'static str, layout: Layout) -> Option<Tree> {
        let bytes = match layout {
            Implied(value) => value.to_vec(),
            Fixed(width) => self.take(width)?.to_vec(),
            Unsigned(width) => self.extended(width, false)?,
            Signed(width) => self.extended(width, true)?,
            Variable(width) => {
                let length = self.number(width)?;
                self.take(length)?.to_vec()
            }
            Compound(_) | Array(_) => return None,
        };
        is_legal(name, &bytes).then_some(Tree::Scalar(name, bytes))
    }

    fn extended(&mut self, width: usize, is_signed: bool) -> Option<Vec<u8>> {
        let &[byte] = self.take(1)? else { return None };
        let mut bytes = vec![if is_signed && byte >= 0x80 { 0xff } else { 0 }; width];
        *bytes.last_mut()? = byte;
        Some(bytes)
    }

    fn many(&mut self, name: &'static str, width: usize, depth_left: usize) -> Option<Tree> {
        let size = self.number(width)?;
        let inside = self.take(size)?;
        let after = std::mem::replace(&mut self.rest, inside);
        let count = self.number(width)?;
        let trees = match name {
            "array" => self.elements(count, depth_left)?,
            _ => (0..count).map(|_| self.value(depth_left)).collect::<Option<_>>()?,
        };
        if !self.rest.is_empty() || (name == "map" && count % 2 == 1) {
            return None;
        }
        self.rest = after;
        Some(Tree::Many(name, trees))
    }

    fn elements(&mut self, count: usize, depth_left: usize) -> Option<Vec<Tree>> {
        // A liberty: some peers leave the constructor of an empty array out.
        if count == 0 && self.rest.is_empty() {
            return Some(Vec::new());
        }
        let constructor = self.constructor(depth_left)?;
        let described = constructor.descriptors.iter().map(|descriptor| 1 + values(descriptor)).sum();
        let element = |_| {
            self.spend(described)?;
            self.constructed(&constructor, depth_left)
        };
        (0..count).map(element).collect()
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, &byte| number * 256 + usize::from(byte)))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn spend(&mut self, values: usize) -> Option<()> {
        self.values_left = self.values_left.checked_sub(values)?;
        Some(())
    }
}

/// Whether a type has such a value (part 1, sections 1.6.2, 1.6.16, 1.6.20 and 1.6.21).
fn is_legal(name: &str, bytes: &[u8]) -> bool {
    match (name, bytes) {
        ("boolean", bytes) => matches!(bytes, [0 | 1]),
        // The surrogates are no characters, nor is what lies beyond the planes.
        ("char", bytes) => matches!(bytes, [0, 0, 0..0xd8 | 0xe0.., _] | [0, 1..=0x10, _, _]),
        ("string", bytes) => std::str::from_utf8(bytes).is_ok(),
        ("symbol", bytes) => bytes.iter().all(|byte| *byte < 0x80),
        _ => true,
    }
}

/// How many values a tree holds, itself, descriptors and keys counted.
pub fn values(tree: &Tree) -> usize {
    1 + match tree {
        Tree::Scalar(..) => 0,
        Tree::Many(_, trees) => trees.iter().map(values).sum(),
        Tree::Described(parts) => parts.iter().map(values).sum(),
    }
}
