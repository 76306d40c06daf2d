//! CloudEvents by POST (CloudEvents, HTTP binding): one a request, or several.
//!
//! All requests of one send share a connection, as far as the server keeps it. Redirects are not followed: an endpoint is
//! what was written.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use dialect::hub::cloud_event::{self, BATCH_MEDIA_TYPE, MEDIA_TYPE};
use domain::route::{Parcel, Refusal, Url, Webhook, WebhookMode};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{ANSWER_TIMEOUT, Outbound, SEND_TIMEOUT};

/// Most bytes of an answer that are read; nothing is made of them.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of events after which no further one joins a request.
const BATCH_BYTES_MAX: usize = 1 << 20;

impl Outbound {
    /// Posts `parcels`, over as many connections as the server wants.
    pub(super) async fn post(&self, webhook: &Webhook, parcels: &[Parcel], taken: &mut usize) -> Result<(), Refusal> {
        let until = Instant::now() + SEND_TIMEOUT;
        let is_over = || Instant::now() >= until || self.is_stopping.load(Ordering::Relaxed);
        while *taken < parcels.len() && !is_over() {
            self.post_on_one(webhook, parcels, taken, &is_over).await?;
        }
        Ok(())
    }

    /// Posts on one connection until that ends. Where this is no refusal, at least one event was taken: a connection that
    /// ends once it has served is one that the server does not keep.
    async fn post_on_one(
        &self,
        webhook: &Webhook,
        parcels: &[Parcel],
        taken: &mut usize,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Refusal> {
        let stream = self.dial(&webhook.url, webhook.authority.as_deref()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let posting = post_all(webhook, sender, parcels, (taken, is_over));
        // What moves the bytes; once it has ended, sending fails, which says more than its end does.
        let moving = async {
            let _ = connection.await;
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            outcome = posting => outcome,
            never = moving => match never {},
        }
    }
}

async fn post_all(
    webhook: &Webhook,
    mut sender: SendRequest<Full<Bytes>>,
    parcels: &[Parcel],
    (taken, is_over): (&mut usize, &(dyn Fn() -> bool + Sync)),
) -> Result<(), Refusal> {
    let before = *taken;
    while let Some(rest) = parcels.get(*taken..).filter(|rest| !rest.is_empty()) {
        let has_served = *taken > before;
        if has_served && is_over() {
            break;
        }
        let (count, body) = body_of(webhook.mode, rest);
        let request = request(webhook, body)?;
        match timeout(ANSWER_TIMEOUT, exchange(&mut sender, request)).await {
            Ok(Ok(status)) => judge(status)?,
            Ok(Err(_)) if has_served => break,
            Ok(Err(error)) => return Err(broken(&error)),
            Err(_) => return Err(Refusal::of_all("no answer in time")),
        }
        *taken += count;
    }
    Ok(())
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> hyper::Result<StatusCode> {
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    // Read to its end, so that the connection can be used again.
    let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(status)
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

/// What the header `Host` says.
pub(super) fn host(url: &Url) -> String {
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

/// That an exchange did not come to its end.
pub(super) fn broken(error: &hyper::Error) -> Refusal {
    Refusal::of_all(format!("the exchange broke off: {error}"))
}
