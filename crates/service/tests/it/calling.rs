//! Direct methods: who is told, in which order, and what callers hear when nothing comes back.

use std::time::Duration;

use bytes::Bytes;
use domain::ids::MethodName;
use domain::method::{CALLS_PER_IDENTITY_MAX, Call, InvalidPayload, NoResponse, Payload, Request, Response, Timeouts};
use domain::operation::identity::IdentityName;
use domain::operation::method::{Answer, Ask};
use domain::operation::session::{
    Answer as SessionAnswer, Ask as SessionAsk, ConnectedDevice, Filter, Memory, QualityOfService, Subscriptions,
};
use domain::operation::{ErrorKind, Failure, Operation, Push, Reply};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use service::{EndpointOf, Mailbox};
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, module};
use store::ports::IdentityStore as _;
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE};

/// Longer than a test runs.
const LONG: Duration = Duration::from_secs(300);
/// Too short for anything to be answered by somebody who does nothing.
const SHORT: Duration = Duration::from_millis(20);

async fn ground_with(name: &IdentityName) -> Ground {
    let ground = Ground::new().await;
    ground.store.create_identity(ground.hub().key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    ground
}

/// A device that is connected.
pub struct Device {
    seat: ConnectedDevice,
    mailbox: Mailbox,
}

impl Device {
    pub async fn connect(ground: &Ground, name: &IdentityName) -> Self {
        Self::let_in(ground, ground.seat_by_policy(name).await)
    }

    fn let_in(ground: &Ground, reply: Reply) -> Self {
        let Reply::Session(SessionAnswer::Connected { device: seat, .. }) = reply else { panic!("let in") };
        Self { mailbox: ground.service.mailbox(&seat).unwrap(), seat }
    }

    pub async fn listen(&self, ground: &Ground, filter: Filter) {
        self.subscribe(ground, filter, false).await;
    }

    async fn subscribe(&self, ground: &Ground, filter: Filter, is_kept: bool) {
        let mut subscriptions = Subscriptions::default();
        subscriptions.insert(filter, QualityOfService::AtMostOnce);
        let ask = SessionAsk::Subscribe { device: self.seat.clone(), subscriptions, is_kept };
        self.ask(ground, Operation::Session(ask)).await;
    }

    async fn leave(&self, ground: &Ground) {
        self.ask(ground, Operation::Session(SessionAsk::Disconnect { device: self.seat.clone() })).await;
    }

    async fn told(&self) -> Request {
        match timeout(PATIENCE, self.mailbox.next()).await.expect("a push") {
            Push::Method(request) => request,
            other => panic!("{other:?}"),
        }
    }

    async fn respond(&self, ground: &Ground, request: &Request, response: Result<Response, NoResponse>) {
        let ask = Ask::Respond { device: self.seat.clone(), request: request.id, response };
        self.ask(ground, Operation::Method(ask)).await;
    }

    async fn ask(&self, ground: &Ground, operation: Operation) {
        let caller = ground.program(&EndpointOf::Hub(ground.hub()));
        ground.service.perform(&caller, operation).await.unwrap();
    }
}

fn said(text: &str) -> Response {
    Response { status: 200, payload: Payload::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap() }
}

async fn invoke(
    ground: &Ground,
    name: &IdentityName,
    payload: &str,
    waits: [Duration; 2],
) -> Result<Response, Failure> {
    let [connect, response] = waits;
    let call = Box::new(Call {
        method: MethodName::parse("reboot").unwrap(),
        payload: said(payload).payload,
        timeouts: Timeouts { connect, response },
    });
    let caller = ground.program(&EndpointOf::Hub(ground.hub()));
    let ask = Ask::Invoke { name: name.clone(), call };
    match ground.service.perform(&caller, Operation::Method(ask)).await? {
        Reply::Method(Answer::Responded(response)) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn kind(answer: Result<Response, Failure>) -> ErrorKind {
    answer.unwrap_err().kind
}

#[tokio::test]
async fn a_device_that_listens_is_told_and_its_caller_hears_what_it_says() {
    for name in [device("dev-1"), module("dev-1", "part")] {
        let ground = ground_with(&device("dev-1")).await;
        if name.module.is_some() {
            ground.store.create_identity(ground.hub().key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
        }
        let connected = Device::connect(&ground, &name).await;
        connected.listen(&ground, Filter::Methods).await;
        let answer = async {
            let request = connected.told().await;
            assert_eq!((request.method.as_str(), &request.payload), ("reboot", &said("[1]").payload));
            connected.respond(&ground, &request, Ok(said("true"))).await;
            // The second answer to one request is one that nobody waits for.
            connected.respond(&ground, &request, Ok(said("false"))).await;
        };
        let (heard, ()) = tokio::join!(invoke(&ground, &name, "[1]", [Duration::ZERO, LONG]), answer);
        assert_eq!(heard.unwrap(), said("true"));
    }
}

#[tokio::test]
async fn a_device_is_not_called_for_what_it_subscribed_to_on_a_connection_that_leaves_that_alone() {
    let name = device("dev-1");
    let ground = ground_with(&name).await;
    let connected = Device::let_in(&ground, ground.resume_by_policy(&name, Memory::Resume).await);
    connected.subscribe(&ground, Filter::Methods, true).await;
    let cases = [(Memory::LeaveAlone, ErrorKind::DeviceNotOnline), (Memory::Resume, ErrorKind::DeviceUnanswering)];
    for (memory, expected) in cases {
        let _resumed = Device::let_in(&ground, ground.resume_by_policy(&name, memory).await);
        assert_eq!(kind(invoke(&ground, &name, "1", [Duration::ZERO, SHORT]).await), expected);
    }
}

#[tokio::test]
async fn who_is_not_there_or_does_not_listen_is_not_online() {
    let name = device("dev-1");
    let ground = ground_with(&name).await;
    let at_once = [Duration::ZERO, LONG];
    assert_eq!(kind(invoke(&ground, &device("dev-2"), "1", at_once).await), ErrorKind::DeviceNotFound);
    assert_eq!(kind(invoke(&ground, &module("dev-1", "part"), "1", at_once).await), ErrorKind::DeviceNotFound);
    assert_eq!(kind(invoke(&ground, &name, "1", at_once).await), ErrorKind::DeviceNotOnline);
    let connected = Device::connect(&ground, &name).await;
    connected.listen(&ground, Filter::Desired).await;
    assert_eq!(kind(invoke(&ground, &name, "1", [SHORT, LONG]).await), ErrorKind::DeviceNotOnline);
    connected.listen(&ground, Filter::Methods).await;
    assert!(connected.mailbox.try_next().is_none(), "what nobody waits for any more is not delivered");
}

#[tokio::test]
async fn calls_that_wait_for_a_device_begin_in_their_order_when_it_listens() {
    let name = device("dev-1");
    let ground = ground_with(&name).await;
    let payloads: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let calls = payloads.iter().map(|payload| invoke(&ground, &name, payload, [LONG, LONG]));
    let calls = futures_util::future::join_all(calls);
    let device = async {
        let connected = Device::connect(&ground, &name).await;
        assert!(connected.mailbox.try_next().is_none(), "it does not listen");
        connected.listen(&ground, Filter::Methods).await;
        for payload in &payloads {
            let request = connected.told().await;
            assert_eq!(request.payload, said(payload).payload);
            connected.respond(&ground, &request, Ok(Response { payload: request.payload.clone(), ..said("0") })).await;
        }
    };
    let (heard, ()) = tokio::join!(calls, device);
    let heard: Vec<Response> = heard.into_iter().map(Result::unwrap).collect();
    assert_eq!(heard, payloads.iter().map(|payload| said(payload)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_connection_that_ends_or_is_displaced_ends_the_calls_it_was_told() {
    let name = device("dev-1");
    for is_displaced in [false, true] {
        let ground = ground_with(&name).await;
        let connected = Device::connect(&ground, &name).await;
        connected.listen(&ground, Filter::Methods).await;
        let end = async {
            let request = connected.told().await;
            if is_displaced {
                let other = Device::connect(&ground, &name).await;
                other.listen(&ground, Filter::Methods).await;
                other.respond(&ground, &request, Ok(said("\"late\""))).await;
                assert!(other.mailbox.try_next().is_none(), "a request is not repeated");
            } else {
                connected.leave(&ground).await;
            }
        };
        let (heard, ()) = tokio::join!(invoke(&ground, &name, "1", [Duration::ZERO, LONG]), end);
        assert_eq!(kind(heard), ErrorKind::DeviceUnanswering, "displaced: {is_displaced}");
    }
}

#[tokio::test]
async fn a_caller_is_told_when_nothing_comes_and_at_once_when_what_comes_cannot_be_passed_on() {
    let name = device("dev-1");
    let ground = ground_with(&name).await;
    let connected = Device::connect(&ground, &name).await;
    connected.listen(&ground, Filter::Methods).await;
    let silent = invoke(&ground, &name, "1", [Duration::ZERO, SHORT]).await.unwrap_err();
    assert_eq!(
        (silent.kind, &*silent.public),
        (ErrorKind::DeviceUnanswering, "Timed out waiting for the response from device.")
    );
    let late = connected.mailbox.try_next();
    assert!(late.is_none(), "nobody waits for it: {late:?}");
    let answer = async {
        let request = connected.told().await;
        connected.respond(&ground, &request, Err(InvalidPayload::NotJson.into())).await;
    };
    let (heard, ()) = tokio::join!(invoke(&ground, &name, "1", [Duration::ZERO, LONG]), answer);
    let failure = heard.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::DeviceUnanswering);
    assert!(failure.public.contains("not JSON"), "{failure}");
}

#[tokio::test]
async fn calls_of_an_identity_are_bounded_and_callers_that_leave_make_room() {
    let name = device("dev-1");
    let ground = ground_with(&name).await;
    for connects in [false, true] {
        let connected = Device::connect(&ground, &name).await;
        if connects {
            connected.listen(&ground, Filter::Methods).await;
        }
        let waits = [LONG, LONG];
        let mut calls: FuturesUnordered<_> =
            (0..=CALLS_PER_IDENTITY_MAX).map(|_| invoke(&ground, &name, "1", waits)).collect();
        let surplus = timeout(PATIENCE, calls.next()).await.expect("one is refused").unwrap();
        let failure = surplus.unwrap_err();
        assert_eq!((failure.kind, failure.retry_after_s.is_some()), (ErrorKind::Throttled, true));
        drop(calls);
        assert!(connected.mailbox.try_next().is_none(), "nobody waits any more");
        let next = invoke(&ground, &name, "1", [SHORT, SHORT]).await;
        assert!([ErrorKind::DeviceNotOnline, ErrorKind::DeviceUnanswering].contains(&kind(next)));
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_calls_that_no_device_was_told_and_takes_no_more() {
    let (away, here) = (device("dev-1"), device("dev-2"));
    let ground = ground_with(&away).await;
    ground.store.create_identity(ground.hub().key, identity(here.clone(), 1), None, NOON).await.unwrap().done();
    let connected = Device::connect(&ground, &here).await;
    connected.listen(&ground, Filter::Methods).await;
    let stop = async {
        let request = connected.told().await;
        ground.service.stop_calls();
        assert_eq!(kind(invoke(&ground, &away, "1", [LONG, LONG]).await), ErrorKind::Unavailable);
        connected.respond(&ground, &request, Ok(said("1"))).await;
    };
    let (untold, told) = (invoke(&ground, &away, "1", [LONG, LONG]), invoke(&ground, &here, "1", [LONG, LONG]));
    let (untold, told, ()) = tokio::join!(untold, told, stop);
    assert_eq!(kind(untold), ErrorKind::Unavailable);
    assert_eq!(told.unwrap(), said("1"));
}
