//! The consumer groups of a hub. Start at [`Service::answer_consumer_group`].

use domain::ids::{HubName, Precondition};
use domain::operation::ErrorKind;
use domain::operation::resource::{Answer, ConsumerGroupAsk, Place};
use domain::resource::{Hub, InvalidResource};
use store::ports::Changed;

use crate::Service;
use crate::error::Error;

impl Service {
    /// Answers `request` about the consumer groups of a hub.
    pub(super) async fn answer_consumer_group(
        &self,
        place: &Place,
        hub: &HubName,
        request: ConsumerGroupAsk,
    ) -> Result<Answer, Error> {
        match request {
            ConsumerGroupAsk::List => {
                Ok(Answer::ConsumerGroups(self.find_hub(place, hub)?.all_consumer_groups().collect()))
            }
            ConsumerGroupAsk::Find(name) => {
                let found = self.find_hub(place, hub)?.find_consumer_group(&name);
                let none = || Error::new(ErrorKind::ResourceNotFound, "The consumer group was not found.");
                Ok(Answer::ConsumerGroup(found.ok_or_else(none)?))
            }
            ConsumerGroupAsk::Put(name) => {
                let now = self.now();
                let group = self.change_groups(place, hub, |hub| hub.add_consumer_group(&name, now)).await?;
                Ok(Answer::ConsumerGroup(group))
            }
            ConsumerGroupAsk::Delete(name) => {
                let existed = self.change_groups(place, hub, |hub| hub.remove_consumer_group(&name)).await?;
                Ok(Answer::Deleted { existed })
            }
        }
    }

    async fn change_groups<T>(
        &self,
        place: &Place,
        name: &HubName,
        change: impl FnOnce(&mut Hub) -> Result<T, InvalidResource>,
    ) -> Result<T, Error> {
        let changing = self.0.changing.lock().await;
        let present = self.find_hub(place, name)?;
        let mut hub = Hub::clone(&present);
        let changed = change(&mut hub).map_err(|invalid| Error::invalid(invalid.to_string()))?;
        if hub.consumer_groups != present.consumer_groups {
            let replaced = self.0.store.replace_hub(hub, Precondition::None, self.now()).await?;
            if !matches!(replaced, Changed::Done(_)) {
                return Err(Error::new(ErrorKind::ResourceNotFound, "The hub is gone."));
            }
            self.reload().await?;
        }
        drop(changing);
        self.0.readers.judge(present.key, &self.resources());
        Ok(changed)
    }
}
