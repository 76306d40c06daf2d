//! A device registers (`contract/dps-device.md 2` and `3`). Start at [`ProvisioningClient::register`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::operation::Transport;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::mqtt::{ClientEvent, Message, QoS};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::{Introduction, Link, granted, text};
use super::registration::{Answer, Registration, Step, judge};
use super::{Credential, DeviceError, Dial, REGISTRATION_TIMEOUT, amqp_provisioning};
use crate::https::{Https, HttpsError};
use crate::service::secret;

#[cfg(test)]
mod tests;

/// The version that the released SDKs name (`contract/dps-device.md 2.1`).
const API_VERSION: &str = "2019-03-31";
const RESPONSES: &str = "$dps/registrations/res/#";
/// What stays as it is in a path, a topic and a signature's resource (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Registers devices at one provisioning service.
#[derive(Clone, Debug)]
pub struct ProvisioningClient {
    dial: Dial,
    id_scope: String,
}

/// One device's wish.
struct Wish<'a> {
    registration_id: &'a str,
    credential: &'a Credential,
    body: Bytes,
    token: Option<String>,
}

/// What a request asks for.
enum Ask {
    Register,
    Status { operation_id: String },
}

impl ProvisioningClient {
    /// A client of the service with `id_scope` behind `dial`.
    pub fn new(dial: Dial, id_scope: impl Into<String>) -> Self {
        Self { dial, id_scope: id_scope.into() }
    }

    /// Registers and polls until the device has a hub, as long as the service asks for and at most
    /// [`REGISTRATION_TIMEOUT`]. `payload` is what a custom allocator is told.
    pub async fn register(
        &self,
        registration_id: &str,
        payload: Option<&Value>,
        credential: &Credential,
        now: UnixTime,
    ) -> Result<Registration, DeviceError> {
        let mut body = json!({ "registrationId": registration_id });
        if let (Some(payload), Some(members)) = (payload, body.as_object_mut()) {
            members.insert("payload".to_owned(), payload.clone());
        }
        let encode = |text| utf8_percent_encode(text, SEGMENT);
        let resource = format!("{}%2Fregistrations%2F{}", encode(&self.id_scope), encode(registration_id));
        let token = credential.token(&resource, Some("registration"), now);
        let wish = Wish { registration_id, credential, body: body.to_string().into(), token };
        let registering = async {
            match self.dial.transport {
                Transport::Https => self.register_over_https(&wish).await,
                Transport::Amqp | Transport::AmqpWebSocket => self.register_over_amqp(wish).await,
                Transport::Mqtt | Transport::MqttWebSocket => self.register_over_mqtt(&wish).await,
            }
        };
        let registered = timeout(REGISTRATION_TIMEOUT, registering).await;
        registered.unwrap_or(Err(DeviceError::Timeout { what: "the registration", after: REGISTRATION_TIMEOUT }))
    }

    async fn register_over_mqtt(&self, wish: &Wish<'_>) -> Result<Registration, DeviceError> {
        let Wish { registration_id, credential, .. } = wish;
        let scope = &self.id_scope;
        let version = concat!("muster%2F", env!("CARGO_PKG_VERSION"));
        let introduction = Introduction {
            client_id: registration_id,
            username: format!(
                "{scope}/registrations/{registration_id}/api-version={API_VERSION}&ClientVersion={version}"
            ),
            password: wish.token.clone(),
        };
        let (mut link, _) = Link::open(&self.dial, credential, introduction).await?;
        let registered = converse(&mut link, &wish.body).await;
        link.close().await;
        registered
    }

    async fn register_over_amqp(&self, wish: Wish<'_>) -> Result<Registration, DeviceError> {
        let Wish { registration_id, credential, body, token } = wish;
        let wish = amqp_provisioning::Wish { id_scope: &self.id_scope, registration_id, token, body };
        amqp_provisioning::register(&self.dial, credential, wish).await
    }

    async fn register_over_https(&self, wish: &Wish<'_>) -> Result<Registration, DeviceError> {
        let https = Https::new(wish.credential.tls.clone());
        let mut ask = Ask::Register;
        loop {
            let request = self.request(&ask, wish)?;
            let answer = https.send(&self.dial.server, request).await?;
            let after = match judge(read_response(&answer))? {
                Step::Assigned(registration) => return Ok(*registration),
                Step::Repeat { after } => after,
                Step::Poll { operation_id, after } => {
                    ask = Ask::Status { operation_id };
                    after
                }
            };
            tokio::time::sleep(after).await;
        }
    }

    fn request(&self, ask: &Ask, wish: &Wish<'_>) -> Result<Request<Bytes>, DeviceError> {
        let encode = |text| utf8_percent_encode(text, SEGMENT);
        let (method, rest, body) = match ask {
            Ask::Register => (Method::PUT, "register".to_owned(), wish.body.clone()),
            Ask::Status { operation_id } => (Method::GET, format!("operations/{}", encode(operation_id)), Bytes::new()),
        };
        let (scope, registration_id) = (encode(&self.id_scope), encode(wish.registration_id));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/{scope}/registrations/{registration_id}/{rest}?api-version={API_VERSION}"))
            .header(CONTENT_TYPE, "application/json; charset=utf-8");
        if let Some(token) = &wish.token {
            request = request.header(AUTHORIZATION, secret(token));
        }
        request.body(body).map_err(|_| HttpsError::Host(self.dial.server.host.clone()).into())
    }
}

fn read_response(answer: &Response<Bytes>) -> Answer<'_> {
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Answer {
        status: answer.status().as_u16(),
        retry_after_s: retry_after.and_then(|seconds| seconds.parse().ok()),
        body: answer.body(),
    }
}

/// Registers with `body` and polls on one connection.
async fn converse(link: &mut Link, body: &Bytes) -> Result<Registration, DeviceError> {
    let subscription = link.subscribe(RESPONSES, QoS::AtLeastOnce)?;
    let codes = link.wait("the subscription", |event| match event {
        ClientEvent::Subscribed { packet_id, codes } if packet_id == subscription => Ok(Some(codes)),
        _ => Ok(None),
    });
    granted(RESPONSES, &codes.await?)?;
    let mut ask = Ask::Register;
    for request_id in 1_u64.. {
        let (topic, body) = match &ask {
            Ask::Register => (format!("$dps/registrations/PUT/iotdps-register/?$rid={request_id}"), body.clone()),
            Ask::Status { operation_id } => {
                let operation_id = utf8_percent_encode(operation_id, SEGMENT);
                let request = "$dps/registrations/GET/iotdps-get-operationstatus";
                (format!("{request}/?$rid={request_id}&operationId={operation_id}"), Bytes::from_static(b" "))
            }
        };
        link.publish(text("the operation ID", topic)?, body, QoS::AtLeastOnce)?;
        let answer = link.wait("the registration", |event| match event {
            ClientEvent::Message { message, .. } if is_answer_to(&message, request_id) => Ok(Some(message)),
            _ => Ok(None),
        });
        let message = answer.await?;
        let answer = read_message(&message).ok_or(DeviceError::Unreadable { what: "the registration" })?;
        let after = match judge(answer)? {
            Step::Assigned(registration) => return Ok(*registration),
            Step::Repeat { after } => after,
            Step::Poll { operation_id, after } => {
                ask = Ask::Status { operation_id };
                after
            }
        };
        idle_until(link, Instant::now() + after).await?;
    }
    unreachable!("the request IDs do not end")
}

/// Keeps the connection alive until `deadline`; nothing that comes meanwhile is waited for.
async fn idle_until(link: &mut Link, deadline: Instant) -> Result<(), DeviceError> {
    while let Ok(event) = timeout_at(deadline, link.next()).await {
        event?;
    }
    Ok(())
}

fn is_answer_to(message: &Message, request_id: u64) -> bool {
    let rid = message.topic.split_once("/?$rid=").map(|(_, query)| query.split('&').next().unwrap_or(query));
    rid.and_then(|rid| rid.parse().ok()) == Some(request_id)
}

/// Reads `$dps/registrations/res/{status}/?$rid={r}[&retry-after={seconds}]`.
fn read_message(message: &Message) -> Option<Answer<'_>> {
    let rest = message.topic.strip_prefix("$dps/registrations/res/")?;
    let (status, query) = rest.split_once("/?")?;
    let retry_after = query.split('&').find_map(|pair| pair.strip_prefix("retry-after="));
    Some(Answer {
        status: status.parse().ok()?,
        retry_after_s: retry_after.and_then(|seconds| seconds.parse().ok()),
        body: &message.payload,
    })
}
