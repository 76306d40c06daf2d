use std::time::Duration;

use domain::clock::{SeededEntropy, UnixTime};
use domain::ids::Etag;
use domain::operation::resource::{HubDraft, LinkDraft, PolicyDraft, QueueDraft, ServiceDraft, ShownHub, ShownService};
use domain::resource::{Hub, LinkedHub, ProvisioningService};
use proptest::prelude::*;

use super::*;
use crate::mqtt::script::failure;
use crate::vectors::{Exchange, body_of, request, show_precondition};

const ENTROPY_SEED: u64 = 5;
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
const CREATED: UnixTime = UnixTime::from_micros(1_706_702_400_000_000);

fn send(line: &str, headers: &[(String, String)], body: &Value) -> Result<(Operation, Asked), Refused> {
    let body = match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let (request, target) = request(line, headers, &body);
    assert!(owns(&target), "{line}");
    decode(&request, &target)
}

fn show_operation(operation: &Operation) -> String {
    use domain::operation::route::Ask;
    use domain::operation::transfer::{self, Managed};

    match operation {
        Operation::Resource(ask) => show(ask),
        Operation::Route(Ask::Health { hub, .. }) => format!("health | {hub}"),
        Operation::Route(Ask::TestAll { hub, source, sample, .. }) => {
            let source = source.map_or("any", domain::route::Source::name);
            format!("test routes | {hub} | {source} | {:?} {:?}", sample.message.body, sample.message.properties)
        }
        Operation::Route(Ask::TestNew { hub, condition, sample, .. }) => {
            format!("test route | {hub} | {condition} | {:?} {:?}", sample.message.body, sample.message.properties)
        }
        Operation::ManagedTransfer(Managed { hub, ask, .. }) => match ask {
            transfer::Ask::Create(draft) => {
                let beside = draft.configurations.as_ref().map_or("alone", |file| file.as_str());
                format!("begin | {hub} | {:?} | {beside}", draft.work)
            }
            transfer::Ask::Find(id) => format!("find job | {hub} | {id}"),
            transfer::Ask::List => format!("list jobs | {hub}"),
            transfer::Ask::Cancel(_) => panic!("{ask:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn show(ask: &Ask) -> String {
    let of = |place: &Place, name: &ResourceName| {
        let group = place.group.as_deref().unwrap();
        match name {
            ResourceName::Hub(name) => format!("hub {group}/{name}"),
            ResourceName::Service(name) => format!("service {group}/{name}"),
        }
    };
    let listed = |place: &Place| place.group.as_ref().map(|group| format!(" {group}")).unwrap_or_default();
    match ask {
        Ask::ListSubscriptions => "list subscriptions".to_owned(),
        Ask::FindSubscription(_) => "find subscription".to_owned(),
        Ask::PutGroup { name, location, tags, .. } => format!("put group | {name} | {location} | {}", json!(tags)),
        Ask::FindGroup { name, .. } => format!("find group | {name}"),
        Ask::DeleteGroup { name, .. } => format!("delete group | {name}"),
        Ask::ListGroups(_) => "list groups".to_owned(),
        Ask::ListHubs(place) => format!("list hubs{}", listed(place)),
        Ask::ListServices(place) => format!("list services{}", listed(place)),
        Ask::CheckHubName { name, .. } => format!("check hub name | {name}"),
        Ask::CheckServiceName { name, .. } => format!("check service name | {name}"),
        Ask::Find { place, name } => format!("find {}", of(place, name)),
        Ask::Delete { place, name } => format!("delete {}", of(place, name)),
        Ask::PatchTags { place, name, tags } => format!("tags {} | {}", of(place, name), json!(tags)),
        Ask::ListPolicies { place, name } => format!("policies {}", of(place, name)),
        Ask::FindPolicy { place, name, policy } => format!("policy {} {policy}", of(place, name)),
        Ask::PutHub { place, name, draft, precondition } => {
            let name = ResourceName::Hub(name.clone());
            format!("put {} | {}{}", of(place, &name), show_precondition(*precondition), show_hub_draft(draft))
        }
        Ask::PutService { place, name, draft, precondition } => {
            let name = ResourceName::Service(name.clone());
            format!("put {} | {}{}", of(place, &name), show_precondition(*precondition), show_service_draft(draft))
        }
        Ask::Certificate { place, owner, request } => {
            format!("certificates {} | {}", of(place, owner), show_certificate_ask(request))
        }
        Ask::ConsumerGroup { place, hub, request } => {
            format!("consumer groups {} | {request:?}", of(place, &ResourceName::Hub(hub.clone())))
        }
    }
}

fn show_certificate_ask(ask: &CertificateAsk) -> String {
    let line = |verb: &str, name: &CertificateName, precondition: &Precondition| {
        format!("{verb} {name} {}", show_precondition(*precondition))
    };
    match ask {
        CertificateAsk::List => "list".to_owned(),
        CertificateAsk::Find(name) => format!("find {name}"),
        CertificateAsk::Put { name, verified, precondition, .. } => {
            line("put", name, precondition) + if *verified { " vouched" } else { "" }
        }
        CertificateAsk::Delete { name, precondition } => line("delete", name, precondition),
        CertificateAsk::GenerateCode { name, precondition } => line("code", name, precondition),
        CertificateAsk::Verify { name, precondition, .. } => line("verify", name, precondition),
    }
}

fn show_hub_draft(draft: &HubDraft) -> String {
    let mut parts: Vec<String> = draft.location.iter().cloned().collect();
    if let (Some(count), Some(days)) = (draft.partition_count, draft.retention_days) {
        parts.push(format!("{count} partitions, {days} days"));
    }
    parts.extend(draft.sku.iter().map(|sku| format!("sku {}", json!(sku))));
    parts.extend(draft.policies.iter().flatten().map(show_policy_draft));
    if draft.cloud_to_device != QueueDraft::default() {
        parts.push(show_queue_draft(draft.cloud_to_device));
    }
    if let Some(draft) = &draft.routing {
        let (endpoints, routes) = (draft.routing.endpoints.len(), draft.routing.routes.len());
        parts.push(format!("{endpoints} endpoints, {routes} routes"));
    }
    if !draft.extra.is_empty() {
        parts.push(format!("extra {}", json!(draft.extra)));
    }
    after_bars(&parts)
}

fn show_queue_draft(draft: QueueDraft) -> String {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    format!(
        "messages {:?} s {:?} times, feedback {:?} s {:?} times {:?} s each",
        seconds(draft.default_ttl),
        draft.deliveries_max,
        seconds(draft.feedback_ttl),
        draft.feedback_deliveries_max,
        seconds(draft.feedback_lock)
    )
}

fn show_service_draft(draft: &ServiceDraft) -> String {
    let mut parts: Vec<String> = draft.location.iter().cloned().collect();
    parts.extend(draft.sku.iter().map(|sku| format!("sku {}", json!(sku))));
    parts.extend(draft.allocation.map(|policy| format!("{policy:?}")));
    parts.extend(draft.policies.iter().flatten().map(show_policy_draft));
    parts.extend(draft.links.iter().map(|_| "links".to_owned()));
    parts.extend(draft.links.iter().flatten().map(show_link_draft));
    after_bars(&parts)
}

fn after_bars(parts: &[String]) -> String {
    parts.iter().fold(String::new(), |shown, part| shown + " | " + part)
}

fn show_policy_draft(draft: &PolicyDraft) -> String {
    let PolicyDraft { name, rights, primary, secondary } = draft;
    let keys = if primary.is_some() && secondary.is_some() { " with keys" } else { "" };
    format!("policy {name} {rights}{keys}")
}

fn show_link_draft(draft: &LinkDraft) -> String {
    let LinkDraft { host_name, credential, weight, apply_allocation_policy, .. } = draft;
    let policy = credential.as_ref().map_or_else(|| "before".to_owned(), |credential| credential.policy.to_string());
    format!("{host_name} as {policy} {weight} {apply_allocation_policy}")
}

#[test]
fn every_request_becomes_its_operation_or_its_refusal() {
    let vectors = include_str!("../../../../../testdata/wire/management/requests.json");
    for exchange in serde_json::from_str::<Vec<Exchange<String, Value>>>(vectors).unwrap() {
        let Exchange { source, request, headers, body, asks, refused } = exchange;
        let sent = send(&request, &headers, &body).map(|(operation, _)| show_operation(&operation));
        let sent =
            sent.map_err(|refused| format!("{} {}", crate::error::status(refused.kind).as_u16(), refused.public));
        assert_eq!(sent, asks.ok_or_else(|| refused.unwrap()), "{source}: {request}");
    }
}

fn place() -> Place {
    Place { subscription: SUBSCRIPTION.to_owned(), group: Some("rg1".to_owned()) }
}

fn shown_hub() -> ShownHub {
    let name = HubName::parse("myhub").unwrap();
    let entropy = SeededEntropy::new(ENTROPY_SEED);
    let hub = Hub::create(name, "rg1".to_owned(), HubDraft::default(), CREATED, &entropy).unwrap();
    let hub = Hub { etag: Etag::from_number(171), ..hub };
    ShownHub { hub, host_name: "myhub.example".to_owned(), subscription: SUBSCRIPTION.to_owned() }
}

fn shown_service() -> ShownService {
    let name = ServiceName::parse("mydps").unwrap();
    let entropy = SeededEntropy::new(ENTROPY_SEED);
    let link = LinkedHub {
        hub: shown_hub().hub.key,
        policy: "iothubowner".to_owned(),
        location: "westus".to_owned(),
        applies: true,
        weight: 7,
    };
    let drafts = (ServiceDraft::default(), Some(vec![link]));
    let service = ProvisioningService::create(name, "rg1".to_owned(), drafts, CREATED, &entropy).unwrap();
    ShownService {
        service,
        device_host_name: "dps.example".to_owned(),
        operations_host_name: "mydps.dps.example".to_owned(),
        link_host_names: vec!["myhub.example".to_owned()],
        subscription: SUBSCRIPTION.to_owned(),
    }
}

fn tell(answer: Answer, asked: &Asked) -> Response<Bytes> {
    encode(Ok(Reply::Resource(answer)), asked)
}

/// `contract/control-plane.md 3.7`.
#[test]
fn keys_are_shown_to_those_who_put_them() {
    for (keys, count) in [(Keys::Shown, Some(5)), (Keys::Hidden, None)] {
        let response = tell(Answer::Hub { hub: Box::new(shown_hub()), created: true }, &Asked::Resource(keys));
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = body_of(&response);
        assert_eq!(body["properties"]["authorizationPolicies"].as_array().map(Vec::len), count);
        assert_eq!((&body["etag"], &body["resourcegroup"]), (&json!("00000000000000ab"), &json!("rg1")));
        assert_eq!(body["properties"]["eventHubEndpoints"]["events"]["partitionIds"], json!(["0", "1", "2", "3"]));
    }
}

/// `contract/control-plane.md 3.5`.
#[test]
fn what_a_service_shows_can_be_put_back_and_keeps_its_links() {
    let service = Box::new(shown_service());
    let body = body_of(&tell(Answer::Service { service, created: false }, &Asked::Resource(Keys::Hidden)));
    assert!(body["properties"]["iotHubs"][0]["connectionString"].as_str().unwrap().ends_with("SharedAccessKey=****"));
    let path = body["id"].as_str().unwrap();
    let (ask, _) = send(&format!("PUT {path}?api-version=2021-10-15"), &[], &body).unwrap();
    let expected = format!(
        "put service rg1/mydps | at {} |  | sku {{\"name\":\"S1\",\"tier\":\"Standard\",\"capacity\":1}} | Hashed | \
         links | myhub.example as before 7 true",
        shown_service().service.etag.number()
    );
    assert_eq!(show_operation(&ask), expected);
    let Operation::Resource(Ask::PutService { draft, .. }) = ask else { panic!() };
    assert!(draft.policies.is_none(), "the policies are kept: none were shown");
}

/// `contract/control-plane.md 3.6`.
#[test]
fn a_certificate_shows_its_code_to_whoever_asked_for_one() {
    let pem = include_str!("../../../../../testdata/certificates/root-p384.pem");
    let certificate = domain::certificate::Certificate::from_upload(pem).unwrap();
    let name = CertificateName::parse("rootca").unwrap();
    let mut record = domain::resource::CaCertificate::upload(name, certificate, false, CREATED);
    record.ask_for_proof(&SeededEntropy::new(ENTROPY_SEED), CREATED);
    for with_code in [true, false] {
        let owner = ResourceName::Hub(HubName::parse("myhub").unwrap());
        let asked = Asked::Certificate { place: place(), owner, with_code };
        let certificate = Box::new(record.clone());
        let body = body_of(&tell(Answer::Certificate { certificate, created: false }, &asked));
        assert_eq!(body["properties"]["verificationCode"].is_string(), with_code);
        assert_eq!(body["properties"]["created"], json!("Wed, 31 Jan 2024 12:00:00 GMT"));
        assert_eq!(body["properties"]["isVerified"], json!(false));
        let shown = body["properties"]["certificate"].as_str().unwrap();
        assert_eq!(domain::certificate::Certificate::from_upload(shown).unwrap(), record.certificate);
    }
}

#[test]
fn absence_and_failure_are_told_as_resource_manager_does() {
    for (existed, status) in [(true, StatusCode::OK), (false, StatusCode::NO_CONTENT)] {
        assert_eq!(tell(Answer::Deleted { existed }, &Asked::Other).status(), status);
    }
    let group = domain::resource::ResourceGroup {
        name: "rg1".to_owned(),
        location: "westus".to_owned(),
        tags: serde_json::Map::new(),
    };
    for (only_existence, status) in [(true, StatusCode::NO_CONTENT), (false, StatusCode::OK)] {
        let asked = Asked::Group { subscription: SUBSCRIPTION.to_owned(), only_existence };
        assert_eq!(tell(Answer::Group(Box::new(group.clone())), &asked).status(), status);
    }
    let response = encode(Err(failure(ErrorKind::ResourceNotFound)), &Asked::Other);
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(body_of(&response)["error"]["code"], json!("ResourceNotFound"));
    let other = Reply::Telemetry(domain::operation::telemetry::Answer::Stored);
    assert_eq!(encode(Ok(other), &Asked::Other).status(), StatusCode::INTERNAL_SERVER_ERROR);
}

proptest! {
    #[test]
    fn no_request_panics(
        method in "GET|PUT|POST|DELETE|PATCH|HEAD",
        path in "(IotHubs|provisioningServices|[a-z%]{1,5})(/(keys|certificates|verify|listkeys|%[0-9a-f]{2}|[a-z]{1,4})){0,4}",
        body in "(\\{\"(properties|tags|certificate|etag)\":.{0,30}\\}|.{0,40})",
    ) {
        let uri = format!("/subscriptions/a/resourceGroups/b/providers/Microsoft.Devices/{path}?api-version=1");
        let Ok(request) = Request::builder().method(&*method).uri(uri).body(Bytes::from(body)) else { return Ok(()) };
        if let Ok(target) = Target::parse(request.uri()) {
            let _ = decode(&request, &target);
        }
    }
}
