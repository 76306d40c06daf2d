//! Configurations of many twins, IoT Edge deployments among them: content that is put into the desired properties of every
//! twin that fulfils a condition (`contract/hub-service.md 10`).
//!
//! Of the configurations that a twin fulfils, the one of the highest priority applies, and of equal ones the one created
//! last. What it has put is noted, so that it can be withdrawn when another applies, or none: what an operator wrote in
//! its place meanwhile stays. Knows no store and no wire. Start at [`Content`] and [`choose`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::UnixTime;
use crate::ids::{ConfigurationId, Etag, ModuleId};
use crate::query::{Collection, InvalidQuery, Plan, parse, parse_target};
use crate::twin::{PatchError, ServiceChange};

/// Most bytes of content, metrics and labels together, as JSON.
pub const BYTES_MAX: usize = 256 * 1_024;
/// Most custom metrics of a configuration.
pub const METRICS_MAX: usize = 20;
/// What the path of every piece of content begins with.
const DESIRED: &str = "properties.desired";
/// The module whose content names the modules of a device, and which reports what became of that.
pub const AGENT: &str = "$edgeAgent";

/// A configuration as an operator writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// What it is called.
    pub id: ConfigurationId,
    /// The version of its form; kept as it is sent.
    pub schema_version: String,
    /// Labels; kept as they are sent.
    pub labels: Map<String, Value>,
    /// What is put into twins.
    pub content: Content,
    /// Which twins: read by [`parse_target`]; empty for none.
    pub target: String,
    /// Which of several applies: the highest.
    pub priority: i32,
    /// Queries whose rows are counted, by name.
    pub metrics: BTreeMap<String, String>,
}

/// A configuration as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// What the operator wrote.
    pub draft: Draft,
    /// When it was created.
    pub created_at: UnixTime,
    /// When it was last written.
    pub updated_at: UnixTime,
    /// Twins that fulfil its condition.
    pub targeted: u64,
    /// Twins that it applies to.
    pub applied: u64,
    /// Its version.
    pub etag: Etag,
}

/// What a configuration puts into twins: by the path of a desired property, its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Into the device's own twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Map<String, Value>>,
    /// Into the twins of modules of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<BTreeMap<String, Map<String, Value>>>,
    /// Into the twin of a module that is itself the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<Map<String, Value>>,
}

/// Why a configuration is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// It puts nothing anywhere.
    #[error("the content is for no device and no module")]
    Empty,
    /// A piece of content is for no desired property.
    #[error("{path:?} is no path of desired properties")]
    Path {
        /// Its path; cut if it is long.
        path: String,
    },
    /// All desired properties of a twin are no object.
    #[error("the desired properties of a twin are an object")]
    NotAnObject,
    /// A module has no such name.
    #[error("{name:?} is no name of a module")]
    Module {
        /// The name; cut if it is long.
        name: String,
    },
    /// A property breaks a rule of twins.
    #[error(transparent)]
    Property(#[from] PatchError),
    /// The condition cannot be read.
    #[error("the target condition, {0}")]
    Target(InvalidQuery),
    /// A query of a metric cannot be read, or is not about twins.
    #[error("the metric {name:?}, {why}")]
    Metric {
        /// Which; cut if it is long.
        name: String,
        /// Why.
        why: String,
    },
    /// There are too many metrics.
    #[error("there are more than {METRICS_MAX} metrics")]
    TooManyMetrics,
    /// It is too long.
    #[error("the configuration has more than {BYTES_MAX} bytes")]
    TooLong,
}

/// A value that is put at a place of the desired properties of a twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Put {
    /// The module of the device in whose twin it is put; none for the target's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleId>,
    /// The names that lead to the place; none for all desired properties.
    pub path: Vec<String>,
    /// What.
    pub value: Value,
}

impl Draft {
    /// Whether it is one.
    pub fn check(&self) -> Result<(), InvalidConfiguration> {
        if self.content == Content::default() {
            return Err(InvalidConfiguration::Empty);
        }
        self.content.puts(Collection::Devices)?;
        self.content.puts(Collection::Modules)?;
        self.target()?;
        if self.metrics.len() > METRICS_MAX {
            return Err(InvalidConfiguration::TooManyMetrics);
        }
        for (name, text) in &self.metrics {
            check_metric(text).map_err(|why| InvalidConfiguration::Metric { name: cut(name), why })?;
        }
        match serde_json::to_vec(self) {
            Ok(text) if text.len() <= BYTES_MAX => Ok(()),
            _ => Err(InvalidConfiguration::TooLong),
        }
    }

    /// Which twins it is for; `None` for none.
    pub fn target(&self) -> Result<Option<Plan>, InvalidConfiguration> {
        if self.target.trim().is_empty() {
            return Ok(None);
        }
        parse_target(&self.target).map(Some).map_err(InvalidConfiguration::Target)
    }
}

/// Whether the text is a query that counts twins.
pub fn check_metric(text: &str) -> Result<Plan, String> {
    let plan = parse(text).map_err(|invalid| invalid.to_string())?;
    match plan.collection {
        Collection::Devices | Collection::Modules => Ok(plan),
        Collection::Jobs => Err("a metric counts twins of devices or modules".to_owned()),
    }
}

fn cut(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 128;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Content {
    /// What is put where, for a target of a collection.
    pub fn puts(&self, collection: Collection) -> Result<Vec<Put>, InvalidConfiguration> {
        let mut puts = Vec::new();
        match collection {
            Collection::Devices => {
                if let Some(pieces) = &self.device {
                    collect(None, pieces, &mut puts)?;
                }
                for (name, pieces) in self.modules.iter().flatten() {
                    let module = ModuleId::parse(name).map_err(|_| InvalidConfiguration::Module { name: cut(name) })?;
                    collect(Some(&module), pieces, &mut puts)?;
                }
            }
            Collection::Modules => {
                if let Some(pieces) = &self.module {
                    collect(None, pieces, &mut puts)?;
                }
            }
            Collection::Jobs => {}
        }
        Ok(puts)
    }

    /// Whether it is for the modules of devices, and nothing else.
    pub const fn is_deployment(&self) -> bool {
        self.modules.is_some() && self.device.is_none()
    }

    /// The modules that a device must have for this content: those that it is for, and those that the agent is told to
    /// run.
    pub fn modules(&self) -> Vec<ModuleId> {
        let pieces = self.modules.iter().flatten();
        let mut names: Vec<&str> = pieces.clone().map(|(name, _)| name.as_str()).collect();
        if let Some((_, agent)) = pieces.clone().find(|(name, _)| *name == AGENT) {
            let told = agent.iter().filter_map(|(path, value)| match path.strip_prefix(DESIRED)? {
                "" => value.get("modules")?.as_object(),
                ".modules" => value.as_object(),
                _ => None,
            });
            names.extend(told.flat_map(Map::keys).map(String::as_str));
            let one = |path: &'_ str| path.strip_prefix(DESIRED)?.strip_prefix(".modules.").map(str::to_owned);
            let ones: Vec<String> = agent.keys().filter_map(|path| one(path)).collect();
            let mut modules = parse_all(ones.iter().map(String::as_str));
            modules.extend(parse_all(names.into_iter()));
            modules.sort();
            modules.dedup();
            return modules;
        }
        parse_all(names.into_iter())
    }
}

fn parse_all<'n>(names: impl Iterator<Item = &'n str>) -> Vec<ModuleId> {
    names.filter_map(|name| ModuleId::parse(name).ok()).collect()
}

fn collect(
    module: Option<&ModuleId>,
    pieces: &Map<String, Value>,
    puts: &mut Vec<Put>,
) -> Result<(), InvalidConfiguration> {
    for (path, value) in pieces {
        let invalid = || InvalidConfiguration::Path { path: cut(path) };
        let rest = path.strip_prefix(DESIRED).ok_or_else(invalid)?;
        let path: Vec<String> = match rest.strip_prefix('.') {
            Some(rest) => rest.split('.').map(str::to_owned).collect(),
            None if rest.is_empty() => Vec::new(),
            None => return Err(invalid()),
        };
        if path.iter().any(String::is_empty) {
            return Err(invalid());
        }
        if path.is_empty() && !value.is_object() {
            return Err(InvalidConfiguration::NotAnObject);
        }
        let mut document = Map::new();
        put_at(&mut document, &path, value);
        ServiceChange { tags: None, desired: Some(document) }.check()?;
        puts.push(Put { module: module.cloned(), path, value: value.clone() });
    }
    Ok(())
}

/// A configuration among those of its hub.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// By what its store knows it, in the order of creation.
    pub key: i64,
    /// Which twins it is for.
    pub target: Plan,
    /// Its priority.
    pub priority: i32,
    /// Whether it is for edge devices alone, as one is whose content is for modules of devices.
    pub is_deployment: bool,
}

impl Candidate {
    fn is_for(&self, collection: Collection, document: &Map<String, Value>) -> bool {
        let is_edge = || document.get("capabilities").and_then(|can| can.get("iotEdge")) == Some(&Value::Bool(true));
        self.target.collection == collection && self.target.matches(document) && (!self.is_deployment || is_edge())
    }
}

/// The queries that find the devices whose agents report of a deployment that applies to them.
///
/// An agent reports the version of its desired properties that it has acted on, and how that went as a status of HTTP.
/// What it reported of an earlier version is no word on what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentQueries {
    /// Of those that did as they were told.
    pub successful: String,
    /// Of those that could not.
    pub failed: String,
}

impl AgentQueries {
    /// Those about the deployment `id`.
    pub fn of(id: &ConfigurationId) -> Self {
        let reported = format!(
            "SELECT deviceId FROM devices.modules WHERE moduleId = '{AGENT}' AND configurations.[[{id}]].status = 'Applied' \
             AND properties.desired.$version = properties.reported.lastDesiredVersion \
             AND properties.reported.lastDesiredStatus.code"
        );
        Self { successful: format!("{reported} = 200"), failed: format!("{reported} != 200") }
    }
}

/// Which of `candidates` a twin of `collection` fulfils, and which of those applies.
pub fn choose<'c>(
    candidates: &'c [Candidate],
    collection: Collection,
    document: &Map<String, Value>,
) -> (Vec<&'c Candidate>, Option<&'c Candidate>) {
    let targeting: Vec<&Candidate> =
        candidates.iter().filter(|candidate| candidate.is_for(collection, document)).collect();
    let applying = targeting.iter().copied().max_by_key(|candidate| (candidate.priority, candidate.key));
    (targeting, applying)
}

/// The patch that brings desired properties from what `before` has put to what `after` puts; empty if nothing changes.
pub fn patch_between(desired: &Map<String, Value>, before: &[Put], after: &[Put]) -> Map<String, Value> {
    let mut wanted = desired.clone();
    for put in before {
        withdraw(&mut wanted, put);
    }
    for put in after {
        put_at(&mut wanted, &put.path, &without_nulls(&put.value));
    }
    difference(desired, &wanted)
}

/// The value as a twin keeps it: members that are null are none.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// Sets the value at a place, with the objects that lead to it.
fn put_at(document: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {
            if let Value::Object(members) = value {
                document.clone_from(members);
            }
        }
        [last] if value.is_null() => drop(document.remove(last)),
        [last] => drop(document.insert(last.clone(), value.clone())),
        [first, rest @ ..] => {
            let below = document.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put_at(below, rest, value);
            }
        }
    }
}

/// Takes away what was put, unless something else stands there by now; and the objects that led to it, once empty.
fn withdraw(document: &mut Map<String, Value>, put: &Put) {
    let value = without_nulls(&put.value);
    match (put.path.as_slice(), &value) {
        ([], Value::Object(members)) => document.retain(|name, value| members.get(name) != Some(value)),
        (path, value) => take_at(document, path, value),
    }
}

fn take_at(document: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {}
        [last] => {
            if document.get(last) == Some(value) {
                document.remove(last);
            }
        }
        [first, rest @ ..] => {
            if let Some(Value::Object(below)) = document.get_mut(first) {
                take_at(below, rest, value);
                if below.is_empty() {
                    document.remove(first);
                }
            }
        }
    }
}

/// The merge patch that makes `to` of `from`.
fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|name| !to.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let mut patch: Map<String, Value> = gone.collect();
    for (name, wanted) in to {
        match (from.get(name), wanted) {
            (Some(present), wanted) if present == wanted => {}
            (Some(Value::Object(present)), Value::Object(wanted)) => {
                patch.insert(name.clone(), Value::Object(difference(present, wanted)));
            }
            _ => drop(patch.insert(name.clone(), wanted.clone())),
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    fn put(path: &str, value: Value) -> Put {
        let path = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Put { module: None, path, value }
    }

    #[test]
    fn what_is_put_is_withdrawn_and_nothing_else() {
        let cases = [
            ("put", json!({"own":1}), vec![], vec![put("fan.speed", json!(7))], json!({"fan":{"speed":7}})),
            ("there already", json!({"fan":{"speed":7}}), vec![], vec![put("fan.speed", json!(7))], json!({})),
            (
                "beside others",
                json!({"fan":{"on":true}}),
                vec![],
                vec![put("fan.speed", json!(7))],
                json!({"fan":{"speed":7}}),
            ),
            (
                "in place of a value",
                json!({"fan":1}),
                vec![],
                vec![put("fan.speed", json!(7))],
                json!({"fan":{"speed":7}}),
            ),
            (
                "withdrawn",
                json!({"fan":{"speed":7},"own":1}),
                vec![put("fan.speed", json!(7))],
                vec![],
                json!({"fan":null}),
            ),
            (
                "others stay",
                json!({"fan":{"speed":7,"on":true}}),
                vec![put("fan.speed", json!(7))],
                vec![],
                json!({"fan":{"speed":null}}),
            ),
            ("changed meanwhile", json!({"fan":{"speed":9}}), vec![put("fan.speed", json!(7))], vec![], json!({})),
            ("another's", json!({"a":1}), vec![put("a", json!(1))], vec![put("b", json!(2))], json!({"a":null,"b":2})),
            (
                "an object replaced",
                json!({"a":{"x":1,"y":2}}),
                vec![],
                vec![put("a", json!({"y":3}))],
                json!({"a":{"x":null,"y":3}}),
            ),
            (
                "nulls are none",
                json!({"a":1}),
                vec![],
                vec![put("a", json!(null)), put("b", json!({"x":null}))],
                json!({"a":null,"b":{}}),
            ),
            (
                "nulls that are none already",
                json!({"b":{}}),
                vec![],
                vec![put("a", json!(null)), put("b", json!({"x":null}))],
                json!({}),
            ),
            ("all", json!({"a":1,"b":2}), vec![], vec![put("", json!({"b":2,"c":3}))], json!({"a":null,"c":3})),
            ("all withdrawn", json!({"b":2,"c":4}), vec![put("", json!({"b":2,"c":3}))], vec![], json!({"b":null})),
        ];
        for (name, desired, before, after, expected) in cases {
            assert_eq!(Value::Object(patch_between(&object(desired), &before, &after)), expected, "{name}");
        }
    }

    #[test]
    fn the_highest_priority_applies_and_of_equal_ones_the_latest() {
        let candidate = |key, priority, target| Candidate {
            key,
            target: parse_target(target).unwrap(),
            priority,
            is_deployment: key == 6,
        };
        let candidates = [
            candidate(1, 5, "tags.a = 1"),
            candidate(2, 9, "tags.a = 2"),
            candidate(3, 5, "*"),
            candidate(4, 1, "tags.a = 1"),
            candidate(5, 99, "FROM devices.modules"),
            candidate(6, 98, "*"),
        ];
        let judge = |document: Value| {
            let document = object(document);
            let (targeting, applying) = choose(&candidates, Collection::Devices, &document);
            let keys: Vec<i64> = targeting.iter().map(|candidate| candidate.key).collect();
            (keys, applying.map(|candidate| candidate.key))
        };
        assert_eq!(judge(json!({"tags":{"a":1}})), (vec![1, 3, 4], Some(3)));
        assert_eq!(judge(json!({"tags":{"a":2}})), (vec![2, 3], Some(2)));
        assert_eq!(judge(json!({"tags":{}})), (vec![3], Some(3)));
        assert_eq!(judge(json!({"capabilities":{"iotEdge":true}})), (vec![3, 6], Some(6)));
    }

    fn draft(content: Value) -> Draft {
        let content = object(content);
        let part = |name: &str| content.get(name).map(|part| serde_json::from_value(part.clone()).unwrap());
        Draft {
            id: ConfigurationId::parse("c").unwrap(),
            schema_version: "1.0".to_owned(),
            labels: Map::new(),
            content: Content {
                device: part("device"),
                modules: content.get("modules").map(|part| serde_json::from_value(part.clone()).unwrap()),
                module: part("module"),
            },
            target: "*".to_owned(),
            priority: 0,
            metrics: BTreeMap::new(),
        }
    }

    #[test]
    fn content_is_for_desired_properties_alone() {
        let checked = |content| draft(content).check().map_err(|invalid| invalid.to_string());
        assert_eq!(checked(json!({"device":{"properties.desired.a.b":{"c":1}}})), Ok(()));
        assert_eq!(checked(json!({"modules":{"$edgeAgent":{"properties.desired":{"a":1}}}})), Ok(()));
        let cases = [
            (json!({}), "the content is for no device and no module"),
            (json!({"device":{"tags.a":1}}), "\"tags.a\" is no path of desired properties"),
            (json!({"device":{"properties.desiredx":1}}), "\"properties.desiredx\" is no path of desired properties"),
            (json!({"device":{"properties.desired":1}}), "the desired properties of a twin are an object"),
            (json!({"modules":{"a b":{}}}), "\"a b\" is no name of a module"),
        ];
        for (content, expected) in cases {
            assert_eq!(checked(content), Err(expected.to_owned()));
        }
        assert!(checked(json!({"device":{"properties.desired.a..b":1}})).is_err());
        assert!(checked(json!({"device":{"properties.desired.a":{"$b":1}}})).is_err());
        let with = |target: &str, metric: &str| Draft {
            target: target.to_owned(),
            metrics: [("m".to_owned(), metric.to_owned())].into(),
            ..draft(json!({"device":{"properties.desired.a":1}}))
        };
        assert_eq!(with("", "SELECT deviceId FROM devices").check(), Ok(()));
        assert!(with("tags.a =", "SELECT deviceId FROM devices").check().is_err());
        assert!(with("*", "SELECT").check().is_err());
        assert!(with("*", "SELECT * FROM devices.jobs").check().is_err());
    }

    #[test]
    fn the_modules_of_a_device_are_those_named_and_those_that_the_agent_runs() {
        let content = json!({"modules":{
            "$edgeAgent":{"properties.desired":{"modules":{"sensor":{},"filter":{}}},"properties.desired.modules.late":{}},
            "$edgeHub":{"properties.desired":{}},
            "sensor":{"properties.desired":{"a":1}},
        }});
        let names: Vec<String> = draft(content).content.modules().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["$edgeAgent", "$edgeHub", "filter", "late", "sensor"]);
    }
}
