//! Promises of [`crate::ports::ConfigurationStore`].

use domain::clock::UnixTime;
use domain::configuration::{AGENT, Configuration, Content, Draft};
use domain::enrollment::Capabilities;
use domain::identity::Identity;
use domain::ids::{ConfigurationId, Etag, HubKey, ModuleId, Precondition};
use domain::operation::identity::IdentityName;
use domain::twin::ServiceChange;
use serde_json::Value;

use super::sample::{NOON, QUOTAS, after, device, identity, make_hub, module, object};
use super::{Backend, Done as _};
use crate::ports::{Changed, Created, Judged};

/// Twins that are judged together.
const PIECE: usize = 3;

fn id(name: &str) -> ConfigurationId {
    ConfigurationId::parse(name).unwrap()
}

/// Sets the speed of a fan.
pub fn draft(name: &str, speed: u32, target: &str, priority: i32) -> Draft {
    Draft {
        id: id(name),
        schema_version: "1.0".to_owned(),
        labels: object(r#"{"team":"cheese"}"#),
        content: Content {
            device: Some(object(&format!(r#"{{"properties.desired.fan.speed":{speed}}}"#))),
            ..Content::default()
        },
        target: target.to_owned(),
        priority,
        metrics: [("m".to_owned(), "SELECT * FROM devices".to_owned())].into(),
    }
}

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
}

/// A hub with devices `dev-0` and on.
async fn scene(backend: &Backend, devices: usize) -> Scene<'_> {
    let scene = Scene { backend, hub: make_hub(&*backend.store, "hub").await };
    for number in 0..devices {
        scene.add(&device(&format!("dev-{number}"))).await;
    }
    scene
}

impl Scene<'_> {
    async fn add(&self, name: &IdentityName) {
        self.backend.store.create_identity(self.hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    }

    async fn create(&self, draft: Draft) -> Configuration {
        self.backend.store.create_configuration(self.hub, draft, NOON).await.unwrap().done()
    }

    async fn find(&self, name: &str) -> Configuration {
        self.backend.store.find_configuration(self.hub, &id(name)).await.unwrap().done()
    }

    /// How many twins a configuration is for, and how many it applies to.
    async fn counts(&self, name: &str) -> (u64, u64) {
        let found = self.find(name).await;
        (found.targeted, found.applied)
    }

    /// Judges what there is to judge; gives the modules that are missing.
    async fn judge_all(&self) -> Vec<(HubKey, String)> {
        let mut missing = Vec::new();
        loop {
            let judged = self.backend.store.judge_twins(PIECE, after(1)).await.unwrap();
            missing.extend(judged.missing.into_iter().map(|(hub, device, module)| (hub, format!("{device}/{module}"))));
            if !judged.has_more {
                return missing;
            }
        }
    }

    async fn tag(&self, name: &IdentityName, tags: &str) {
        let change = ServiceChange { tags: Some(object(tags)), desired: None };
        let store = &self.backend.store;
        store.patch_twin(self.hub, name, change, Precondition::None, NOON).await.unwrap().done();
    }

    /// The desired properties, and their version.
    async fn desired(&self, name: &IdentityName) -> (String, u64) {
        let (twin, _) = self.backend.store.find_twin(self.hub, name).await.unwrap().done();
        (Value::Object(twin.desired.document().clone()).to_string(), twin.desired.version())
    }

    async fn states(&self, name: &IdentityName) -> String {
        let (twin, _) = self.backend.store.find_twin(self.hub, name).await.unwrap().done();
        Value::Object(twin.configurations).to_string()
    }
}

pub async fn a_configuration_comes_back_as_it_was_written(backend: &Backend) {
    let scene = scene(backend, 0).await;
    let wanted = draft("c", 1, "*", 5);
    let made = scene.create(wanted.clone()).await;
    assert_eq!((&made.draft, made.created_at, made.updated_at), (&wanted, NOON, NOON));
    assert_eq!((made.targeted, made.applied), (0, 0));
    assert_eq!(scene.find("c").await, made);
    assert_eq!(backend.store.find_configuration(scene.hub, &id("C")).await.unwrap(), None, "case matters");
    assert_eq!(
        backend.store.create_configuration(scene.hub, wanted.clone(), NOON).await.unwrap(),
        Created::AlreadyExists
    );
    assert_eq!(backend.store.create_configuration(HubKey(99), wanted, NOON).await.unwrap(), Created::NoOwner);
    scene.create(draft("b", 1, "*", 5)).await;
    let listed = backend.store.list_configurations(scene.hub).await.unwrap();
    assert_eq!(listed.iter().map(|found| found.draft.id.as_str()).collect::<Vec<_>>(), ["c", "b"]);
}

pub async fn a_replaced_configuration_keeps_its_content_and_gets_a_fresh_etag(backend: &Backend) {
    let scene = scene(backend, 0).await;
    let made = scene.create(draft("c", 1, "*", 5)).await;
    let store = &backend.store;
    let wanted = draft("c", 2, "tags.a = 1", 6);
    let stale = Precondition::Matches(Etag::from_number(made.etag.number() + 99));
    let refused = store.replace_configuration(scene.hub, wanted.clone(), stale, after(1)).await.unwrap();
    assert_eq!(refused, Changed::PreconditionFailed { present: made.etag });
    let exact = Precondition::Matches(made.etag);
    let changed = store.replace_configuration(scene.hub, wanted.clone(), exact, after(1)).await.unwrap().done();
    assert_eq!(changed.draft, Draft { content: made.draft.content.clone(), ..wanted.clone() });
    assert_eq!((changed.created_at, changed.updated_at), (NOON, after(1)));
    assert_ne!(changed.etag, made.etag);
    assert_eq!(scene.find("c").await, changed);
    let absent = store.replace_configuration(scene.hub, draft("d", 1, "*", 1), Precondition::Exists, NOON).await;
    assert_eq!(absent.unwrap(), Changed::NotFound);
    let refused = store.delete_configuration(scene.hub, &id("c"), exact).await.unwrap();
    assert_eq!(refused, Changed::PreconditionFailed { present: changed.etag });
    store.delete_configuration(scene.hub, &id("c"), Precondition::Exists).await.unwrap().done();
    let gone = store.delete_configuration(scene.hub, &id("c"), Precondition::Exists).await.unwrap();
    assert_eq!(gone, Changed::NotFound);
}

pub async fn a_hub_takes_as_many_configurations_as_it_may(backend: &Backend) {
    let scene = scene(backend, 0).await;
    for number in 0..QUOTAS.configurations_per_hub {
        scene.create(draft(&format!("c-{number}"), 1, "*", 0)).await;
    }
    assert_eq!(
        backend.store.create_configuration(scene.hub, draft("more", 1, "*", 0), NOON).await.unwrap(),
        Created::Full
    );
}

pub async fn of_those_that_a_twin_fulfils_the_highest_applies(backend: &Backend) {
    let scene = scene(backend, 10).await;
    scene.tag(&device("dev-3"), r#"{"a":1}"#).await;
    scene.create(draft("low", 1, "*", 1)).await;
    scene.create(draft("high", 2, "tags.a = 1", 2)).await;
    let told = backend.store.latest_twin_change().await.unwrap();
    assert_eq!(scene.judge_all().await, []);
    assert_eq!((scene.counts("low").await, scene.counts("high").await), ((10, 9), (1, 1)));
    assert_eq!(scene.desired(&device("dev-3")).await, (r#"{"fan":{"speed":2}}"#.to_owned(), 2));
    assert_eq!(scene.desired(&device("dev-9")).await, (r#"{"fan":{"speed":1}}"#.to_owned(), 2));
    let states = r#"{"low":{"status":"Targeted"},"high":{"status":"Applied"}}"#;
    assert_eq!(scene.states(&device("dev-3")).await, states);
    let (changes, _) = backend.store.twin_changes_after(told, 100).await.unwrap();
    assert_eq!(changes.len(), 10, "devices are told");
    assert_eq!(scene.judge_all().await, []);
    assert_eq!(scene.desired(&device("dev-3")).await.1, 2, "judging again changes nothing");
    // Of equal ones the one created last.
    scene.create(draft("later", 3, "tags.a = 1", 2)).await;
    scene.judge_all().await;
    assert_eq!(scene.desired(&device("dev-3")).await.0, r#"{"fan":{"speed":3}}"#);
}

pub async fn a_twin_that_changes_is_judged_anew(backend: &Backend) {
    let scene = scene(backend, 2).await;
    scene.create(draft("c", 1, "tags.a = 1", 1)).await;
    scene.judge_all().await;
    let store = &backend.store;
    assert_eq!(store.judge_twins(PIECE, NOON).await.unwrap(), Judged::default(), "nothing is left");
    scene.tag(&device("dev-0"), r#"{"a":1}"#).await;
    assert_eq!(scene.counts("c").await, (0, 0), "not yet");
    scene.judge_all().await;
    assert_eq!(
        (scene.counts("c").await, scene.desired(&device("dev-0")).await.0),
        ((1, 1), r#"{"fan":{"speed":1}}"#.to_owned())
    );
    // What was put is withdrawn, and nothing else.
    let own = ServiceChange { tags: Some(object(r#"{"a":null}"#)), desired: Some(object(r#"{"own":1}"#)) };
    store.patch_twin(scene.hub, &device("dev-0"), own, Precondition::None, NOON).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!((scene.counts("c").await, scene.desired(&device("dev-0")).await.0), ((0, 0), r#"{"own":1}"#.to_owned()));
    assert_eq!(scene.states(&device("dev-0")).await, "{}");
    // A report counts as well as a tag.
    scene.create(draft("reporting", 5, "properties.reported.lid = 'shut'", 1)).await;
    scene.judge_all().await;
    store.apply_reported(scene.hub, &device("dev-1"), object(r#"{"lid":"shut"}"#), None, NOON).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!(scene.desired(&device("dev-1")).await.0, r#"{"fan":{"speed":5}}"#);
}

pub async fn a_twin_that_changes_while_it_is_judged_is_judged_again(backend: &Backend) {
    /// Enough for a change to fall between what is read and what is forgotten.
    const ROUNDS: usize = 60;
    let scene = scene(backend, 1).await;
    scene.create(draft("c", 1, "tags.round = 'odd'", 1)).await;
    scene.judge_all().await;
    let name = device("dev-0");
    for round in 0..ROUNDS {
        let is_odd = round % 2 == 1;
        // A note that is there when the twin changes again.
        scene.tag(&name, r#"{"round":"none"}"#).await;
        let tags = if is_odd { r#"{"round":"odd"}"# } else { r#"{"round":"even"}"# };
        let judged = async { backend.store.judge_twins(PIECE, after(1)).await.unwrap() };
        tokio::join!(judged, scene.tag(&name, tags));
        scene.judge_all().await;
        let expected = if is_odd { r#"{"c":{"status":"Applied"}}"# } else { "{}" };
        assert_eq!(scene.states(&name).await, expected, "round {round}");
    }
}

pub async fn a_device_that_comes_or_goes_is_counted(backend: &Backend) {
    let scene = scene(backend, 1).await;
    scene.create(draft("c", 1, "*", 1)).await;
    scene.judge_all().await;
    scene.add(&device("late")).await;
    scene.judge_all().await;
    assert_eq!(scene.counts("c").await, (2, 2));
    backend.store.delete_identity(scene.hub, &device("late"), Precondition::Exists).await.unwrap().done();
    assert_eq!(scene.counts("c").await, (1, 1));
    assert_eq!(scene.judge_all().await, []);
}

pub async fn a_configuration_made_again_before_its_deletion_was_noticed_is_counted_anew(backend: &Backend) {
    let scene = scene(backend, 3).await;
    let replace = async |anew: Draft| {
        backend.store.delete_configuration(scene.hub, &anew.id, Precondition::Exists).await.unwrap().done();
        scene.create(anew).await;
    };
    scene.create(draft("c", 1, "*", 1)).await;
    scene.create(draft("other", 1, "*", 0)).await;
    scene.judge_all().await;
    replace(draft("c", 2, "*", 1)).await;
    scene.tag(&device("dev-1"), r#"{"site":"cave"}"#).await;
    assert_eq!(scene.counts("c").await, (0, 0));
    scene.judge_all().await;
    assert_eq!((scene.counts("c").await, scene.counts("other").await), ((3, 3), (3, 0)));
    // From the one to the other in one change, the second since it was made.
    assert_eq!(scene.desired(&device("dev-2")).await, (r#"{"fan":{"speed":2}}"#.to_owned(), 3));

    replace(draft("c", 3, "tags.site = 'cave'", 1)).await;
    replace(draft("c", 4, "tags.site = 'cave'", 1)).await;
    backend.store.delete_identity(scene.hub, &device("dev-0"), Precondition::Exists).await.unwrap().done();
    assert_eq!(scene.counts("c").await, (0, 0));
    scene.judge_all().await;
    assert_eq!((scene.counts("c").await, scene.counts("other").await), ((1, 1), (2, 1)));
    assert_eq!(scene.desired(&device("dev-1")).await, (r#"{"fan":{"speed":4}}"#.to_owned(), 4));
    backend.store.delete_configuration(scene.hub, &id("c"), Precondition::Exists).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!(scene.counts("other").await, (2, 2));
}

pub async fn what_a_deleted_configuration_has_put_is_withdrawn(backend: &Backend) {
    let scene = scene(backend, 5).await;
    scene.create(draft("c", 1, "*", 1)).await;
    scene.judge_all().await;
    let store = &backend.store;
    // What an operator wrote in its place stays.
    let own = ServiceChange { tags: None, desired: Some(object(r#"{"fan":{"own":true}}"#)) };
    store.patch_twin(scene.hub, &device("dev-0"), own, Precondition::None, NOON).await.unwrap().done();
    store.delete_configuration(scene.hub, &id("c"), Precondition::Exists).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!(scene.desired(&device("dev-0")).await.0, r#"{"fan":{"own":true}}"#);
    assert_eq!(scene.desired(&device("dev-4")).await.0, "{}");
    assert_eq!(scene.states(&device("dev-4")).await, "{}");
}

pub async fn modules_are_targets_of_their_own(backend: &Backend) {
    let scene = scene(backend, 1).await;
    scene.add(&module("dev-0", "part")).await;
    let content = Content { module: Some(object(r#"{"properties.desired":{"rate":5}}"#)), ..Content::default() };
    scene.create(Draft { content, ..draft("c", 0, "FROM devices.modules WHERE moduleId = 'part'", 1) }).await;
    scene.judge_all().await;
    assert_eq!(
        (scene.counts("c").await, scene.desired(&module("dev-0", "part")).await.0),
        ((1, 1), r#"{"rate":5}"#.to_owned())
    );
    assert_eq!(scene.desired(&device("dev-0")).await.0, "{}");
}

pub async fn a_deployment_is_for_edge_devices_and_tells_which_modules_they_lack(backend: &Backend) {
    let scene = scene(backend, 1).await;
    let edge = Identity { capabilities: Capabilities { iot_edge: true }, ..identity(device("edge"), 1) };
    backend.store.create_identity(scene.hub, edge, None, NOON).await.unwrap().done();
    let modules =
        r#"{"$edgeAgent":{"properties.desired.modules.part":{"version":1}},"part":{"properties.desired.rate":5}}"#;
    let content = Content { modules: Some(serde_json::from_str(modules).unwrap()), ..Content::default() };
    scene.create(Draft { content, ..draft("c", 0, "*", 1) }).await;
    let missing = scene.judge_all().await;
    assert_eq!(missing, [(scene.hub, "edge/part".to_owned())]);
    assert_eq!(scene.counts("c").await, (1, 1));
    let agent = IdentityName { module: Some(ModuleId::parse("$edgeAgent").unwrap()), ..device("edge") };
    assert_eq!(scene.desired(&agent).await.0, r#"{"modules":{"part":{"version":1}}}"#);
    // A module that comes has its device judged again.
    scene.add(&module("edge", "part")).await;
    assert_eq!(scene.judge_all().await, []);
    assert_eq!(scene.desired(&module("edge", "part")).await.0, r#"{"rate":5}"#);
    backend.store.delete_configuration(scene.hub, &id("c"), Precondition::Exists).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!(
        (scene.desired(&agent).await.0, scene.desired(&module("edge", "part")).await.0),
        ("{}".to_owned(), "{}".to_owned())
    );
}

pub async fn an_agents_twin_tells_of_its_devices_deployments(backend: &Backend) {
    let scene = scene(backend, 0).await;
    let edge = Identity { capabilities: Capabilities { iot_edge: true }, ..identity(device("edge"), 1) };
    backend.store.create_identity(scene.hub, edge, None, NOON).await.unwrap().done();
    let agent = IdentityName { module: Some(ModuleId::parse(AGENT).unwrap()), ..device("edge") };
    let modules = || serde_json::from_str(r#"{"part":{"properties.desired.rate":5}}"#).unwrap();
    let deployment = |name: &str, priority: i32| Draft {
        content: Content { modules: Some(modules()), ..Content::default() },
        ..draft(name, 0, "*", priority)
    };
    scene.create(deployment("low", 1)).await;
    scene.create(deployment("high", 2)).await;
    // For the agent itself, and for the device beside its modules.
    let content = Content { module: Some(object(r#"{"properties.desired.a":1}"#)), ..Content::default() };
    scene
        .create(Draft { content, ..draft("agents", 0, "FROM devices.modules WHERE moduleId = '$edgeAgent'", 1) })
        .await;
    scene.create(draft("fans", 7, "*", 0)).await;
    scene.judge_all().await;
    let (low, high) = (r#""low":{"status":"Targeted"}"#, r#""high":{"status":"Applied"}"#);
    let own = r#""agents":{"status":"Applied"}"#;
    let told = |states: &[&str]| format!("{{{}}}", states.join(","));
    assert_eq!(sorted(&scene.states(&agent).await), sorted(&told(&[own, high, low])));
    for (name, counts) in [("low", (1, 0)), ("high", (1, 1)), ("agents", (1, 1)), ("fans", (1, 0))] {
        assert_eq!(scene.counts(name).await, counts, "{name}");
    }
    backend.store.delete_configuration(scene.hub, &id("high"), Precondition::Exists).await.unwrap().done();
    scene.judge_all().await;
    let low = r#""low":{"status":"Applied"}"#;
    assert_eq!(sorted(&scene.states(&agent).await), sorted(&told(&[own, low])));
    // Judged for itself, it tells the same.
    scene.tag(&agent, r#"{"a":1}"#).await;
    scene.judge_all().await;
    assert_eq!(sorted(&scene.states(&agent).await), sorted(&told(&[own, low])));
    assert_eq!((scene.counts("low").await, scene.counts("agents").await), ((1, 1), (1, 1)));
    backend.store.delete_identity(scene.hub, &agent, Precondition::Exists).await.unwrap().done();
    scene.judge_all().await;
    assert_eq!((scene.counts("low").await, scene.counts("agents").await), ((1, 1), (0, 0)));
}

/// The members of an object, in the order of their names.
fn sorted(text: &str) -> std::collections::BTreeMap<String, Value> {
    serde_json::from_str(text).unwrap()
}

pub async fn hubs_are_judged_by_their_own_configurations(backend: &Backend) {
    let scene = scene(backend, 4).await;
    let other = Scene { backend, hub: make_hub(&*backend.store, "other").await };
    other.add(&device("dev-0")).await;
    scene.create(draft("c", 1, "*", 1)).await;
    scene.judge_all().await;
    assert_eq!((scene.counts("c").await, other.desired(&device("dev-0")).await.0), ((4, 4), "{}".to_owned()));
    let late: UnixTime = after(9);
    backend.store.delete_hub(scene.hub).await.unwrap().done();
    assert_eq!(
        backend.store.create_configuration(scene.hub, draft("d", 1, "*", 1), late).await.unwrap(),
        Created::NoOwner
    );
    other.create(draft("c", 2, "*", 1)).await;
    other.judge_all().await;
    assert_eq!(other.desired(&device("dev-0")).await.0, r#"{"fan":{"speed":2}}"#);
}
