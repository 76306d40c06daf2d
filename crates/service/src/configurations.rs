//! Configurations of many twins, IoT Edge deployments among them (`contract/hub-service.md 10`).
//!
//! The store notes which twins are to be judged, in the transactions that change them or a configuration; the worker has
//! it judge them a few at a time. What a configuration is to a twin, and what follows for the twin, is decided in
//! `domain::configuration`. Start at [`Service::run_configurations`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::access::Action;
use domain::configuration::{AgentQueries, Configuration, Content, Draft, Put, check_metric, patch_between};
use domain::identity::{Authentication, Identity};
use domain::ids::{ConfigurationId, DeviceId, HubKey, ModuleId, Precondition};
use domain::operation::configuration::{Answer, Ask, Counted, Reported};
use domain::operation::identity::IdentityName;
use domain::operation::{Caller, ErrorKind};
use domain::query::{Aggregate, Collection, GroupColumn, GroupValue, Groups, Plan, Select, parse_target};
use domain::sas::KeyPair;
use domain::twin::ServiceChange;
use store::ports::{Changed, Created, Judged};

use crate::Service;
use crate::error::Error;
use crate::registry::not_found;
use crate::tasks::AFTER_FAILURE;

/// How late a twin may be brought into line.
const IDLE: Duration = Duration::from_millis(500);
/// Twins that one verb judges, which holds up all others (`rules.md` 11).
const JUDGED_MAX: usize = 16;
/// Who manages the modules that content names.
const MANAGER: &str = "iotEdge";
/// Pieces of queries, each of which looks at some hundreds of twins or more, that are run for the metrics of one list.
const LISTED_PIECES_MAX: usize = 1_000;
/// What the count of a metric is called while it is counted.
const COUNT: &str = "n";

impl Service {
    /// Performs `ask` at the hub that the caller dialled.
    pub(crate) async fn perform_configuration(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let at = |segments: &[&str]| {
            let path: Vec<String> = segments.iter().map(|&segment| segment.to_owned()).collect();
            self.authorize_at_hub(caller, Action::ManageConfigurations, &path)
        };
        match ask {
            Ask::Put { draft, precondition } => {
                let hub = at(&["configurations", draft.id.as_str()])?.key;
                self.put_configuration(hub, *draft, precondition).await
            }
            Ask::Find(id) => {
                let hub = at(&["configurations", id.as_str()])?.key;
                let found = self.0.store.find_configuration(hub, &id).await?;
                let found = found.ok_or_else(no_configuration)?;
                Ok(Answer::Configuration(Box::new(self.count_one(hub, found).await?)))
            }
            Ask::List { limit } => {
                let hub = at(&["configurations"])?.key;
                let (mut listed, mut pieces) = (Vec::new(), LISTED_PIECES_MAX);
                for configuration in self.0.store.list_configurations(hub).await?.into_iter().take(limit) {
                    listed.push(self.count(hub, configuration, &mut pieces).await?);
                }
                Ok(Answer::Configurations(listed))
            }
            Ask::Delete { id, precondition } => {
                let hub = at(&["configurations", id.as_str()])?.key;
                // Some clients name no version (`contract/hub-service.md 10`).
                let precondition = if precondition == Precondition::None { Precondition::Exists } else { precondition };
                changed(self.0.store.delete_configuration(hub, &id, precondition).await?)?;
                self.0.configurations.notify_one();
                Ok(Answer::Deleted)
            }
            Ask::Test { target, metrics } => {
                at(&["configurations", "testQueries"])?;
                let wrong = |text: &str| (!text.trim().is_empty()).then(|| parse_target(text).err()).flatten();
                let target = wrong(&target).map(|invalid| format!("The target condition, {invalid}."));
                let metrics = metrics.into_iter().filter_map(|(name, text)| Some((name, check_metric(&text).err()?)));
                Ok(Answer::Tested { target, metrics: metrics.map(|(name, why)| (name, format!("{why}."))).collect() })
            }
            Ask::Apply { device, content } => {
                let hub = at(&["devices", device.as_str(), "applyConfigurationContent"])?.key;
                self.apply_content(hub, device, &content).await
            }
        }
    }

    async fn put_configuration(&self, hub: HubKey, draft: Draft, precondition: Precondition) -> Result<Answer, Error> {
        draft.check().map_err(|invalid| {
            use domain::configuration::InvalidConfiguration as Invalid;
            let kind = match invalid {
                Invalid::Target(_) | Invalid::Metric { .. } | Invalid::TooManyMetrics => ErrorKind::InvalidArgument,
                Invalid::TooLong => ErrorKind::TooLarge,
                _ => ErrorKind::InvalidContent,
            };
            Error::new(kind, format!("The configuration is not valid: {invalid}."))
        })?;
        let configuration = if precondition == Precondition::None {
            let id = draft.id.clone();
            match self.0.store.create_configuration(hub, draft, self.now()).await? {
                Created::Done(created) => created,
                Created::AlreadyExists => {
                    let text = format!("A configuration with ID '{id}' exists.");
                    return Err(Error::new(ErrorKind::ConfigurationExists, text));
                }
                Created::Full => {
                    return Err(Error::new(ErrorKind::QuotaExceeded, "The hub has as many configurations as it may."));
                }
                Created::NoOwner => return Err(Error::new(ErrorKind::HubNotFound, "The hub was not found.")),
            }
        } else {
            changed(self.0.store.replace_configuration(hub, draft, precondition, self.now()).await?)?
        };
        self.0.configurations.notify_one();
        Ok(Answer::Configuration(Box::new(self.count_one(hub, configuration).await?)))
    }

    /// A configuration with the rows that its queries find, which are few.
    async fn count_one(&self, hub: HubKey, configuration: Configuration) -> Result<Counted, Error> {
        let mut pieces = usize::MAX;
        self.count(hub, configuration, &mut pieces).await
    }

    /// A configuration with the rows that its queries find; without those of queries that take more than `pieces`, of
    /// which it leaves what is left, and of those that make too many groups.
    async fn count(&self, hub: HubKey, configuration: Configuration, pieces: &mut usize) -> Result<Counted, Error> {
        let mut metrics = BTreeMap::new();
        for (name, text) in &configuration.draft.metrics {
            let Ok(plan) = check_metric(text) else { continue };
            if let Some(rows) = self.count_rows(hub, plan, pieces).await? {
                metrics.insert(name.clone(), rows);
            }
        }
        let reported = match configuration.draft.content.is_deployment() {
            true => self.count_reports(hub, &configuration.draft.id, pieces).await?,
            false => None,
        };
        Ok(Counted { configuration, metrics, reported })
    }

    /// What edge agents report of a deployment; `None` if it cannot be counted.
    async fn count_reports(
        &self,
        hub: HubKey,
        id: &ConfigurationId,
        pieces: &mut usize,
    ) -> Result<Option<Reported>, Error> {
        let AgentQueries { successful, failed } = AgentQueries::of(id);
        let (mut counts, queries) = ([0; 2], [successful, failed]);
        for (count, text) in counts.iter_mut().zip(&queries) {
            // A name that the language cannot say is found nowhere.
            if let Ok(plan) = check_metric(text) {
                let Some(rows) = self.count_rows(hub, plan, pieces).await? else { return Ok(None) };
                *count = rows;
            }
        }
        let [successful, failed] = counts;
        Ok(Some(Reported { successful, failed }))
    }

    /// How many rows a query finds; `None` if they are too many, or too far apart, to be counted.
    async fn count_rows(&self, hub: HubKey, plan: Plan, pieces: &mut usize) -> Result<Option<u64>, Error> {
        let column = GroupColumn { name: COUNT.to_owned(), value: GroupValue::Aggregate(Aggregate::Count) };
        let (keys, columns) = match plan.select.clone() {
            Select::Groups { keys, columns } => (keys, columns),
            Select::Whole | Select::Columns(_) => (Vec::new(), vec![column]),
        };
        let is_grouped = matches!(plan.select, Select::Groups { .. });
        let top = plan.top.unwrap_or(u64::MAX);
        let mut groups = Groups::new(&keys, &columns);
        let plan = Arc::new(Plan { select: Select::Groups { keys, columns }, ..plan });
        let mut place = None;
        loop {
            let Some(left) = pieces.checked_sub(1) else { return Ok(None) };
            *pieces = left;
            let Ok(searched) = self.0.store.group_twins(hub, &plan, place, groups).await? else { return Ok(None) };
            (groups, place) = (searched.result, searched.next);
            if place.is_none() {
                break;
            }
        }
        let (rows, _) = groups.rows(None, usize::MAX);
        let counted = || rows.first().and_then(|row| row.get(COUNT)).and_then(serde_json::Value::as_u64);
        let found = if is_grouped { rows.len() as u64 } else { counted().unwrap_or_default() };
        Ok(Some(found.min(top)))
    }

    /// Puts content into the twins of an edge device and its modules, which are made if they are not there.
    async fn apply_content(&self, hub: HubKey, device: DeviceId, content: &Content) -> Result<Answer, Error> {
        let invalid = |public: String| Error::new(ErrorKind::InvalidContent, public);
        let puts = content.puts(Collection::Devices).map_err(|error| invalid(format!("{error}.")))?;
        if content.device.is_none() && content.modules.is_none() {
            return Err(invalid("The content is for no device and no module.".to_owned()));
        }
        let name = IdentityName::device(device.clone());
        let found = self.0.store.find_identity(hub, &name).await?.ok_or_else(|| not_found(&name))?;
        if !found.capabilities.iot_edge {
            return Err(Error::invalid("Content is applied to edge devices alone."));
        }
        for module in content.modules() {
            self.make_module(hub, &device, module).await?;
        }
        let mut modules: Vec<Option<ModuleId>> = puts.iter().map(|put| put.module.clone()).collect();
        modules.dedup();
        for module in modules {
            let name = IdentityName { device: device.clone(), module: module.clone() };
            let puts: Vec<Put> = puts.iter().filter(|put| put.module == module).cloned().collect();
            let (twin, _) = self.0.store.find_twin(hub, &name).await?.ok_or_else(|| not_found(&name))?;
            let patch = patch_between(twin.desired.document(), &[], &puts);
            if !patch.is_empty() {
                let change = ServiceChange { tags: None, desired: Some(patch) };
                self.patch_twin(hub, &name, change, Precondition::Exists).await?;
            }
        }
        Ok(Answer::Applied)
    }

    /// Makes a module that content names, unless it is there.
    async fn make_module(&self, hub: HubKey, device: &DeviceId, module: ModuleId) -> Result<(), Error> {
        let name = IdentityName { device: device.clone(), module: Some(module) };
        let identity = Identity {
            authentication: Authentication::Sas(KeyPair::generate(self.entropy())),
            managed_by: Some(MANAGER.to_owned()),
            ..Identity::blank(name)
        };
        match self.0.store.create_identity(hub, identity, None, self.now()).await? {
            Created::Done(_) | Created::AlreadyExists | Created::NoOwner => Ok(()),
            Created::Full => Err(Error::new(ErrorKind::TooManyModules, "The device has as many modules as it may.")),
        }
    }

    /// Brings twins into line with configurations until the future is dropped.
    pub async fn run_configurations(&self) {
        loop {
            match self.judge_twins().await {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    () = self.0.configurations.notified() => {}
                    () = tokio::time::sleep(IDLE) => {}
                },
                Err(error) => {
                    self.fail(error);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Judges the next twins; whether there may be more.
    pub async fn judge_twins(&self) -> Result<bool, Error> {
        let Judged { has_more, missing } = self.0.store.judge_twins(JUDGED_MAX, self.now()).await?;
        for (hub, device, module) in missing {
            // Its being made has the device judged again.
            if let Err(error) = self.make_module(hub, &device, module).await {
                self.fail(error);
            }
        }
        Ok(has_more)
    }
}

fn no_configuration() -> Error {
    Error::new(ErrorKind::ConfigurationNotFound, "There is no such configuration.")
}

fn changed<T>(outcome: Changed<T>) -> Result<T, Error> {
    match outcome {
        Changed::Done(changed) => Ok(changed),
        Changed::NotFound => Err(no_configuration()),
        Changed::PreconditionFailed { .. } => {
            Err(Error::new(ErrorKind::PreconditionFailed, "PreconditionFailed, ETag may be invalid."))
        }
    }
}
