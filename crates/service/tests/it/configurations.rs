//! Configurations as the worker brings them to twins: modules are made, queries are counted, what is refused.

use std::collections::BTreeMap;

use domain::clock::Clock as _;
use domain::configuration::{Content, Draft};
use domain::enrollment::Capabilities;
use domain::identity::Identity;
use domain::ids::{ConfigurationId, DeviceId, ModuleId, Precondition};
use domain::operation::configuration::{Answer, Ask, Counted};
use domain::operation::identity::IdentityName;
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use domain::query::GROUPS_MAX;
use serde_json::{Map, Value};
use service::EndpointOf;
use store::conformance::sample::{device, identity, object};
use store::ports::{IdentityStore as _, TwinStore as _};

use crate::ground::Ground;

const CONTENT: &str = r#"{"properties.desired.fan":7}"#;

fn draft(id: &str, target: &str) -> Draft {
    Draft {
        id: ConfigurationId::parse(id).unwrap(),
        schema_version: "1.0".to_owned(),
        labels: Map::new(),
        content: Content { device: Some(object(CONTENT)), ..Content::default() },
        target: target.to_owned(),
        priority: 0,
        metrics: BTreeMap::new(),
    }
}

fn modules() -> Content {
    let modules = r#"{"$edgeAgent":{"properties.desired.modules.part":{}},"part":{"properties.desired.rate":5}}"#;
    Content { modules: Some(serde_json::from_str(modules).unwrap()), ..Content::default() }
}

impl Ground {
    async fn add_device(&self, name: &str, iot_edge: bool) {
        let identity = Identity { capabilities: Capabilities { iot_edge }, ..identity(device(name), 1) };
        self.store.create_identity(self.hub().key, identity, None, self.clock.now()).await.unwrap();
    }

    async fn ask_configuration(&self, ask: Ask) -> Result<Answer, Failure> {
        let program = self.program(&EndpointOf::Hub(self.hub()));
        match self.service.perform(&program, Operation::Configuration(ask)).await? {
            Reply::Configuration(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    async fn put_configuration(&self, draft: Draft) -> Result<Counted, Failure> {
        match self.ask_configuration(Ask::Put { draft: Box::new(draft), precondition: Precondition::None }).await? {
            Answer::Configuration(counted) => Ok(*counted),
            other => panic!("{other:?}"),
        }
    }

    async fn apply(&self, name: &str, content: Content) -> Result<Answer, Failure> {
        let device = DeviceId::parse(name).unwrap();
        self.ask_configuration(Ask::Apply { device, content: Box::new(content) }).await
    }

    /// Brings all twins into line, as the worker does.
    async fn judge(&self) {
        while self.service.judge_twins().await.unwrap() {}
    }

    async fn desired(&self, name: &IdentityName) -> Option<String> {
        let (twin, _) = self.store.find_twin(self.hub().key, name).await.unwrap()?;
        Some(Value::Object(twin.desired.document().clone()).to_string())
    }
}

fn part_of(name: &str) -> IdentityName {
    IdentityName { module: Some(ModuleId::parse("part").unwrap()), ..device(name) }
}

#[tokio::test]
async fn a_deployment_makes_the_modules_that_it_is_for() {
    let ground = Ground::new().await;
    ground.add_device("edge", true).await;
    ground.add_device("dev", false).await;
    ground.put_configuration(Draft { content: modules(), ..draft("c", "*") }).await.unwrap();
    ground.judge().await;
    assert_eq!(ground.desired(&part_of("edge")).await.as_deref(), Some(r#"{"rate":5}"#));
    assert_eq!(ground.desired(&part_of("dev")).await, None, "it is no edge device");
}

#[tokio::test]
async fn content_is_put_into_one_edge_device_and_its_modules() {
    let ground = Ground::new().await;
    ground.add_device("edge", true).await;
    ground.add_device("dev", false).await;
    for _ in 0..2 {
        let applied = ground.apply("edge", Content { device: Some(object(CONTENT)), ..modules() }).await;
        assert!(matches!(applied, Ok(Answer::Applied)));
    }
    assert_eq!(ground.desired(&device("edge")).await.as_deref(), Some(r#"{"fan":7}"#));
    let (twin, _) = ground.store.find_twin(ground.hub().key, &part_of("edge")).await.unwrap().unwrap();
    assert_eq!((twin.desired.version(), twin.desired.document().clone()), (2, object(r#"{"rate":5}"#)));
    let kinds = [
        ground.apply("dev", modules()).await.unwrap_err().kind,
        ground.apply("none", modules()).await.unwrap_err().kind,
        ground.apply("edge", Content::default()).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::InvalidArgument, ErrorKind::DeviceNotFound, ErrorKind::InvalidContent]);
}

#[tokio::test]
async fn the_rows_of_metrics_are_counted() {
    let ground = Ground::new().await;
    for name in ["a", "b", "c"] {
        ground.add_device(name, false).await;
    }
    let queries = [
        ("all", "SELECT * FROM devices", 3),
        ("some", "SELECT deviceId FROM devices WHERE properties.desired.fan = 7", 0),
        ("two", "SELECT TOP 2 deviceId FROM devices", 2),
        ("groups", "SELECT status, COUNT() AS devices FROM devices GROUP BY status", 1),
        ("applied", "SELECT deviceId FROM devices WHERE configurations.[[c]].status = 'Applied'", 0),
    ];
    let metrics = queries.iter().map(|(name, text, _)| ((*name).to_owned(), (*text).to_owned())).collect();
    let counted = ground.put_configuration(Draft { metrics, ..draft("c", "deviceId = 'a'") }).await.unwrap().metrics;
    let expected: BTreeMap<String, u64> = queries.iter().map(|(name, _, rows)| ((*name).to_owned(), *rows)).collect();
    assert_eq!(counted, expected);
    ground.judge().await;
    let found = ground.ask_configuration(Ask::Find(ConfigurationId::parse("c").unwrap())).await.unwrap();
    let Answer::Configuration(found) = found else { panic!("{found:?}") };
    assert_eq!((found.metrics.get("some"), found.metrics.get("applied")), (Some(&1), Some(&1)));
    assert_eq!((found.configuration.targeted, found.configuration.applied), (1, 1));
}

#[tokio::test]
async fn a_query_that_makes_too_many_groups_has_no_count() {
    let ground = Ground::new().await;
    for number in 0..=GROUPS_MAX {
        ground.add_device(&format!("dev-{number}"), false).await;
    }
    let queries = [
        ("devices", "SELECT * FROM devices"),
        ("groups", "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId"),
    ];
    let metrics = queries.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let counted = ground.put_configuration(Draft { metrics, ..draft("c", "deviceId = 'a'") }).await.unwrap().metrics;
    assert_eq!(counted, BTreeMap::from([("devices".to_owned(), GROUPS_MAX as u64 + 1)]));
}

#[tokio::test]
async fn a_list_counts_no_more_than_it_may() {
    const CONFIGURATIONS: usize = 55;
    const METRICS: usize = 20;
    let ground = Ground::new().await;
    ground.add_device("dev", false).await;
    let metrics: BTreeMap<_, _> =
        (0..METRICS).map(|number| (format!("m{number}"), "SELECT * FROM devices".to_owned())).collect();
    for number in 0..CONFIGURATIONS {
        let draft = Draft { metrics: metrics.clone(), ..draft(&format!("c-{number}"), "tags.a = 1") };
        ground.put_configuration(draft).await.unwrap();
    }
    let Ok(Answer::Configurations(listed)) = ground.ask_configuration(Ask::List { limit: 100 }).await else {
        panic!("they are listed");
    };
    let counted: usize = listed.iter().map(|found| found.metrics.len()).sum();
    assert_eq!((listed.len(), counted), (CONFIGURATIONS, 1_000));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_named() {
    let ground = Ground::new().await;
    let metric = |text: &str| [("m".to_owned(), text.to_owned())].into();
    let cases = [
        (Draft { content: Content::default(), ..draft("c", "*") }, ErrorKind::InvalidContent),
        (draft("c", "tags.a ="), ErrorKind::InvalidArgument),
        (draft("c", "FROM devices.jobs"), ErrorKind::InvalidArgument),
        (Draft { metrics: metric("SELECT"), ..draft("c", "*") }, ErrorKind::InvalidArgument),
        (
            Draft { labels: object(&format!(r#"{{"a":"{}"}}"#, "x".repeat(300_000))), ..draft("c", "*") },
            ErrorKind::TooLarge,
        ),
    ];
    for (case, kind) in cases {
        assert_eq!(ground.put_configuration(case).await.unwrap_err().kind, kind);
    }
    let tested = ground.ask_configuration(Ask::Test { target: "tags.a =".to_owned(), metrics: metric("SELECT") }).await;
    let Ok(Answer::Tested { target, metrics }) = tested else { panic!("{tested:?}") };
    assert!(target.is_some() && metrics.contains_key("m"));
    let tested =
        ground.ask_configuration(Ask::Test { target: String::new(), metrics: metric("SELECT * FROM devices") }).await;
    assert!(matches!(tested, Ok(Answer::Tested { target: None, metrics }) if metrics.is_empty()));
}
