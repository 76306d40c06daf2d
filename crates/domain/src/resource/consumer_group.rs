//! Consumer groups: names under which programs read the telemetry of a hub side by side, each in its own place. Start at
//! [`ConsumerGroup`].

use crate::clock::UnixTime;

use super::{Hub, InvalidResource};

/// A consumer group of a hub.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConsumerGroup {
    /// Its name, as it was written first; letter case does not count.
    pub name: String,
    /// When it was created.
    pub created_at: UnixTime,
}

impl ConsumerGroup {
    /// The one that every hub has.
    pub const DEFAULT: &str = "$Default";
    /// Most of them, the default one counted (`contract/eventhub-endpoint.md 7`).
    pub const COUNT_MAX: usize = 20;
    /// Most characters of a name.
    pub const NAME_CHARS_MAX: usize = 50;

    fn check_name(name: &str) -> Result<(), InvalidResource> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let mut bytes = name.bytes();
        let is_name = name.len() <= Self::NAME_CHARS_MAX
            && name.bytes().all(is_inner)
            && is_end(name.bytes().next_back())
            && is_end(bytes.next());
        if is_name { Ok(()) } else { Err(InvalidResource::ConsumerGroupName) }
    }
}

impl Hub {
    /// The consumer group of that name; letter case does not count.
    pub fn find_consumer_group(&self, name: &str) -> Option<ConsumerGroup> {
        self.all_consumer_groups().find(|group| group.name.eq_ignore_ascii_case(name))
    }

    /// Every consumer group, the default one first.
    pub fn all_consumer_groups(&self) -> impl Iterator<Item = ConsumerGroup> {
        let default = ConsumerGroup { name: ConsumerGroup::DEFAULT.to_owned(), created_at: self.created_at };
        std::iter::once(default).chain(self.consumer_groups.iter().cloned())
    }

    /// Adds a consumer group, unless there is one of that name; gives it either way.
    pub fn add_consumer_group(&mut self, name: &str, now: UnixTime) -> Result<ConsumerGroup, InvalidResource> {
        if let Some(present) = self.find_consumer_group(name) {
            return Ok(present);
        }
        ConsumerGroup::check_name(name)?;
        if self.all_consumer_groups().count() >= ConsumerGroup::COUNT_MAX {
            return Err(InvalidResource::TooManyConsumerGroups);
        }
        let group = ConsumerGroup { name: name.to_owned(), created_at: now };
        self.consumer_groups.push(group.clone());
        Ok(group)
    }

    /// Removes a consumer group; says whether there was one.
    pub fn remove_consumer_group(&mut self, name: &str) -> Result<bool, InvalidResource> {
        if name.eq_ignore_ascii_case(ConsumerGroup::DEFAULT) {
            return Err(InvalidResource::DefaultConsumerGroup);
        }
        let before = self.consumer_groups.len();
        self.consumer_groups.retain(|group| !group.name.eq_ignore_ascii_case(name));
        Ok(self.consumer_groups.len() < before)
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::SeededEntropy;
    use crate::ids::HubName;
    use crate::operation::resource::HubDraft;

    use super::*;

    fn hub() -> Hub {
        let name = HubName::parse("hub").unwrap();
        let now = UnixTime::from_seconds(7);
        Hub::create(name, "muster".to_owned(), HubDraft::default(), now, &SeededEntropy::new(1)).unwrap()
    }

    #[test]
    fn the_default_group_is_always_there_and_others_come_and_go() {
        let (mut hub, now) = (hub(), UnixTime::from_seconds(9));
        assert_eq!(hub.find_consumer_group("$default").map(|group| group.created_at), Some(UnixTime::from_seconds(7)));
        let made = hub.add_consumer_group("Audit", now).unwrap();
        assert_eq!(hub.add_consumer_group("audit", UnixTime::from_seconds(10)), Ok(made));
        let names: Vec<String> = hub.all_consumer_groups().map(|group| group.name).collect();
        assert_eq!(names, ["$Default", "Audit"]);
        assert_eq!((hub.remove_consumer_group("AUDIT"), hub.remove_consumer_group("audit")), (Ok(true), Ok(false)));
        assert_eq!(hub.remove_consumer_group("$Default"), Err(InvalidResource::DefaultConsumerGroup));
    }

    #[test]
    fn names_and_numbers_are_bounded() {
        let (mut hub, now) = (hub(), UnixTime::from_seconds(9));
        let long = "a".repeat(ConsumerGroup::NAME_CHARS_MAX + 1);
        for name in ["", "-a", "a.", "a b", "a/b", "$other", "ä", &long] {
            assert_eq!(hub.add_consumer_group(name, now), Err(InvalidResource::ConsumerGroupName), "{name}");
        }
        for number in 1..ConsumerGroup::COUNT_MAX {
            hub.add_consumer_group(&format!("group-{number}"), now).unwrap();
        }
        assert_eq!(hub.add_consumer_group("one-more", now), Err(InvalidResource::TooManyConsumerGroups));
    }
}
