//! Which host a request is for, as it is read from a head. Pure functions: what the host means is decided by the address
//! that was dialled. Start at [`host_asked`].

use domain::host::{HostName, InvalidHostName};
use http::Version;
use http::header::{HOST, HeaderMap};
use http::uri::{Authority, Uri};

/// The host that a request is for; `None` if it names none and need not, as in HTTP/1.0.
///
/// A target's authority goes before `Host` (RFC 9112, section 3.2.2), which must be there once all the same (section 3.2).
/// In HTTP/2 it may be missing, and must not name another (RFC 9113, section 8.3.1).
pub(crate) fn host_asked(
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<HostName>, InvalidHostName> {
    let mut values = headers.get_all(HOST).iter();
    let header = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(InvalidHostName),
        (value, _) => value.map(|value| HostName::parse(value.to_str().map_err(|_| InvalidHostName)?)).transpose()?,
    };
    let authority = uri.authority().map(|authority| HostName::parse(host_and_port(authority))).transpose()?;
    match (authority, header) {
        (_, None) if version == Version::HTTP_11 => Err(InvalidHostName),
        (None, None) if version == Version::HTTP_2 => Err(InvalidHostName),
        (Some(asked), Some(other)) if version == Version::HTTP_2 && asked != other => Err(InvalidHostName),
        (authority, header) => Ok(authority.or(header)),
    }
}

/// An authority without the user in it.
pub(super) fn host_and_port(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}
