//! The token endpoint and what leads to it (`contract/control-plane.md 1`): tokens for the operator's credential (client
//! credentials; RFC 6749, section 4.4), in the forms of a tenant and of ADFS, which saves clients a setting.
//!
//! Addresses are made of what the client dialled. A secret passes through as [`Secret`] and is judged elsewhere. Start at
//! [`decode`].

use bytes::Bytes;
use domain::operation::Secret;
use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::http::{Target, is, json as respond, with_header};

/// The last part of a scope, which names everything of an audience.
const EVERYTHING: &str = "/.default";
/// Longest form that is read.
const FORM_BYTES_MAX: usize = 64 * 1_024;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Where everything is.
    Metadata,
    /// Where the endpoints of an authority are; its path, `adfs` or a tenant's name.
    Configuration(String),
    /// The keys that tokens are signed with.
    Keys,
    /// A token.
    Token(TokenRequest),
}

/// A token for a client's credential.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Who asks.
    pub client: String,
    /// What proves it.
    pub secret: Secret,
    /// Whom the token is for.
    pub audience: String,
}

/// Why no token is given (RFC 6749, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The form cannot be read, or a part of it is missing.
    #[error("The request is no form with grant_type, client_id, client_secret and scope.")]
    InvalidRequest,
    /// Another grant than client credentials.
    #[error("Only the grant type client_credentials is known.")]
    UnsupportedGrant,
    /// The credential is not the operator's.
    #[error("The client credential was refused.")]
    InvalidClient,
    /// The address has failed too often.
    #[error("Too many failed attempts; try again later.")]
    Throttled {
        /// Seconds after which trying again makes sense.
        retry_after_s: u32,
    },
    /// Another method than the one for this path.
    #[error("The method is not allowed here.")]
    Method,
}

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    kind_of(&target.segments()).is_some()
}

enum Kind {
    Metadata,
    Configuration,
    Keys,
    Token,
}

fn kind_of(segments: &[&str]) -> Option<Kind> {
    let words = |words: &[&str]| {
        segments.len() >= words.len() && segments.iter().rev().zip(words.iter().rev()).all(|(one, word)| is(one, word))
    };
    match segments.len() {
        2 if words(&["metadata", "endpoints"]) => Some(Kind::Metadata),
        3.. if words(&[".well-known", "openid-configuration"]) => Some(Kind::Configuration),
        3.. if words(&["oauth2", "token"]) || words(&["oauth2", "v2.0", "token"]) => Some(Kind::Token),
        3.. if words(&["discovery", "keys"]) || words(&["discovery", "v2.0", "keys"]) => Some(Kind::Keys),
        _ => None,
    }
}

/// Turns a request into what is asked, or into its denial.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<Ask, Denied> {
    let segments = target.segments();
    let is_token = matches!(kind_of(&segments), Some(Kind::Token));
    if *request.method() != if is_token { Method::POST } else { Method::GET } {
        return Err(Denied::Method);
    }
    match kind_of(&segments).ok_or(Denied::InvalidRequest)? {
        Kind::Metadata => Ok(Ask::Metadata),
        Kind::Configuration => Ok(Ask::Configuration(segments.first().copied().unwrap_or_default().to_owned())),
        Kind::Keys => Ok(Ask::Keys),
        Kind::Token => parse_form(request.body()).map(Ask::Token),
    }
}

fn parse_form(body: &Bytes) -> Result<TokenRequest, Denied> {
    if body.len() > FORM_BYTES_MAX {
        return Err(Denied::InvalidRequest);
    }
    let field = |name: &str| {
        let mut fields = body.split(|byte| *byte == b'&');
        fields.find_map(|field| {
            let mut parts = field.splitn(2, |byte| *byte == b'=');
            let (key, value) = (parts.next()?, parts.next()?);
            (key == name.as_bytes()).then(|| decode_field(value)).flatten()
        })
    };
    let grant = field("grant_type").ok_or(Denied::InvalidRequest)?;
    if grant != "client_credentials" {
        return Err(Denied::UnsupportedGrant);
    }
    let client = field("client_id").ok_or(Denied::InvalidRequest)?;
    let secret = field("client_secret").map(Secret::new).ok_or(Denied::InvalidRequest)?;
    // The form of the first version names a resource.
    let scope = field("scope").or_else(|| field("resource")).ok_or(Denied::InvalidRequest)?;
    let audience = scope.strip_suffix(EVERYTHING).unwrap_or(&scope).to_owned();
    Ok(TokenRequest { client, secret, audience })
}

fn decode_field(value: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Says where everything is. `host` is what the client dialled, with the port if it named one.
pub fn show_metadata(host: &str, tenant: &str) -> Response<Bytes> {
    let here = format!("https://{host}");
    respond(
        StatusCode::OK,
        &json!({
            "name": "Muster",
            "resourceManager": here,
            "portal": here,
            "graph": here,
            "graphAudience": here,
            "authentication": {
                // The ADFS form, for which no client asks Microsoft's servers whether this one is an authority.
                "loginEndpoint": format!("{here}/adfs"),
                "audiences": [here],
                "tenant": tenant,
                "identityProvider": "ADFS",
            },
            "suffixes": { "storage": "local", "keyVaultDns": "local" },
        }),
    )
}

/// Says where the endpoints of `authority` are.
pub fn show_configuration(host: &str, authority: &str, tenant: &str) -> Response<Bytes> {
    let here = format!("https://{host}/{authority}");
    let version = if is(authority, "adfs") { "" } else { "v2.0/" };
    // The first segment of the issuer is taken for the tenant by clients that know it only by name.
    let issuer = format!("https://{host}/{tenant}/v2.0");
    respond(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{here}/oauth2/{version}authorize"),
            "token_endpoint": format!("{here}/oauth2/{version}token"),
            "jwks_uri": format!("{here}/discovery/{version}keys"),
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }),
    )
}

/// Says the keys that tokens are signed with: none that could be told, since they are this server's alone.
pub fn show_keys() -> Response<Bytes> {
    respond(StatusCode::OK, &json!({ "keys": [] }))
}

/// Hands out a token.
pub fn show_token(token: &str, lifetime_s: u64) -> Response<Bytes> {
    uncached(
        StatusCode::OK,
        &json!({
            "token_type": "Bearer",
            "expires_in": lifetime_s,
            "ext_expires_in": lifetime_s,
            "access_token": token,
        }),
    )
}

/// Says why no token is given.
pub fn deny(denied: Denied) -> Response<Bytes> {
    let (status, error) = match denied {
        Denied::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
        Denied::UnsupportedGrant => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        Denied::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
        // RFC 6749, section 4.1.2.1; the token endpoint's own list knows no such word.
        Denied::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
        Denied::Method => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request"),
    };
    let response = uncached(status, &json!({ "error": error, "error_description": denied.to_string() }));
    match denied {
        Denied::InvalidClient => with_header(response, WWW_AUTHENTICATE, "Basic"),
        Denied::Throttled { retry_after_s } => with_header(response, RETRY_AFTER, &retry_after_s.to_string()),
        _ => response,
    }
}

/// Neither tokens nor their refusals may be kept on the way (RFC 6749, section 5.1).
fn uncached(status: StatusCode, body: &Value) -> Response<Bytes> {
    with_header(respond(status, body), CACHE_CONTROL, "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, form: &'static str) -> Result<Ask, Denied> {
        let request = Request::builder().method(method).uri(path).body(Bytes::from_static(form.as_bytes())).unwrap();
        let target = Target::parse(request.uri()).unwrap();
        assert!(owns(&target), "{path}");
        decode(&request, &target)
    }

    #[test]
    fn a_token_is_asked_for_in_the_forms_that_clients_use() {
        let form = "grant_type=client_credentials&client_id=a%2Db&client_secret=s+%2B&client_info=1\
                    &scope=https%3A%2F%2Fh%3A1%2F%2F.default";
        for path in ["/tenant/oauth2/v2.0/token", "/ADFS/oauth2/token", "/adfs/oauth2/token/", "/t/oauth2/token"] {
            let Ok(Ask::Token(token)) = ask("POST", path, form) else { panic!("{path}") };
            let said = (token.client.as_str(), token.secret.expose(), token.audience.as_str());
            assert_eq!(said, ("a-b", "s +", "https://h:1/"), "{path}");
        }
    }

    #[test]
    fn what_is_no_request_for_a_token_is_denied() {
        let cases = [
            ("", Denied::InvalidRequest),
            ("grant_type=password&client_id=a&client_secret=b&scope=c", Denied::UnsupportedGrant),
            ("grant_type=client_credentials&client_secret=b&scope=c", Denied::InvalidRequest),
            ("grant_type=client_credentials&client_id=a&scope=c", Denied::InvalidRequest),
            ("grant_type=client_credentials&client_id=a&client_secret=b", Denied::InvalidRequest),
            ("grant_type=client_credentials&client_id=%ff&client_secret=b&scope=c", Denied::InvalidRequest),
        ];
        for (form, expected) in cases {
            let denied = ask("POST", "/t/oauth2/v2.0/token", form).map(|_| ()).unwrap_err();
            assert_eq!(denied, expected, "{form}");
            assert!(deny(denied).status().is_client_error());
        }
        assert_eq!(ask("GET", "/t/oauth2/v2.0/token", "").map(|_| ()), Err(Denied::Method));
    }

    #[test]
    fn each_authority_leads_to_its_own_token_endpoint() {
        let cases = [
            ("/adfs/.well-known/openid-configuration", "https://h:1/adfs/oauth2/token"),
            ("/adfs/name/v2.0/.well-known/openid-configuration", "https://h:1/adfs/oauth2/token"),
            ("/tenant/v2.0/.well-known/openid-configuration", "https://h:1/tenant/oauth2/v2.0/token"),
        ];
        for (path, expected) in cases {
            let Ok(Ask::Configuration(authority)) = ask("GET", path, "") else { panic!("{path}") };
            let body: Value = serde_json::from_slice(show_configuration("h:1", &authority, "T").body()).unwrap();
            assert_eq!((&body["token_endpoint"], &body["issuer"]), (&json!(expected), &json!("https://h:1/T/v2.0")));
        }
    }
}
