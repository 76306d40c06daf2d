//! Bodies of any kind are a resource, a certificate or a demand for a token, or are refused; what is accepted can be
//! shown, and put again as shown.

use bytes::Bytes;
use dialect::http::Target;
use dialect::management::{self, arm, oauth};
use domain::clock::{SeededEntropy, UnixTime};
use domain::ids::{Etag, HubKey, HubName, Precondition, ServiceName};
use domain::operation::resource::{
    Answer, Ask, CertificateAsk, HubDraft, LinkDraft, ServiceDraft, ShownHub, ShownService,
};
use domain::operation::{Operation, Reply};
use domain::resource::{CaCertificate, Hub, LinkedHub, ProvisioningService, ResourceGroup};
use http::Request;
use serde_json::Value;

use super::refusal;

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
const HUB: &str = "/providers/Microsoft.Devices/IotHubs/myhub";
const SERVICE: &str = "/providers/Microsoft.Devices/provisioningServices/mydps";
/// The hubs that a link can lead to.
const HUB_HOSTS: [&str; 3] = ["127.0.0.2", "myhub.example", "other.example"];
/// The version that every resource here has.
const ETAG: Etag = Etag::from_number(171);

/// Reads `input` as the body of every request that takes one.
///
/// # Panics
/// When what is accepted cannot be put again as it is shown, or a refusal says nothing.
pub fn check(input: &[u8]) {
    for (method, path) in [
        ("PUT", ""),
        ("PUT", HUB),
        ("PUT", SERVICE),
        ("PATCH", HUB),
        ("PUT", "/providers/Microsoft.Devices/IotHubs/myhub/certificates/rootca"),
        ("POST", "/providers/Microsoft.Devices/provisioningServices/mydps/certificates/rootca/verify"),
        ("POST", "/providers/Microsoft.Devices/checkNameAvailability"),
        ("POST", "/providers/Microsoft.Devices/checkProvisioningServiceNameAvailability"),
    ] {
        let path = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1{path}");
        if let Some((ask, asked)) = send(method, &path, input) {
            let shows = asked.clone();
            check_ask(
                ask,
                |answer| body(answer, &shows),
                |shown| {
                    let (ask, _) =
                        send(method, &path, shown.to_string().as_bytes()).expect("what was shown can be put");
                    ask
                },
            );
        }
    }
    check_token(input);
}

fn send(method: &str, path: &str, body: &[u8]) -> Option<(Ask, arm::Asked)> {
    let body = Bytes::copy_from_slice(body);
    let request = Request::builder().method(method).uri(format!("{path}?api-version=1")).body(body).expect("a request");
    let target = Target::parse(request.uri()).expect("a target");
    match arm::decode(&request, &target) {
        Ok((Operation::Resource(ask), asked)) => Some((ask, asked)),
        Ok((other, _)) => panic!("no operation on resources: {other:?}"),
        Err(refused) => {
            refusal::check(refused, management::refuse);
            None
        }
    }
}

fn body(answer: Answer, asked: &arm::Asked) -> Value {
    let response = arm::encode(Ok(Reply::Resource(answer)), asked);
    assert!(response.status().is_success());
    serde_json::from_slice(response.body()).expect("an answer is JSON")
}

fn check_ask(ask: Ask, show: impl Fn(Answer) -> Value, put: impl Fn(&Value) -> Ask) {
    match ask {
        Ask::PutHub { name, draft, .. } => check_hub(name, *draft, show, put),
        Ask::PutService { name, draft, .. } => check_service(name, *draft, show, put),
        Ask::PutGroup { name, location, tags, .. } => {
            let group = ResourceGroup { name, location, tags };
            let Ask::PutGroup { location, tags, .. } = put(&show(Answer::Group(Box::new(group.clone())))) else {
                panic!("a group is put as a group")
            };
            assert_eq!((location, tags), (group.location, group.tags));
        }
        Ask::Certificate { request: CertificateAsk::Put { name, certificate, verified, .. }, .. } => {
            let record = Box::new(CaCertificate::upload(name, *certificate, verified, NOW));
            let shown = show(Answer::Certificate { certificate: record.clone(), created: true });
            let Ask::Certificate { request: CertificateAsk::Put { certificate, verified, .. }, .. } = put(&shown)
            else {
                panic!("a certificate is put as a certificate")
            };
            assert_eq!((*certificate, verified), (record.certificate, record.verified));
        }
        Ask::PatchTags { tags, .. } => assert!(tags.values().all(Value::is_string)),
        Ask::Certificate { .. } | Ask::CheckHubName { .. } | Ask::CheckServiceName { .. } => {}
        other => panic!("none of the requests is {other:?}"),
    }
}

fn check_hub(name: HubName, draft: HubDraft, show: impl Fn(Answer) -> Value, put: impl Fn(&Value) -> Ask) {
    let entropy = SeededEntropy::new(1);
    let Ok(hub) = Hub::create(name, "rg1".to_owned(), draft, NOW, &entropy) else { return };
    let mut hub = Hub { etag: ETAG, ..hub };
    let show = |hub: &Hub| {
        let hub = ShownHub { hub: hub.clone(), host_name: "myhub.example".into(), subscription: SUBSCRIPTION.into() };
        show(Answer::Hub { hub: Box::new(hub), created: false })
    };
    let shown = show(&hub);
    let Ask::PutHub { draft, precondition, .. } = put(&shown) else { panic!("a hub is put as a hub") };
    assert_eq!(precondition, Precondition::Matches(ETAG));
    let before = hub.policies.clone();
    hub.apply(*draft, &entropy).expect("what was shown can be put");
    assert_eq!((show(&hub), hub.policies), (shown, before));
}

fn check_service(name: ServiceName, draft: ServiceDraft, show: impl Fn(Answer) -> Value, put: impl Fn(&Value) -> Ask) {
    let entropy = SeededEntropy::new(1);
    let links = draft.links.as_deref().and_then(|links| settle(links, &[]));
    if draft.links.is_some() && links.is_none() {
        return;
    }
    let Ok(service) = ProvisioningService::create(name, "rg1".to_owned(), (draft, links), NOW, &entropy) else {
        return;
    };
    let mut service = ProvisioningService { etag: ETAG, ..service };
    let show = |service: &ProvisioningService| {
        let service = ShownService {
            service: service.clone(),
            operations_host_name: "mydps.example".into(),
            device_host_name: "global.example".into(),
            link_host_names: service.links.iter().filter_map(|link| host_name(link.hub)).collect(),
            subscription: SUBSCRIPTION.into(),
        };
        show(Answer::Service { service: Box::new(service), created: false })
    };
    let shown = show(&service);
    let Ask::PutService { draft, precondition, .. } = put(&shown) else { panic!("a service is put as a service") };
    assert_eq!(precondition, Precondition::Matches(ETAG));
    assert!(draft.policies.is_none() && draft.links.iter().flatten().all(|link| link.credential.is_none()), "{shown}");
    let links = draft.links.as_deref().and_then(|links| settle(links, &service.links));
    assert!(links.is_some(), "the links lead where they led");
    let before = service.clone();
    service.apply(*draft, links, &entropy).expect("what was shown can be put");
    assert_eq!((show(&service), &service.policies, &service.links), (shown, &before.policies, &before.links));
}

/// The links that `drafts` describe; `None` if one leads nowhere.
fn settle(drafts: &[LinkDraft], present: &[LinkedHub]) -> Option<Vec<LinkedHub>> {
    let settle = |draft: &LinkDraft| {
        let (_, hub) = HUB_HOSTS.iter().zip(1..).find(|(host, _)| draft.host_name.eq_ignore_ascii_case(host))?;
        let present = present.iter().find(|link| link.hub == HubKey(hub));
        Some(LinkedHub::settle(draft.clone(), HubKey(hub), present))
    };
    drafts.iter().map(settle).collect()
}

fn host_name(hub: HubKey) -> Option<String> {
    HUB_HOSTS.iter().zip(1..).find(|(_, key)| HubKey(*key) == hub).map(|(host, _)| (*host).to_owned())
}

/// A form that is read says the same however it is escaped, and holds no more than was sent.
fn check_token(form: &[u8]) {
    let Some(token) = ask_for_token(form) else { return };
    let said = [token.client.as_str(), token.secret.expose(), token.audience.as_str()];
    assert!(said.iter().all(|part| part.len() <= form.len()), "decoding makes nothing longer");
    let [client, secret, audience] = said.map(escape);
    let written =
        format!("grant_type=client_credentials&client_id={client}&client_secret={secret}&scope={audience}%2F.default");
    let Some(again) = ask_for_token(written.as_bytes()) else {
        assert!(written.len() > form.len(), "{written}");
        return;
    };
    assert_eq!([again.client.as_str(), again.secret.expose(), again.audience.as_str()], said);
}

fn ask_for_token(form: &[u8]) -> Option<oauth::TokenRequest> {
    let uri = "/tenant/oauth2/v2.0/token";
    let request = Request::post(uri).body(Bytes::copy_from_slice(form)).expect("a request");
    let target = Target::parse(request.uri()).expect("a target");
    match oauth::decode(&request, &target) {
        Ok(oauth::Ask::Token(token)) => Some(token),
        Ok(other) => panic!("no demand for a token: {other:?}"),
        Err(denied) => {
            refusal::check_body(&oauth::deny(denied), &denied.to_string());
            None
        }
    }
}

fn escape(text: &str) -> String {
    let escaped: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    escaped.concat()
}
