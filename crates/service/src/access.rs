//! Who may do what: operators' programs by shared access signature, the management API by bearer token.

use domain::access::Action;
use domain::clock::UnixTime;
use domain::operation::{Caller, ErrorKind};
use domain::resource::Policy;
use domain::sas::SasToken;

use crate::error::Error;

/// How long after its end a service signature is still taken.
const LEEWAY: std::time::Duration = std::time::Duration::from_secs(5);

/// A signature that was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The SHA-256 of the policy's key that made it.
    pub key: [u8; 32],
    /// When it ends, leeway included.
    pub expires_at: UnixTime,
}

/// Judges a signature against the policies of a resource: `hosts` are its names, `path` is what is asked for.
pub fn authorize(
    caller: &Caller,
    (hosts, path): (&[String], &[&str]),
    policies: &[Policy],
    action: Action,
    now: UnixTime,
) -> Result<Signed, Error> {
    let (policy, signed) = judge(caller, (hosts, Some(path)), policies, now)?;
    if !policy.rights.allow(action) {
        let text = format!("The policy {} holds {}, which does not allow this.", policy.name, policy.rights);
        return Err(Error::new(ErrorKind::Forbidden, text));
    }
    Ok(signed)
}

/// Judges a signature of a policy of a hub, whatever it may be used for: `hosts` are the hub's names.
pub fn verify_policy(caller: &Caller, (hosts, policies): (&[String], &[Policy]), now: UnixTime) -> Result<(), Error> {
    judge(caller, (hosts, None), policies, now).map(|_| ())
}

/// The policy whose key made the signature, if the signature holds for `path` at one of `hosts`, or for whatever path it names.
fn judge<'a>(
    caller: &Caller,
    (hosts, path): (&[String], Option<&[&str]>),
    policies: &'a [Policy],
    now: UnixTime,
) -> Result<(&'a Policy, Signed), Error> {
    let Some(token) = &caller.evidence.token else { return Err(refused("no signature was presented")) };
    let (policy, key) = signed_by(token, policies).ok_or_else(|| refused("no policy's key made the signature"))?;
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (_, own) = token.segments();
    if !token.covers(&hosts, path.unwrap_or(&own)) {
        return Err(refused("the signature is for another resource"));
    }
    let expires_at = token.expires_at().plus(LEEWAY);
    if expires_at < now {
        return Err(refused("the signature has expired"));
    }
    Ok((policy, Signed { key, expires_at }))
}

/// The policy that the token names and whose key signed it, and the key's SHA-256. Without a name no policy fits: it would be a device's token.
fn signed_by<'a>(token: &SasToken, policies: &'a [Policy]) -> Option<(&'a Policy, [u8; 32])> {
    let name = token.policy()?;
    let policy = policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(name))?;
    policy.signer(token).map(|key| (policy, key))
}

/// Nobody is where `caller` dialled under the names that it gave; which those were is for the log alone.
pub fn unreached(caller: &Caller, kind: ErrorKind, public: &'static str) -> Error {
    tracing::info!(at = %caller.endpoint, "a service request was refused: nobody there has that name");
    Error::new(kind, public)
}

fn refused(reason: &'static str) -> Error {
    tracing::info!(reason, "a service request was refused");
    Error::unauthorized()
}
