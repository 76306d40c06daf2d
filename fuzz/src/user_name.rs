//! User names of any kind name an identity whose parts are allowed, or none.

use dialect::hub::user_name::UserName;

/// Reads `input` as a user name.
///
/// # Panics
/// When a part is not of the text, or an identity holds what none may.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(name) = UserName::parse(text) else { return };
    assert!(!name.host.is_empty() && !name.device.is_empty() && name.module != Some(""));
    let start = format!("{}/{}", name.host, name.device);
    assert!(text.starts_with(&start), "{start} is not the beginning of {text}");
    for parameter in ["api-version", "DeviceClientType", "model-id"] {
        assert!(name.parameter(parameter).is_none_or(|value| value.len() <= text.len()));
    }
    let Ok(identity) = name.identity() else { return };
    let module = identity.module.as_ref().map_or("", |module| module.as_str());
    assert_eq!((identity.device.as_str(), module), (name.device, name.module.unwrap_or_default()));
    for id in [identity.device.as_str(), module] {
        assert!(id.len() <= 128 && !id.contains(|c: char| c == '/' || c.is_control()), "{id:?}");
    }
}
