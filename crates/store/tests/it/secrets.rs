//! No key lies in the open: every file of a data folder is searched for every key, raw, in hexadecimal and in base64.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::decision::Cause;
use domain::enrollment::{Attestation, CustomAllocation};
use domain::ids::Precondition;
use domain::resource::AddressPool;
use domain::route::{AmqpAddress, AmqpKind, Endpoint, Routing, SecretText, Target, Url, Webhook, WebhookMode};
use domain::sas::{KeyPair, SymmetricKey};
use store::conformance::Done as _;
use store::conformance::sample::{
    NOON, admitted, device, finish, hub, identity, individual, key_group, keys, operation, plan, proven, refused,
    service,
};
use store::ports::{
    DecisionStore as _, Deployment, EnrollmentStore as _, IdentityStore as _, RegistrationStore as _,
    ResourceStore as _, Sealed,
};
use store::sqlite::{Embedded, Options};

const WEBHOOK: &str = "https://example.org/allocate?code=a-secret-of-the-webhook";

/// Every way in which a secret might be spelled.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut hex = String::new();
    for byte in secret {
        write!(hex, "{byte:02x}").unwrap();
    }
    let upper = hex.to_uppercase();
    let mut spellings = vec![secret.to_vec(), hex.into_bytes(), upper.into_bytes()];
    if let Ok(key) = SymmetricKey::from_bytes(secret) {
        let base64 = key.to_base64();
        // Without padding, so that it is found inside longer values as well.
        spellings.push(base64.trim_end_matches('=').as_bytes().to_vec());
    }
    spellings
}

fn both(keys: &KeyPair) -> [Vec<u8>; 2] {
    [keys.primary.bytes().to_vec(), keys.secondary.bytes().to_vec()]
}

/// Endpoints with secrets, which stand in [`ENDPOINT_SECRETS`].
fn routing() -> Routing {
    let amqp = "amqps://user:secret-of-the-container@host/address";
    let amqp = AmqpAddress::parse(AmqpKind::Container, amqp, None).unwrap();
    let url = Url::parse("https://example.org/in", &[("https", 443)], "").unwrap();
    let headers = vec![("X-Key".to_owned(), SecretText::new(ENDPOINT_SECRETS[1]))];
    let webhook = Webhook { url, mode: WebhookMode::Single, headers, authority: None };
    let endpoint =
        |name: &str, target| Endpoint { name: name.parse().unwrap(), target, labels: serde_json::Map::new() };
    let endpoints = vec![endpoint("a", Target::Amqp(amqp)), endpoint("w", Target::Webhook(webhook))];
    Routing { endpoints, ..Routing::default() }
}

const ENDPOINT_SECRETS: [&str; 2] = ["secret-of-the-container", "secret-of-a-header"];

/// Puts every kind of secret into a store; gives them.
async fn fill(store: &Embedded) -> Vec<Vec<u8>> {
    let mut secrets = vec![vec![0x5a; 24], vec![0xa5; 32], WEBHOOK.as_bytes().to_vec(), b"AccountKey=hidden".to_vec()];
    secrets.extend(ENDPOINT_SECRETS.map(|secret| secret.as_bytes().to_vec()));
    let deployment = Deployment {
        subscription: "s".to_owned(),
        tenant: "t".to_owned(),
        client: "c".to_owned(),
        client_secret: Sealed(secrets.first().cloned().unwrap_or_default()),
        token_key: Sealed(secrets.get(1).cloned().unwrap_or_default()),
        created_at: NOON,
    };
    store.deployment(deployment).await.unwrap();
    let hub = domain::resource::Hub { routing: routing(), ..hub("hub") };
    let hub = store.create_hub(hub, Some(AddressPool::Loopback), NOON).await.unwrap().done();
    let service = store.create_service(service("dps", "0neX"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    for policy in hub.policies.iter().chain(&service.policies) {
        secrets.extend(both(&policy.keys));
    }
    let mut entry = individual("dev-1", 51);
    entry.terms.custom_allocation =
        Some(CustomAllocation { webhook_url: WEBHOOK.to_owned(), api_version: "2021-10-01".to_owned() });
    for (number, entry) in [(1, entry), (2, key_group("group", 52))] {
        let Attestation::SymmetricKey(keys) = &entry.attestation else { panic!("an entry without keys") };
        secrets.extend(both(keys));
        let entry = store.create_enrollment(service.key, entry, NOON).await.unwrap().done();
        let replaced = store.replace_enrollment(service.key, entry.clone(), Precondition::None, NOON).await.unwrap();
        let entry = replaced.done();
        let device = proven(service.key, "dev-1", &entry);
        store.accept_registration(&device, operation(number), None, admitted(number, "dev-1"), NOON).await.unwrap();
        for claimed in store.claim_operations(9).await.unwrap() {
            let plan = plan(hub.key, "dev-1");
            store.plan_assignment(claimed.operation, claimed.attempt, plan, NOON).await.unwrap().done();
            store.finish_assignment(claimed.operation, claimed.attempt, finish(53), NOON).await.unwrap().done();
        }
    }
    store.create_identity(hub.key, identity(device("dev-2"), 54), None, NOON).await.unwrap().done();
    store.record_refusal(refused(2, "dev-1", Cause::WrongKey));
    store.list_decisions("dev-1", 9).await.unwrap();
    secrets.extend([53, 54].iter().flat_map(|&seed| both(&keys(seed))));
    secrets
}

fn search(folder: &Path, needles: &[Vec<u8>]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, needles);
            continue;
        }
        let content = fs::read(&path).unwrap();
        for needle in needles {
            let found = content.windows(needle.len()).any(|window| window == needle.as_slice());
            assert!(!found, "{} holds {:?}", path.display(), String::from_utf8_lossy(needle));
        }
    }
}

#[tokio::test]
async fn no_file_holds_a_key_in_any_spelling() {
    let place = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOON));
    let options = Options { folder: Some(place.path().to_owned()), ..Options::default() };
    let store = Embedded::open(options, clock, &SeededEntropy::new(1)).unwrap();
    let secrets = fill(&store).await;
    assert!(secrets.len() > 20, "only {} secrets were searched for", secrets.len());
    let needles: Vec<_> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
    search(place.path(), &needles);
    store.close().await;
    search(place.path(), &needles);
}
