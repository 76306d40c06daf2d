//! Where messages of a link come from and go to (part 3, section 3.5; part 4, section 4.5.1).

use super::composite::{Composite, Scalar, composite};
use super::decode::{Fault, Malformed, Reader};
use super::descriptor;
use super::state::DeliveryState;
use super::text::{Symbol, Text};
use super::value::Map;

/// What `expiry-policy` is when it is absent: the terminus ends with its session (part 3, section 3.5.6).
const SESSION_END: Symbol = Symbol::from_static("session-end");

composite! {
    /// Where messages come from (part 3, section 3.5.3).
    Source = descriptor::SOURCE {
        /// Names the node.
        address: Option<Text>,
        /// What survives at the node: 0 nothing, 1 configuration, 2 unsettled deliveries too.
        durable: u32 = 0,
        /// When the terminus begins to expire.
        expiry_policy: Symbol = SESSION_END,
        /// How long it then takes, in seconds.
        timeout: u32 = 0,
        /// Whether the node is to be made by the peer.
        dynamic: bool = false,
        /// What such a node is to be like.
        dynamic_node_properties: Map,
        /// `move` or `copy`.
        distribution_mode: Option<Symbol>,
        /// Which messages, by names of the filter sets.
        filter: Map,
        /// The outcome of deliveries that get none.
        default_outcome: Option<Box<DeliveryState>>,
        /// Outcomes that may be told.
        outcomes: Vec<Symbol>,
        /// Extensions.
        capabilities: Vec<Symbol>,
    }
}

impl Default for Source {
    fn default() -> Self {
        Self {
            address: None,
            durable: 0,
            expiry_policy: SESSION_END,
            timeout: 0,
            dynamic: false,
            dynamic_node_properties: Map::EMPTY,
            distribution_mode: None,
            filter: Map::EMPTY,
            default_outcome: None,
            outcomes: Vec::new(),
            capabilities: Vec::new(),
        }
    }
}

impl Source {
    /// A source that has an address and nothing else.
    pub fn at(address: impl Into<Text>) -> Self {
        Self { address: Some(address.into()), ..Self::default() }
    }
}

composite! {
    /// Where messages go to (part 3, section 3.5.4).
    Target = descriptor::TARGET {
        /// Names the node.
        address: Option<Text>,
        /// What survives at the node: 0 nothing, 1 configuration, 2 unsettled deliveries too.
        durable: u32 = 0,
        /// When the terminus begins to expire.
        expiry_policy: Symbol = SESSION_END,
        /// How long it then takes, in seconds.
        timeout: u32 = 0,
        /// Whether the node is to be made by the peer.
        dynamic: bool = false,
        /// What such a node is to be like.
        dynamic_node_properties: Map,
        /// Extensions.
        capabilities: Vec<Symbol>,
    }
}

impl Default for Target {
    fn default() -> Self {
        Self {
            address: None,
            durable: 0,
            expiry_policy: SESSION_END,
            timeout: 0,
            dynamic: false,
            dynamic_node_properties: Map::EMPTY,
            capabilities: Vec::new(),
        }
    }
}

impl Target {
    /// A target that has an address and nothing else.
    pub fn at(address: impl Into<Text>) -> Self {
        Self { address: Some(address.into()), ..Self::default() }
    }
}

composite! {
    /// A coordinator of transactions in place of a target (part 4, section 4.5.1).
    Coordinator = descriptor::COORDINATOR {
        /// What transactions are to be like.
        capabilities: Vec<Symbol>,
    }
}

/// What an attach has in the place of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum AttachTarget {
    /// A node.
    Node(Target),
    /// A coordinator of transactions.
    Coordinator(Coordinator),
}

impl AttachTarget {
    /// The node, unless it is a coordinator.
    pub const fn node(&self) -> Option<&Target> {
        match self {
            Self::Node(target) => Some(target),
            Self::Coordinator(_) => None,
        }
    }
}

impl From<Target> for AttachTarget {
    fn from(target: Target) -> Self {
        Self::Node(target)
    }
}

impl Scalar for AttachTarget {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        const EXPECTED: &str = "target";

        if code != 0x00 {
            return Err(reader.wrong_type(EXPECTED, code));
        }
        let offset = reader.offset();
        match reader.descriptor()? {
            Some(descriptor::TARGET) => Target::read_list(reader).map(Self::Node),
            Some(descriptor::COORDINATOR) => Coordinator::read_list(reader).map(Self::Coordinator),
            _ => Err(Malformed { offset, fault: Fault::Descriptor { expected: EXPECTED } }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Node(target) => Composite::write(target, out),
            Self::Coordinator(coordinator) => Composite::write(coordinator, out),
        }
    }
}
