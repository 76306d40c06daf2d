//! CloudEvents by POST (CloudEvents, HTTP binding): one a request, or several.
//!
//! All requests of one send share a connection. Redirects are not followed: an endpoint is what was written.

use bytes::Bytes;
use dialect::hub::cloud_event::{self, BATCH_MEDIA_TYPE, MEDIA_TYPE};
use domain::route::{Parcel, Refusal, Url, Webhook, WebhookMode};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{ANSWER_TIMEOUT, Outbound, SEND_TIMEOUT, Sent};

/// Most bytes of an answer that are read; nothing is made of them.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of events after which no further one joins a request.
const BATCH_BYTES_MAX: usize = 1 << 20;

impl Outbound {
    /// Posts `parcels`.
    pub(super) async fn post(&self, webhook: &Webhook, parcels: &[Parcel]) -> Sent {
        let stream = match self.dial(&webhook.url, webhook.authority.as_deref()).await {
            Ok(stream) => stream,
            Err(refusal) => return (0, Err(refusal)),
        };
        let (sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
            Ok(opened) => opened,
            Err(error) => return (0, Err(broken(&error))),
        };
        let mut taken = 0;
        let posting = post_all(webhook, sender, parcels, &mut taken);
        // What moves the bytes; once it has ended, sending fails, which says more than its end does.
        let moving = async {
            let _ = connection.await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let outcome = tokio::select! {
            outcome = posting => outcome,
            never = moving => match never {},
        };
        (taken, outcome)
    }
}

async fn post_all(
    webhook: &Webhook,
    mut sender: SendRequest<Full<Bytes>>,
    parcels: &[Parcel],
    taken: &mut usize,
) -> Result<(), Refusal> {
    let until = Instant::now() + SEND_TIMEOUT;
    while let Some(rest) = parcels.get(*taken..).filter(|rest| !rest.is_empty()) {
        if Instant::now() >= until {
            return Err(Refusal::of_all("it takes messages too slowly"));
        }
        let (count, body) = body_of(webhook.mode, rest);
        let request = request(webhook, body)?;
        let answered = async {
            sender.ready().await.map_err(|error| broken(&error))?;
            let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status();
            // Read to its end, so that the connection can be used again.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            judge(status)
        };
        timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| Err(Refusal::of_all("no answer in time")))?;
        *taken += count;
    }
    Ok(())
}

/// The body of the next request, and how many events it has.
fn body_of(mode: WebhookMode, rest: &[Parcel]) -> (usize, Bytes) {
    match (mode, rest) {
        (WebhookMode::Single, [first, ..]) => (1, cloud_event::event(first).to_string().into()),
        (WebhookMode::Single, []) => (0, Bytes::new()),
        (WebhookMode::Batch, rest) => {
            let mut body = String::from("[");
            let mut count = 0;
            for parcel in rest {
                if count > 0 {
                    if body.len() > BATCH_BYTES_MAX {
                        break;
                    }
                    body.push(',');
                }
                body.push_str(&cloud_event::event(parcel).to_string());
                count += 1;
            }
            body.push(']');
            (count, body.into())
        }
    }
}

fn request(webhook: &Webhook, body: Bytes) -> Result<Request<Full<Bytes>>, Refusal> {
    let media_type = match webhook.mode {
        WebhookMode::Single => MEDIA_TYPE,
        WebhookMode::Batch => BATCH_MEDIA_TYPE,
    };
    let mut request = Request::post(&webhook.url.path)
        .header(HOST, host(&webhook.url))
        .header(CONTENT_TYPE, format!("{media_type}; charset=utf-8"))
        .body(Full::new(body))
        .map_err(|_| Refusal::of_all("its address is none that HTTP knows"))?;
    for (name, value) in &webhook.headers {
        let unsendable = || Refusal::of_all("a header cannot be sent");
        let name = HeaderName::try_from(name).map_err(|_| unsendable())?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| unsendable())?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn host(url: &Url) -> String {
    let usual = if url.is_encrypted() { 443 } else { 80 };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    if url.port == usual { host } else { format!("{host}:{}", url.port) }
}

/// Which answers are about the message, and which about the endpoint: the latter are waited out.
fn judge(status: StatusCode) -> Result<(), Refusal> {
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_ACCEPTABLE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(Refusal::of_message(format!("it answers {status}"))),
        _ => Err(Refusal::of_all(format!("it answers {status}"))),
    }
}

fn broken(error: &hyper::Error) -> Refusal {
    Refusal::of_all(format!("the exchange broke off: {error}"))
}
