//! What frames say, as the tables of the standard give it (part 2, sections 2.7 and 2.8; part 3, sections 3.4 and 3.5;
//! part 4, section 4.5.1; part 5, section 5.3.3): the composite types that the codec is held to.
//!
//! A list of fields becomes the same list with every field in it, in its own type, and with what its absence stands
//! for. Start at [`read`].

use crate::amqp_reference::Tree;

/// What a frame of a connection says.
pub const PERFORMATIVES: &[&str] =
    &["open", "begin", "attach", "flow", "transfer", "disposition", "detach", "end", "close"];

/// What a frame of a SASL exchange says.
pub const SASL_FRAMES: &[&str] = &["sasl-mechanisms", "sasl-init", "sasl-challenge", "sasl-response", "sasl-outcome"];

const STATES: &[&str] = &["received", "accepted", "rejected", "released", "modified"];

const NULL: Tree = Tree::Scalar("null", Vec::new());

/// Names, numbers and the types of the fields: `!` must be there, `=` says what null stands for, and `symbols` is one
/// of them or an array, `multiple` in the standard.
///
/// Five liberties: an address is a string, a terminus is as durable as it says, a list of mechanisms may be missing,
/// what `modified` leaves out is false, and strings and symbols stand for each other.
const COMPOSITES: &[(&str, u64, &str)] = &[
    ("open", 0x10, "string! string uint=max ushort=max uint symbols symbols symbols symbols map"),
    ("begin", 0x11, "ushort uint! uint! uint! uint=max symbols symbols map"),
    (
        "attach",
        0x12,
        "string! uint! boolean! sender-settle-mode=mixed receiver-settle-mode=first source target map boolean=false \
         uint ulong symbols symbols map",
    ),
    ("flow", 0x13, "uint uint! uint! uint! uint uint uint uint boolean=false boolean=false map"),
    (
        "transfer",
        0x14,
        "uint! uint binary uint boolean boolean=false receiver-settle-mode state boolean=false boolean=false \
         boolean=false",
    ),
    ("disposition", 0x15, "boolean! uint! uint boolean=false state boolean=false"),
    ("detach", 0x16, "uint! boolean=false error"),
    ("end", 0x17, "error"),
    ("close", 0x18, "error"),
    ("error", 0x1d, "symbol! string map"),
    ("received", 0x23, "uint! ulong!"),
    ("accepted", 0x24, ""),
    ("rejected", 0x25, "error"),
    ("released", 0x26, ""),
    ("modified", 0x27, "boolean=false boolean=false map"),
    ("source", 0x28, "string uint=0 symbol=session-end uint=0 boolean=false map symbol map state symbols symbols"),
    ("target", 0x29, "string uint=0 symbol=session-end uint=0 boolean=false map symbols"),
    ("coordinator", 0x30, "symbols"),
    ("sasl-mechanisms", 0x40, "symbols"),
    ("sasl-init", 0x41, "symbol! binary string"),
    ("sasl-challenge", 0x42, "binary!"),
    ("sasl-response", 0x43, "binary!"),
    ("sasl-outcome", 0x44, "sasl-code! binary"),
];

/// Reads one of the composite types in `allowed`; `None` where it has to be refused.
pub fn read(tree: &Tree, allowed: &[&str]) -> Option<Tree> {
    let Tree::Described(parts) = tree else { return None };
    let [descriptor, Tree::Many("list", given)] = &**parts else { return None };
    let &(_, code, fields) =
        COMPOSITES.iter().find(|(name, code, _)| allowed.contains(name) && describes(descriptor, name, *code))?;
    let mut given = given.iter();
    let fields = fields.split_whitespace().map(|field| read_field(field, given.next().unwrap_or(&NULL)));
    let fields = fields.collect::<Option<_>>()?;
    // Fields that the type does not have may be there, with nothing in them.
    let read =
        Tree::Described(Box::new([Tree::Scalar("ulong", code.to_be_bytes().into()), Tree::Many("list", fields)]));
    given.all(|extra| *extra == NULL).then_some(read)
}

fn describes(descriptor: &Tree, name: &str, code: u64) -> bool {
    match descriptor {
        Tree::Scalar("ulong", bytes) => *bytes == code.to_be_bytes(),
        Tree::Scalar("symbol", bytes) => *bytes == format!("amqp:{name}:list").into_bytes(),
        _ => false,
    }
}

fn read_field(field: &str, given: &Tree) -> Option<Tree> {
    if *given != NULL {
        return read_typed(field.split(['!', '=']).next()?, given);
    }
    if field.contains('=') { Some(absent(field)) } else { (!field.ends_with('!')).then_some(NULL) }
}

/// What null stands for.
///
/// # Panics
/// When the table names a default that is none.
fn absent(field: &str) -> Tree {
    match field {
        "boolean=false" => Tree::Scalar("boolean", vec![0]),
        "uint=0" => Tree::Scalar("uint", vec![0; 4]),
        "uint=max" => Tree::Scalar("uint", vec![0xff; 4]),
        "ushort=max" => Tree::Scalar("ushort", vec![0xff; 2]),
        "sender-settle-mode=mixed" => Tree::Scalar("ubyte", vec![2]),
        "receiver-settle-mode=first" => Tree::Scalar("ubyte", vec![0]),
        "symbol=session-end" => Tree::Scalar("symbol", b"session-end".into()),
        _ => panic!("{field} has no default"),
    }
}

fn read_typed(name: &str, given: &Tree) -> Option<Tree> {
    let choice =
        |most: u8| matches!(given, Tree::Scalar("ubyte", bytes) if *bytes <= vec![most]).then(|| given.clone());
    match (name, given) {
        ("string", Tree::Scalar("string" | "symbol", text)) => Some(Tree::Scalar("string", text.clone())),
        ("symbol", Tree::Scalar("string" | "symbol", text)) => {
            text.is_ascii().then(|| Tree::Scalar("symbol", text.clone()))
        }
        ("symbols", Tree::Many("array", symbols)) => match &**symbols {
            [] => Some(NULL),
            [Tree::Scalar("symbol", _), ..] => Some(given.clone()),
            _ => None,
        },
        ("symbols", symbol) => Some(Tree::Many("array", vec![read_typed("symbol", symbol)?])),
        ("map", Tree::Many("map", entries)) => Some(if entries.is_empty() { NULL } else { given.clone() }),
        ("sender-settle-mode", _) => choice(2),
        ("receiver-settle-mode", _) => choice(1),
        ("sasl-code", _) => choice(4),
        ("target", _) => read(given, &["target", "coordinator"]),
        ("source" | "error", _) => read(given, &[name]),
        ("state", Tree::Described(parts)) => {
            let [descriptor, _] = &**parts;
            let is_known =
                COMPOSITES.iter().any(|(state, code, _)| STATES.contains(state) && describes(descriptor, state, *code));
            // States of other parts of the standard are passed on as they came.
            if is_known { read(given, STATES) } else { Some(given.clone()) }
        }
        (_, Tree::Scalar(given_name, _)) => (*given_name == name).then(|| given.clone()),
        _ => None,
    }
}
