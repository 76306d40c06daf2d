//! The user name of a device's CONNECT (`contract/hub-device.md 2.1`).
//!
//! Taken apart without judging: whether the names are names is said by [`UserName::identity`], whether anybody has them
//! by the service.

use domain::ids::{DeviceId, InvalidName, ModuleId};
use domain::operation::identity::IdentityName;
use percent_encoding::percent_decode_str;

/// `{host}/{device}[/{module}]/?{query}`, the parts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserName<'a> {
    /// The hub's host name as the client believes it.
    pub host: &'a str,
    /// The device ID, never encoded.
    pub device: &'a str,
    /// The module ID, never encoded.
    pub module: Option<&'a str>,
    query: &'a str,
}

impl<'a> UserName<'a> {
    /// Takes `text` apart; `None` if it does not name a host and a device.
    ///
    /// Hand-written clients leave the query out, or write it without `?`. A query may hold slashes, since one SDK does
    /// not encode the model ID.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = text.split_once('/')?;
        let (device, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || device.is_empty() {
            return None;
        }
        let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
        let (module, query) = if first.is_empty() || is_query(first) { (None, rest) } else { (Some(first), behind) };
        let query = query.trim_start_matches('/');
        Some(Self { host, device, module, query: query.strip_prefix('?').unwrap_or(query) })
    }

    /// The value of a query parameter, percent-decoded; the first one of the name counts. `None` also if it is not UTF-8.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
    }

    /// Whom it claims to be.
    pub fn identity(&self) -> Result<IdentityName, InvalidName> {
        let module = self.module.map(ModuleId::parse).transpose()?;
        Ok(IdentityName { device: DeviceId::parse(self.device)?, module })
    }
}

/// Whether a segment behind the device ID begins the query rather than naming a module.
fn is_query(segment: &str) -> bool {
    segment.starts_with('?') || segment.contains("api-version=")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        source: String,
        user_name: String,
        host: String,
        identity: String,
        api_version: Option<String>,
        model_id: Option<String>,
        client: Option<String>,
    }

    #[test]
    fn every_clients_form_is_read() {
        let text = include_str!("../../../../testdata/wire/hub/user-names.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 9);
        for vector in vectors {
            let name = UserName::parse(&vector.user_name).unwrap();
            let identity = name.identity().unwrap().to_string();
            assert_eq!((name.host, identity.as_str()), (&*vector.host, &*vector.identity), "{}", vector.source);
            let found = ["api-version", "model-id", "DeviceClientType"].map(|key| name.parameter(key));
            assert_eq!(found, [vector.api_version, vector.model_id, vector.client], "{}", vector.source);
        }
    }

    #[test]
    fn a_name_without_host_or_device_is_none() {
        for text in ["", "host", "host/", "/dev", "//", "host//?api-version=1"] {
            assert_eq!(UserName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn odd_names_are_told_apart_from_queries() {
        let cases: &[(&str, &str, Option<&str>, &str)] = &[
            ("a device that begins with a question mark", "h/?d/?a=1", None, "1"),
            ("a query with a slash", "h/d/?a=x/y", None, "x/y"),
            ("a module and no query", "h/d/m", Some("m"), ""),
            ("a module and the old form", "h/d/m/api-version=1&a=2", Some("m"), "2"),
            ("the first of a name counts", "h/d/?a=1&a=2", None, "1"),
            ("a plus is a plus", "h/d/?a=1+1", None, "1+1"),
        ];
        for (name, text, module, a) in cases {
            let parsed = UserName::parse(text).unwrap();
            assert_eq!((parsed.module, parsed.parameter("a").unwrap_or_default().as_str()), (*module, *a), "{name}");
        }
        assert!(UserName::parse("h/d\u{1}/?a=1").unwrap().identity().is_err());
        assert!(UserName::parse("h/d/m m/?a=1").unwrap().identity().is_err());
    }
}
