//! The Muster that bad requests are sent to, and what stands in it.

use std::collections::HashMap;
use std::time::Duration;

use domain::clock::UnixTime;
use domain::sas::{SasToken, SymmetricKey};
use serde_json::Value;
use testkit::raw_http::{NoAnswer, PATIENCE, RawAnswer, RawHttp, RawRequest};
use testkit::whole::Muster;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::request::{Parts, Tokens};
use crate::table::{Api, Entity, Operation, testdata};

/// How long tokens hold.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// When the expired token ended: longer ago than any leeway.
const AGO_S: i64 = 3_600;
/// The key of every device and enrollment of the tables.
pub const DEVICE_KEY: [u8; 32] = [1; 32];
/// Stands in tables for the name of a job.
const FRESH_JOB: &str = "fresh-job";
/// The device that has registered.
pub const REGISTERED: &str = "registered";
/// The device at the hub that speaks for itself.
const KEYED: &str = "keyed";

/// What has to be so before an operation is tried.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What stands there.
    pub given: Vec<Entity>,
    /// What does not.
    pub absent: Vec<Entity>,
    /// Whether the device has registered.
    pub registers: bool,
}

/// A running Muster, connections to it, and the entities as they were when they were last put.
pub struct Ground {
    muster: Muster,
    connections: HashMap<Api, RawHttp<TlsStream<TcpStream>>>,
    operation: String,
    /// Jobs that were put so far.
    jobs: usize,
    scene: Scene,
    seen: Vec<Option<Value>>,
}

impl Ground {
    /// Starts a Muster.
    pub async fn start() -> Self {
        let muster = Muster::start().await.unwrap();
        Self {
            muster,
            connections: HashMap::new(),
            operation: String::new(),
            jobs: 0,
            scene: Scene::default(),
            seen: Vec::new(),
        }
    }

    /// The Muster itself.
    pub const fn muster(&self) -> &Muster {
        &self.muster
    }

    /// Stops it.
    pub async fn stop(self) {
        drop(self.connections);
        self.muster.stop().await;
    }

    /// Sends a request over the connection of its API, which is opened if it is not there.
    pub async fn send(&mut self, api: Api, request: &RawRequest) -> Result<RawAnswer, NoAnswer> {
        if !self.connections.get(&api).is_some_and(RawHttp::is_open) {
            let stream = match api {
                Api::Management => self.muster.dial_admin().await.unwrap(),
                _ => self.muster.dial_https(self.host(api)).await.unwrap(),
            };
            self.connections.insert(api, RawHttp::new(stream));
        }
        let request = self.named(request);
        self.connections.get_mut(&api).unwrap().exchange(&request).await
    }

    /// The request with a name of its own for a job that is put, and with that of the last one for others: no name is
    /// free again.
    fn named(&mut self, request: &RawRequest) -> RawRequest {
        let mut request = request.clone();
        if !request.target.contains(FRESH_JOB) {
            return request;
        }
        self.jobs += usize::from(request.method == "PUT");
        let name = format!("job-{}", self.jobs);
        request.target = request.target.replace(FRESH_JOB, &name);
        if let Ok(body) = std::str::from_utf8(&request.body) {
            request.body = body.replace(FRESH_JOB, &name).into_bytes();
        }
        request
    }

    /// Puts the entities of `scene` in place of those that stand there.
    pub async fn prepare(&mut self, scene: &Scene) {
        let all = scene.absent.iter().chain(scene.given.iter().rev());
        for entity in all.filter(|entity| !entity.stays) {
            let answer = self.send(entity.api, &self.to_entity("DELETE", entity)).await.unwrap();
            assert!(matches!(answer.status, 200 | 204 | 404), "DELETE {}: {}", entity.path, answer.text());
        }
        for entity in &scene.given {
            let answer = self.send(entity.api, &self.to_entity("PUT", entity)).await.unwrap();
            assert!(matches!(answer.status, 200 | 201), "PUT {}: {}", entity.path, answer.text());
        }
        if scene.registers {
            self.register().await;
        }
        self.scene = scene.clone();
        self.seen = self.read().await;
    }

    /// The entities as they stand there; that they can be read shows that the server is well.
    async fn read(&mut self) -> Vec<Option<Value>> {
        let Scene { given, absent, .. } = self.scene.clone();
        let mut found = Vec::new();
        for entity in given.iter().chain(&absent) {
            let answer = self.send(entity.api, &self.to_entity("GET", entity)).await.unwrap();
            assert!(matches!(answer.status, 200 | 404), "GET {}: {}", entity.path, answer.text());
            found.push((answer.status == 200).then(|| document(&answer.body)));
        }
        found
    }

    /// Whether the entities are as they were put.
    pub async fn is_unchanged(&mut self) -> bool {
        self.read().await == self.seen
    }

    /// Lets the device register, and waits until it is assigned.
    async fn register(&mut self) {
        let api = Api::ProvisioningDevice;
        let path = format!("/{}/registrations/{REGISTERED}", self.muster.id_scope);
        let answer = self.send(api, &self.plain(api, "PUT", &format!("{path}/register"), b"{}")).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["operationId"].as_str().unwrap().clone_into(&mut self.operation);
        let poll = self.plain(api, "GET", &format!("{path}/operations/{}", self.operation), b"");
        let assigned = async {
            while self.send(api, &poll).await.unwrap().status != 200 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, assigned).await.expect("the device is assigned");
    }

    fn to_entity(&self, method: &str, entity: &Entity) -> RawRequest {
        let body = if method == "PUT" { self.filled(&entity.body).to_string() } else { String::new() };
        let mut request = self.plain(entity.api, method, &self.filled_text(&entity.path), body.as_bytes());
        // An update, where creating is not possible; a removal, whatever the version.
        if method == "DELETE" || entity.path.starts_with("/twins") {
            request.headers.push(("If-Match".to_owned(), b"\"*\"".to_vec()));
        }
        request
    }

    fn plain(&self, api: Api, method: &str, path: &str, body: &[u8]) -> RawRequest {
        let headers = self.headers(api, &self.tokens(api).good);
        let target = format!("{path}?api-version=2021-04-12");
        RawRequest { method: method.to_owned(), target, headers, body: body.to_vec() }
    }

    /// The parts of a good request for `operation`.
    pub fn parts(&self, api: Api, operation: &Operation) -> Parts {
        let texts = |values: &serde_json::Map<String, Value>| -> Vec<(String, String)> {
            values.iter().map(|(name, value)| (name.clone(), self.filled_text(value.as_str().unwrap()))).collect()
        };
        let mut headers = self.headers(api, &self.tokens(api).good);
        headers.retain(|(name, _)| !operation.headers.contains_key(name));
        headers.extend(texts(&operation.headers).into_iter().map(|(name, value)| (name, value.into_bytes())));
        Parts {
            method: operation.method.clone(),
            path: operation.path.clone(),
            parameters: texts(&operation.parameters),
            query: texts(&operation.query),
            headers,
            body: operation.body.as_ref().map(|body| self.filled(body).to_string().into_bytes()).unwrap_or_default(),
        }
    }

    /// `value` with the names and certificates of this Muster in place of the words in braces.
    pub fn filled(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.filled_text(text)),
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), self.filled(value))).collect(),
            other => other.clone(),
        }
    }

    fn filled_text(&self, text: &str) -> String {
        if let Some(file) = text.strip_prefix("{pem ").and_then(|text| text.strip_suffix('}')) {
            return std::fs::read_to_string(testdata().join("certificates").join(file)).unwrap();
        }
        let Muster { hub, id_scope, admin, .. } = &self.muster;
        let text = text.replace("{hub}", &hub.host).replace("{idScope}", id_scope);
        text.replace("{operation}", &self.operation).replace("{subscription}", &admin.subscription).replace(
            "{hubConnection}",
            &format!(
                "HostName={};SharedAccessKeyName={};SharedAccessKey={}",
                hub.host,
                hub.owner.policy,
                hub.owner.key.to_base64()
            ),
        )
    }

    /// What `api` is dialled as.
    pub fn host(&self, api: Api) -> &str {
        match api {
            Api::ProvisioningService => &self.muster.provisioning.host,
            Api::ProvisioningDevice => &self.muster.device_host,
            Api::Hub | Api::HubDevice => &self.muster.hub.host,
            Api::Management => &self.muster.admin.host,
        }
    }

    /// What every request for `api` has.
    pub fn headers(&self, api: Api, token: &str) -> Vec<(String, Vec<u8>)> {
        let headers =
            [("Host", self.host(api)), ("Authorization", token), ("Content-Type", "application/json; charset=utf-8")];
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
    }

    /// Tokens for `api`.
    pub fn tokens(&self, api: Api) -> Tokens {
        let Muster { provisioning, hub, id_scope, admin, .. } = &self.muster;
        let device_key = SymmetricKey::from_bytes(&DEVICE_KEY).unwrap();
        let (resource, key, policy) = match api {
            Api::ProvisioningService => {
                (provisioning.host.clone(), &provisioning.owner.key, Some(&*provisioning.owner.policy))
            }
            Api::Management => return bearer_tokens(&admin.token),
            Api::Hub => (hub.host.clone(), &hub.owner.key, Some(&*hub.owner.policy)),
            Api::HubDevice => (format!("{}%2Fdevices%2F{KEYED}", hub.host), &device_key, None),
            Api::ProvisioningDevice => {
                (format!("{id_scope}%2Fregistrations%2F{REGISTERED}"), &device_key, Some("registration"))
            }
        };
        let now = self.muster.clock().now();
        let later = now.plus(TOKEN_LIFETIME);
        let write = |key, resource: &str, policy: Option<&str>, until| SasToken::write(key, resource, policy, until);
        let good = write(key, &resource, policy, later);
        let other_key = SymmetricKey::from_bytes(&[9; 32]).unwrap();
        let without = |field: &str| {
            let (scheme, fields) = good.split_once(' ').unwrap();
            let kept: Vec<_> = fields.split('&').filter(|one| !one.starts_with(field)).collect();
            format!("{scheme} {}", kept.join("&"))
        };
        let bad = vec![
            ("of another scheme", format!("Basic {}", good.split_once(' ').unwrap().1)),
            ("the scheme alone", "SharedAccessSignature".to_owned()),
            ("without sr", without("sr=")),
            ("without sig", without("sig=")),
            ("without se", without("se=")),
            ("signed with another key", write(&other_key, &resource, policy, later)),
            ("for another resource", write(key, "elsewhere", policy, later)),
            ("of an unknown policy", write(key, &resource, Some("nobody"), later)),
            ("expired", write(key, &resource, policy, UnixTime::from_seconds(now.seconds() - AGO_S))),
            ("with a huge expiry", format!("{}{}", without("se="), "&se=99999999999999999999999")),
            ("with a field twice", format!("{good}&sr={resource}")),
            ("with a wildcard", write(key, "%2A", policy, later)),
        ];
        Tokens { good, bad }
    }
}

/// An entity as it stands there, but for when its device was last heard, which is noted a while after.
fn document(body: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(body).unwrap();
    if let Some(members) = document.as_object_mut() {
        members.remove("lastActivityTime");
    }
    document
}

fn bearer_tokens(token: &str) -> Tokens {
    let good = format!("Bearer {token}");
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { panic!("a token has three parts") };
    let unsigned = "eyJhbGciOiJub25lIn0";
    let bad = vec![
        ("of another scheme", format!("Basic {token}")),
        ("the scheme alone", "Bearer".to_owned()),
        ("cut short", good.get(..good.len() - 8).unwrap_or_default().to_owned()),
        ("without a signature", format!("Bearer {head}.{claims}.")),
        ("that says it needs none", format!("Bearer {unsigned}.{claims}.")),
        ("with other claims", format!("Bearer {head}.{}.{signature}", claims.to_ascii_lowercase())),
        ("with a part more", format!("{good}.{signature}")),
    ];
    Tokens { good, bad }
}
