//! Which dialect an HTTP request is meant for, on the device and service port and on the admin port.

use async_trait::async_trait;
use bytes::Bytes;
use dialect::error::Refused;
use dialect::http::{Target, bearer, json, signature};
use dialect::hub::{blob_http, device_http as hub_device_http, service_http as hub_http};
use dialect::management::{self, arm, files, messages, oauth, own, routing};
use dialect::provisioning::{self, device_http, service_http};
use domain::operation::{Caller, ErrorKind, Failure, Reply, Secret, Transport, file};
use http::header::HOST;
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use serde_json::json;
use service::TOKEN_LIFETIME;

use crate::blobs;
use crate::connection::caller;
use crate::door::Door;
use crate::http::{Body, Handler, Refusal, RequestBody};
use crate::shutdown::Tasks;
use crate::tls::PeerContext;

/// The device and service APIs of provisioning services and hubs, and the storage that devices upload to.
pub struct PublicRoutes {
    /// Performs what is asked.
    pub door: Door,
    /// Runs what outlives the answer to a request.
    pub tasks: Tasks,
}

/// The management port.
pub struct AdminRoutes {
    /// Performs what is asked.
    pub door: Door,
    /// Runs what outlives the answer to a request.
    pub tasks: Tasks,
}

/// Builds the caller of a request: what the connection tells, narrowed by `Host`, and what the headers present.
fn caller_of(request: &Request<Bytes>, peer: &PeerContext, admin: bool) -> Caller {
    let mut caller = caller(peer, Transport::Https, request.extensions().get().cloned());
    caller.endpoint.admin = admin;
    match signature(request.headers()) {
        None => {}
        Some(Ok(token)) => caller.evidence.token = Some(token),
        Some(Err(invalid)) => caller.evidence.unreadable = Some(invalid),
    }
    caller.evidence.bearer = bearer(request.headers()).map(Secret::new);
    caller
}

fn host_of(request: &Request<Bytes>, peer: &PeerContext) -> String {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    host.map_or_else(|| peer.dialled.to_string(), str::to_owned)
}

/// A request that was not read, or not taken, in the terms of the dialects.
fn unread(refusal: Refusal) -> Refused {
    let kind = match refusal {
        Refusal::HeadTooLong { .. } | Refusal::BodyTooLong { .. } => ErrorKind::TooLarge,
        Refusal::Host => ErrorKind::InvalidArgument,
        Refusal::BodyTooSlow(_) | Refusal::BodyBroken => ErrorKind::InvalidBody,
        Refusal::Crowded => return Refused::new(ErrorKind::Throttled, "The server is busy; try again."),
        Refusal::Draining => return Refused::new(ErrorKind::Unavailable, "The server is stopping; try again."),
    };
    Refused::not_understood(kind, &refusal)
}

/// The dialects have no word for a body that does not arrive; HTTP's own status tells clients to send it again.
fn with_status_of(refusal: Refusal, mut response: Response<Bytes>) -> Response<Body> {
    *response.status_mut() = refusal.status();
    response.map(Body::from)
}

impl PublicRoutes {
    async fn answer(&self, request: Request<Bytes>, peer: &PeerContext) -> Response<Bytes> {
        let target = match Target::parse(request.uri()) {
            Ok(target) => target,
            Err(invalid) => return self.refuse_at(request.uri(), invalid.into()),
        };
        if hub_device_http::owns(&target) {
            return self.answer_device_at_hub(&request, &target, peer).await;
        }
        if hub_http::owns(&target) {
            return self.answer_at_hub(&request, &target, peer).await;
        }
        let caller = caller_of(&request, peer, false);
        if device_http::owns(&target) {
            return match device_http::decode(&request, &target) {
                Err(refused) => self.refuse(refused),
                Ok((operation, asked)) => {
                    let reply = self.door.perform(&caller, operation).await;
                    device_http::encode(reply, &asked, &host_of(&request, peer))
                }
            };
        }
        if service_http::owns(&target) {
            return match service_http::decode(&request, &target) {
                Err(refused) => self.refuse(refused),
                Ok((operation, asked)) => service_http::encode(self.door.perform(&caller, operation).await, asked),
            };
        }
        self.refuse(Refused::nothing_here())
    }

    async fn answer_at_hub(&self, request: &Request<Bytes>, target: &Target, peer: &PeerContext) -> Response<Bytes> {
        match hub_http::decode(request, target) {
            Ok((operation, asked)) => {
                let caller = caller_of(request, peer, false);
                hub_http::encode(self.door.perform(&caller, operation).await, &asked)
            }
            Err(refused) => self.refuse_at_hub(refused),
        }
    }

    async fn answer_device_at_hub(
        &self,
        request: &Request<Bytes>,
        target: &Target,
        peer: &PeerContext,
    ) -> Response<Bytes> {
        match hub_device_http::decode(request, target) {
            Ok((operation, name)) => {
                let caller = caller_of(request, peer, false);
                let reply = self.door.perform(&caller, operation).await;
                hub_device_http::encode(reply, &name, &host_of(request, peer))
            }
            Err(refused) => self.refuse_at_hub(refused),
        }
    }

    /// Refuses in the words of the dialect that `uri` was meant for, as far as can be told.
    fn refuse_at(&self, uri: &Uri, refused: Refused) -> Response<Bytes> {
        if hub_http::owns_path(uri.path()) { self.refuse_at_hub(refused) } else { self.refuse(refused) }
    }

    fn refuse_at_hub(&self, refused: Refused) -> Response<Bytes> {
        hub_http::refuse(&self.door.service().refuse(refused.kind, refused.public))
    }

    fn refuse(&self, refused: Refused) -> Response<Bytes> {
        provisioning::refuse(&self.door.service().refuse(refused.kind, refused.public))
    }
}

#[async_trait]
impl Handler for PublicRoutes {
    async fn handle(&self, request: Request<Bytes>, peer: &PeerContext) -> Response<Body> {
        self.answer(request, peer).await.map(Body::from)
    }

    fn streams(&self, head: &Parts) -> bool {
        blob_http::owns(&head.uri)
    }

    async fn handle_stream(&self, head: &Parts, body: &mut RequestBody, peer: &PeerContext) -> Response<Body> {
        blobs::answer((&self.door, &self.tasks), head, body, peer).await
    }

    fn refuse(&self, refusal: Refusal, head: &Parts, _peer: &PeerContext) -> Response<Body> {
        with_status_of(refusal, self.refuse_at(&head.uri, unread(refusal)))
    }
}

impl AdminRoutes {
    async fn answer(&self, request: &Request<Bytes>, target: &Target, peer: &PeerContext) -> Response<Bytes> {
        if oauth::owns(target) {
            return self.answer_for_token(request, target, peer);
        }
        let caller = caller_of(request, peer, true);
        if messages::owns(target) {
            return match messages::decode(request, target) {
                Ok(operation) => messages::encode(self.door.perform(&caller, operation).await),
                Err(refused) => self.refuse(refused),
            };
        }
        if routing::owns_letters(target) {
            return match routing::decode_letters(request, target) {
                Ok(operation) => routing::encode(self.door.perform(&caller, operation).await),
                Err(refused) => self.refuse(refused),
            };
        }
        if own::owns(target) {
            return match own::decode(request, target) {
                Ok(operation) => own::encode(self.door.perform(&caller, operation).await),
                Err(refused) => self.refuse(refused),
            };
        }
        if !arm::owns(target) {
            return self.refuse(Refused::nothing_here());
        }
        match arm::decode(request, target) {
            Ok((operation, asked)) => arm::encode(self.door.perform(&caller, operation).await, &asked),
            Err(refused) => self.refuse(refused),
        }
    }

    /// Whether requests are taken, and by which process: who has an endpoints file can tell whether it is of this server.
    fn answer_ready(&self) -> Response<Bytes> {
        let (status, word) = match self.tasks.drain_signal().has_begun() {
            true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            false => (StatusCode::OK, "ready"),
        };
        json(status, &json!({ "status": word, "pid": std::process::id() }))
    }

    fn answer_for_token(&self, request: &Request<Bytes>, target: &Target, peer: &PeerContext) -> Response<Bytes> {
        let (host, tenant) = (host_of(request, peer), &self.door.service().deployment().tenant);
        match oauth::decode(request, target) {
            Ok(oauth::Ask::Metadata) => oauth::show_metadata(&host, tenant),
            Ok(oauth::Ask::Configuration(authority)) => oauth::show_configuration(&host, &authority, tenant),
            Ok(oauth::Ask::Keys) => oauth::show_keys(),
            Ok(oauth::Ask::Token(wanted)) => {
                let credential = (wanted.client.as_str(), wanted.secret.expose());
                match self.door.issue_token(peer.address.ip(), credential, &wanted.audience) {
                    Ok(token) => oauth::show_token(&token, TOKEN_LIFETIME.as_secs()),
                    Err(Failure { kind: ErrorKind::Throttled, retry_after_s, .. }) => {
                        oauth::deny(oauth::Denied::Throttled { retry_after_s: retry_after_s.unwrap_or_default() })
                    }
                    Err(_) => oauth::deny(oauth::Denied::InvalidClient),
                }
            }
            Err(denied) => oauth::deny(denied),
        }
    }

    /// A file goes piece by piece; everything else is an answer like any other.
    async fn answer_about_files(
        &self,
        request: &Request<Bytes>,
        target: &Target,
        peer: &PeerContext,
    ) -> Result<Response<Body>, Response<Bytes>> {
        let operation = files::decode(request, target).map_err(|refused| self.refuse(refused))?;
        let reply = self.door.perform(&caller_of(request, peer, true), operation).await;
        let Ok(Reply::File(file::Answer::Opened(open))) = reply else { return Err(files::encode(reply)) };
        let stored = self.door.service().find_stored(&open).await.map_err(|failure| management::refuse(&failure))?;
        let reader = self.door.service().file_reader(&stored, 0, stored.bytes());
        Ok(files::open(&stored, blobs::stream(reader, &self.tasks)))
    }

    fn refuse(&self, refused: Refused) -> Response<Bytes> {
        management::refuse(&self.door.service().refuse(refused.kind, refused.public))
    }
}

#[async_trait]
impl Handler for AdminRoutes {
    async fn handle(&self, request: Request<Bytes>, peer: &PeerContext) -> Response<Body> {
        match request.uri().path() {
            "/healthz" => return json(StatusCode::OK, &json!({ "status": "alive" })).map(Body::from),
            "/readyz" => return self.answer_ready().map(Body::from),
            _ => {}
        }
        match Target::parse(request.uri()) {
            Ok(target) if files::owns(&target) => {
                let answered = self.answer_about_files(&request, &target, peer).await;
                answered.unwrap_or_else(|answer| answer.map(Body::from))
            }
            Ok(target) => self.answer(&request, &target, peer).await.map(Body::from),
            Err(invalid) => self.refuse(Refused::from(invalid)).map(Body::from),
        }
    }

    fn refuse(&self, refusal: Refusal, _head: &Parts, _peer: &PeerContext) -> Response<Body> {
        with_status_of(refusal, self.refuse(unread(refusal)))
    }
}
