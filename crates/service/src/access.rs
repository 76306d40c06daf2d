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

impl Signed {
    /// Whether one of `policies` would still let it do `action`.
    pub fn is_upheld(&self, policies: &[Policy], action: Action) -> bool {
        policies.iter().any(|policy| policy.rights.allow(action) && policy.has_key(&self.key))
    }
}

/// Judges a signature against the policies of a resource: `hosts` are its names, `path` is what is asked for.
pub fn authorize(
    caller: &Caller,
    (hosts, path): (&[String], &[&str]),
    policies: &[Policy],
    action: Action,
    now: UnixTime,
) -> Result<Signed, Error> {
    let covers = |token: &SasToken, hosts: &[&str]| token.covers(hosts, path);
    let (policy, signed) = judge(caller, (hosts, &covers), policies, (Policy::signer, now))?;
    allowed(policy, action)?;
    Ok(signed)
}

/// As [`authorize`], for what clients of Event Hubs ask: they may sign with a key's text, and write paths in any letter
/// case (`contract/eventhub-endpoint.md 4`).
pub fn authorize_reader(
    caller: &Caller,
    (hosts, path): (&[String], &[&str]),
    policies: &[Policy],
    now: UnixTime,
) -> Result<Signed, Error> {
    let covers = |token: &SasToken, hosts: &[&str]| {
        let (host, _) = token.segments();
        hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)) && token.covers_in_any_case(path)
    };
    let (policy, signed) = judge(caller, (hosts, &covers), policies, (Policy::signer_by_text, now))?;
    allowed(policy, Action::ReadTelemetry)?;
    Ok(signed)
}

fn allowed(policy: &Policy, action: Action) -> Result<(), Error> {
    if policy.rights.allow(action) {
        return Ok(());
    }
    let text = format!("The policy {} holds {}, which does not allow this.", policy.name, policy.rights);
    Err(Error::new(ErrorKind::Forbidden, text))
}

/// Judges a signature of a policy of a hub, whatever it may be used for: `hosts` are the hub's names. What it
/// is used for is judged then, and so is whether a key's text may have signed.
pub fn verify_policy(caller: &Caller, (hosts, policies): (&[String], &[Policy]), now: UnixTime) -> Result<(), Error> {
    let covers = |token: &SasToken, hosts: &[&str]| {
        let (_, own) = token.segments();
        token.covers(hosts, &own)
    };
    judge(caller, (hosts, &covers), policies, (Policy::signer_by_text, now)).map(|_| ())
}

/// Whether a signature holds for what is asked at one of the hosts.
type Covers<'a> = &'a dyn Fn(&SasToken, &[&str]) -> bool;
/// The SHA-256 of the key of a policy that made a signature.
type Signer = fn(&Policy, &SasToken) -> Option<[u8; 32]>;

/// The policy whose key made the signature, if that holds at one of `hosts` as `covers` says.
fn judge<'a>(
    caller: &Caller,
    (hosts, covers): (&[String], Covers<'_>),
    policies: &'a [Policy],
    (signer, now): (Signer, UnixTime),
) -> Result<(&'a Policy, Signed), Error> {
    let Some(token) = &caller.evidence.token else { return Err(refused("no signature was presented")) };
    let signed = signed_by(token, policies, signer);
    let (policy, key) = signed.ok_or_else(|| refused("no policy's key made the signature"))?;
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    if !covers(token, &hosts) {
        return Err(refused("the signature is for another resource"));
    }
    let expires_at = token.expires_at().plus(LEEWAY);
    if expires_at < now {
        return Err(refused("the signature has expired"));
    }
    Ok((policy, Signed { key, expires_at }))
}

/// The policy that the token names and whose key signed it, and the key's SHA-256. Without a name no policy fits: it would
/// be a device's token.
fn signed_by<'a>(token: &SasToken, policies: &'a [Policy], signer: Signer) -> Option<(&'a Policy, [u8; 32])> {
    let name = token.policy()?;
    let policy = policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(name))?;
    signer(policy, token).map(|key| (policy, key))
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
