//! The bearer tokens of the management API: issued for the operator's credential, signed with the deployment's key.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::operation::{ErrorKind, Failure};
use domain::sas::SymmetricKey;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::Service;
use crate::error::Error;

/// How long a token holds.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4_096;

impl Service {
    /// A token for whoever knows the operator's credential (client credentials, RFC 6749, section 4.4).
    pub fn issue_token(&self, client: &str, secret: &str, audience: &str) -> Result<String, Failure> {
        self.sign_token(client, secret, audience).map_err(|error| self.fail(error))
    }

    fn sign_token(&self, client: &str, secret: &str, audience: &str) -> Result<String, Error> {
        let deployment = self.deployment();
        let same_secret: bool = deployment.client_secret.0.as_slice().ct_eq(secret.as_bytes()).into();
        if !(same_secret & client.eq_ignore_ascii_case(&deployment.client)) {
            return Err(Error::new(ErrorKind::Unauthorized, "The client credential was refused."));
        }
        let now = self.now();
        let claims = json!({
            "aud": audience,
            "iss": deployment.tenant,
            "sub": deployment.client,
            "oid": deployment.client,
            "appid": deployment.client,
            "tid": deployment.tenant,
            "iat": now.seconds(),
            "nbf": now.seconds(),
            "exp": now.plus(TOKEN_LIFETIME).seconds(),
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "HS256" })), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.token_key()?.sign(signed.as_bytes()));
        Ok(format!("{signed}.{signature}"))
    }

    /// Whether `token` was issued by this deployment and still holds.
    pub(crate) fn is_good_token(&self, token: &str) -> bool {
        if token.len() > TOKEN_BYTES_MAX {
            return false;
        }
        let (Some((signed, signature)), Ok(key)) = (token.rsplit_once('.'), self.token_key()) else { return false };
        let (Ok(signature), Some((_, claims))) = (URL_SAFE_NO_PAD.decode(signature), signed.split_once('.')) else {
            return false;
        };
        // Only what this deployment wrote is read.
        if !bool::from(key.sign(signed.as_bytes()).as_slice().ct_eq(&signature)) {
            return false;
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok();
        let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        let expires = claims.as_ref().and_then(|claims| claims.get("exp")).and_then(Value::as_i64);
        expires.is_some_and(|expires| expires > self.now().seconds())
    }

    fn token_key(&self) -> Result<SymmetricKey, Error> {
        SymmetricKey::from_bytes(&self.deployment().token_key.0)
            .map_err(|_| Error::new(ErrorKind::Internal, "Internal error."))
    }
}
