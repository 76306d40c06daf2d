//! The management API: a bearer token for the operator's credential, then resource operations.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{Method, Request, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::endpoints::Admin;
use crate::https::{Https, HttpsError, Pieces, Server};
use crate::service::secret;

/// Why a resource operation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The server could not be asked.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The management URL is not one.
    #[error("{0:?} is not a management URL")]
    Url(String),
    /// The token endpoint refused the operator's credential.
    #[error("the token endpoint refused the operator's credential ({status}); is endpoints.json from this server?")]
    SignIn {
        /// The status it answered with.
        status: http::StatusCode,
    },
}

/// A signed-in client of the management API.
#[derive(Clone)]
pub struct ManagementClient {
    https: Https,
    server: Server,
    token: String,
    subscription: String,
}

impl std::fmt::Debug for ManagementClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagementClient").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A request to the management API.
#[derive(Clone, Debug)]
pub struct ManagementRequest<'a> {
    /// The method.
    pub method: Method,
    /// Path from the root, encoded.
    pub path: String,
    /// API version to name.
    pub api_version: &'static str,
    /// Demanded version.
    pub if_match: Option<&'a str>,
    /// Body.
    pub body: Option<&'a Value>,
}

impl ManagementClient {
    /// The version named for provisioning services.
    pub const PROVISIONING_API_VERSION: &'static str = "2022-02-05";
    /// The version named for hubs.
    pub const HUB_API_VERSION: &'static str = "2023-06-30";
    /// The version named for resource groups.
    pub const GROUP_API_VERSION: &'static str = "2021-04-01";

    /// The process that answers at the management URL and takes requests; `None` if it takes none.
    pub async fn ready_process(https: &Https, admin: &Admin) -> Result<Option<u32>, ManagementError> {
        let server = parse_url(&admin.url).ok_or_else(|| ManagementError::Url(admin.url.clone()))?;
        let request = Request::get("/readyz").body(Bytes::new());
        let answer = https.send(&server, request.map_err(|_| ManagementError::Url(admin.url.clone()))?).await?;
        let document: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
        let process = document.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
        Ok(process.filter(|_| answer.status().is_success()))
    }

    /// Signs in with the operator's credential (client credentials).
    pub async fn sign_in(https: Https, admin: &Admin) -> Result<Self, ManagementError> {
        let server = parse_url(&admin.url).ok_or_else(|| ManagementError::Url(admin.url.clone()))?;
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            encode(&admin.client_id),
            encode(&admin.client_secret),
            encode(&format!("{}/.default", admin.url)),
        );
        let request = Request::post(format!("/{}/oauth2/v2.0/token", admin.tenant_id))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(|_| ManagementError::Url(admin.url.clone()))?;
        let answer = https.send(&server, request).await?;
        let refused = ManagementError::SignIn { status: answer.status() };
        let document: Value = match answer.status().is_success() {
            true => serde_json::from_slice(answer.body()).unwrap_or(Value::Null),
            false => return Err(refused),
        };
        let Some(token) = document.get("access_token").and_then(Value::as_str) else { return Err(refused) };
        Ok(Self { https, server, token: token.to_owned(), subscription: admin.subscription_id.clone() })
    }

    /// The path of a resource of `Microsoft.Devices` in `group`, with `rest` behind it.
    pub fn path(&self, group: &str, rest: &str) -> String {
        format!("{}/providers/Microsoft.Devices/{rest}", self.group_path(group))
    }

    /// The path of the resource group `group`.
    pub fn group_path(&self, group: &str) -> String {
        let group = utf8_percent_encode(group, NON_ALPHANUMERIC);
        format!("/subscriptions/{}/resourceGroups/{group}", self.subscription)
    }

    /// Sends `request`.
    pub async fn send(&self, request: ManagementRequest<'_>) -> Result<Response<Bytes>, ManagementError> {
        Ok(self.https.send(&self.server, self.complete(request)?).await?)
    }

    /// Sends `request`; the answer is read piece by piece as it comes.
    pub async fn open(&self, request: ManagementRequest<'_>) -> Result<Pieces, ManagementError> {
        Ok(self.https.open(&self.server, self.complete(request)?).await?)
    }

    fn complete(&self, request: ManagementRequest<'_>) -> Result<Request<Bytes>, ManagementError> {
        let separator = if request.path.contains('?') { '&' } else { '?' };
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("{}{separator}api-version={}", request.path, request.api_version))
            .header(AUTHORIZATION, secret(&format!("Bearer {}", self.token)));
        if let Some(etag) = request.if_match {
            builder = builder.header(IF_MATCH, etag);
        }
        let body = match request.body {
            None => Bytes::new(),
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                body.to_string().into()
            }
        };
        builder.body(body).map_err(|_| ManagementError::Url(request.path))
    }
}

/// `https://host:port` taken apart.
fn parse_url(url: &str) -> Option<Server> {
    let uri: http::Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("https") {
        return None;
    }
    Some(Server { host: uri.host()?.trim_matches(['[', ']']).to_owned(), port: uri.port_u16().unwrap_or(443) })
}
