//! The service APIs of provisioning services and hubs, as operators' programs use them: HTTPS with a shared access
//! signature.

use std::time::Duration;

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::sas::{SasToken, SymmetricKey};
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{HeaderValue, Method, Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::https::{Https, HttpsError, Server};

/// What stays as it is in a path segment (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long a signature made for one command holds.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(600);

/// A connection string, taken apart: `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.
#[derive(Clone, Debug)]
pub struct ConnectionString {
    /// The host.
    pub host_name: String,
    /// The policy.
    pub policy: String,
    /// Its key.
    pub key: SymmetricKey,
}

/// Why a text is not a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnectionString {
    /// A member is missing.
    #[error("the connection string has no {0}")]
    Missing(&'static str),
    /// The key is not one.
    #[error("the connection string's key cannot be used: {0}")]
    Key(domain::sas::InvalidKey),
}

impl ConnectionString {
    /// Takes `text` apart.
    pub fn parse(text: &str) -> Result<Self, InvalidConnectionString> {
        let member = |name| member(text, name);
        Ok(Self {
            host_name: member("HostName")?.to_owned(),
            policy: member("SharedAccessKeyName")?.to_owned(),
            key: SymmetricKey::parse(member("SharedAccessKey")?).map_err(InvalidConnectionString::Key)?,
        })
    }
}

/// The value of a member of a connection string.
pub(crate) fn member<'t>(text: &'t str, name: &'static str) -> Result<&'t str, InvalidConnectionString> {
    let found = text.split(';').filter_map(|member| member.split_once('='));
    let mut found = found.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value).ok_or(InvalidConnectionString::Missing(name))
}

/// A request to a service API.
#[derive(Clone, Debug)]
pub struct ServiceRequest<'a> {
    /// The method.
    pub method: Method,
    /// The path's segments, not encoded.
    pub path: &'a [&'a str],
    /// Parameters of the query, besides the API's version.
    pub parameters: &'a [(&'static str, String)],
    /// Demanded version: `"*"` or an etag.
    pub if_match: Option<&'a str>,
    /// Body.
    pub body: Option<&'a Value>,
    /// Further headers.
    pub headers: &'a [(&'static str, String)],
    /// How long the server may take over the answer, beside the usual time.
    pub waits: Duration,
}

impl<'a> ServiceRequest<'a> {
    /// A request with nothing but a path.
    pub const fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, parameters: &[], if_match: None, body: None, headers: &[], waits: Duration::ZERO }
    }
}

/// A client of one provisioning service or hub.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    https: Https,
    server: Server,
    connection: ConnectionString,
    api_version: &'static str,
}

impl ServiceClient {
    /// The version named to provisioning services.
    pub const PROVISIONING_API_VERSION: &'static str = "2021-10-01";
    /// The version named to hubs.
    pub const HUB_API_VERSION: &'static str = "2021-04-12";

    /// A client of the service that `connection` names, on `port`.
    pub fn new(https: Https, connection: ConnectionString, port: u16, api_version: &'static str) -> Self {
        let server = Server { host: connection.host_name.clone(), port };
        Self { https, server, connection, api_version }
    }

    /// Sends `request`, signed at `now`.
    pub async fn send(&self, request: ServiceRequest<'_>, now: UnixTime) -> Result<Response<Bytes>, HttpsError> {
        let mut path = String::new();
        for segment in request.path {
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        let mut query = format!("api-version={}", self.api_version);
        for (name, value) in request.parameters {
            query.extend(["&", name, "="]);
            query.extend(utf8_percent_encode(value, SEGMENT));
        }
        let resource = utf8_percent_encode(&self.connection.host_name, SEGMENT).to_string();
        let expires_at = now.plus(SIGNATURE_LIFETIME);
        let token = SasToken::write(&self.connection.key, &resource, Some(self.connection.policy.as_str()), expires_at);
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("{path}?{query}"))
            .header(AUTHORIZATION, secret(&token));
        if let Some(etag) = request.if_match {
            builder = builder.header(IF_MATCH, etag);
        }
        for (name, value) in request.headers {
            builder = builder.header(*name, value);
        }
        let body = match request.body {
            None => Bytes::new(),
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json; charset=utf-8");
                body.to_string().into()
            }
        };
        let waits = request.waits;
        let request = builder.body(body).map_err(|_| HttpsError::Host(self.server.host.clone()))?;
        self.https.send_waiting(&self.server, request, waits).await
    }
}

/// A header value that does not print.
pub(crate) fn secret(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_taken_apart_and_says_what_it_lacks() {
        let text = "HostName=127.0.0.2;SharedAccessKeyName=iothubowner;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==";
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!((parsed.host_name.as_str(), parsed.policy.as_str()), ("127.0.0.2", "iothubowner"));
        let cases = [
            ("HostName=a", InvalidConnectionString::Missing("SharedAccessKeyName")),
            ("SharedAccessKeyName=a", InvalidConnectionString::Missing("HostName")),
            (
                "HostName=a;SharedAccessKeyName=b;SharedAccessKey=c",
                InvalidConnectionString::Key(domain::sas::InvalidKey::Base64),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(ConnectionString::parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
