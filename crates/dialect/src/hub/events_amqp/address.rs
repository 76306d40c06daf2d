//! Which node of the Event Hubs-compatible endpoint an address names (`contract/eventhub-endpoint.md 5`, `6.1` and `8`).
//! Start at [`Node::read`].

use domain::operation::events::MANAGEMENT;
use percent_encoding::percent_decode_str;

use crate::amqp::Address;

/// A node, by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Tells what the event hub is.
    Management,
    /// What the hub itself calls its telemetry: whoever asks for it is told where to ask.
    Elsewhere {
        /// What stands behind `messages/events/`.
        rest: String,
    },
    /// A partition, as a consumer group reads it.
    Partition {
        /// The name of the event hub.
        name: String,
        /// The consumer group.
        group: String,
        /// The partition, as written.
        partition: String,
    },
}

impl Node {
    /// Takes `address` apart; `None` if it names none of these. Keywords count in any letter case.
    pub fn read(address: &Address) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = address.path().trim_matches('/').split('/').map(decode).collect();
        let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
        match segments.as_slice() {
            [first, second, rest @ ..] if is(first, "messages") && is(second, "events") => {
                Some(Self::Elsewhere { rest: rest.join("/") })
            }
            [word] | [_, word] if is(word, MANAGEMENT) => Some(Self::Management),
            [name, groups, group, partitions, partition]
                if is(groups, "ConsumerGroups") && is(partitions, "Partitions") =>
            {
                let (name, group, partition) = (name.clone(), group.clone(), partition.clone());
                Some(Self::Partition { name, group, partition })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(name: &str, group: &str, partition: &str) -> Node {
        let (name, group, partition) = (name.to_owned(), group.to_owned(), partition.to_owned());
        Node::Partition { name, group, partition }
    }

    #[test]
    fn every_clients_form_is_read() {
        let cases = [
            (
                "Python",
                "amqps://127.0.0.2/hub/ConsumerGroups/$Default/Partitions/3",
                Some(partition("hub", "$Default", "3")),
            ),
            (
                "with a port",
                "amqps://127.0.0.2:5671/hub/ConsumerGroups/a/Partitions/0",
                Some(partition("hub", "a", "0")),
            ),
            ("Node", "hub/ConsumerGroups/$default/Partitions/0", Some(partition("hub", "$default", "0"))),
            ("lower case", "hub/consumergroups/%24Default/partitions/0", Some(partition("hub", "$Default", "0"))),
            ("a slash before", "/hub/ConsumerGroups/g/Partitions/0", Some(partition("hub", "g", "0"))),
            ("management", "$management", Some(Node::Management)),
            ("management of a name", "hub/$management", Some(Node::Management)),
            ("the hub", "amqps://h/messages/events/$management", Some(Node::Elsewhere { rest: "$management".into() })),
            ("the hub, bare", "/messages/events", Some(Node::Elsewhere { rest: String::new() })),
            ("a device", "/devices/d/messages/events", None),
            ("a producer", "hub", None),
            ("a group alone", "hub/ConsumerGroups/g", None),
            ("more behind it", "hub/ConsumerGroups/g/Partitions/0/x", None),
        ];
        for (case, address, expected) in cases {
            assert_eq!(Node::read(&Address::parse(address).unwrap()), expected, "{case}");
        }
    }
}
