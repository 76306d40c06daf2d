//! Topics and filters of any kind belong to the device that says them, or to nobody.

use dialect::hub::topics::{self, Publication, REQUEST_ID_BYTES_MAX};
use domain::ids::{DeviceId, ModuleId};
use domain::operation::identity::IdentityName;

/// Reads `input` as lines: a device, a module or nothing, and topics.
///
/// # Panics
/// When a topic of one device is taken for another's, or more of it is echoed than may be.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let (Some(device), Some(module)) = (lines.next(), lines.next()) else { return };
    let Ok(device) = DeviceId::parse(device) else { return };
    let module = ModuleId::parse(module).ok();
    let own = IdentityName { device, module };
    for topic in lines {
        check_topic(topic, &own);
    }
}

fn check_topic(topic: &str, own: &IdentityName) {
    let prefix = match &own.module {
        None => format!("devices/{}/", own.device),
        Some(module) => format!("devices/{}/modules/{module}/", own.device),
    };
    match topics::parse_publication(topic, own) {
        Some(Publication::Telemetry { bag }) => {
            assert!(topic.starts_with(&prefix), "{topic} is not of {own}");
            assert!(topic.ends_with(bag));
        }
        Some(Publication::ReadTwin { request_id } | Publication::Report { request_id, .. }) => {
            assert!(request_id.len() <= REQUEST_ID_BYTES_MAX);
            let reply = topics::twin_result(200, request_id, Some(1));
            assert!(reply.starts_with("$iothub/twin/res/200/?$rid=") && reply.len() < request_id.len() + 60);
        }
        Some(Publication::MethodResult { request_id, .. }) => assert!(request_id.len() <= REQUEST_ID_BYTES_MAX),
        None => {}
    }
    if let Some(filter) = topics::parse_filter(topic, own) {
        assert!(topic.starts_with(&prefix) || topic.starts_with("$iothub/"), "{topic}: {filter:?}");
        assert!(topic.ends_with('#'), "every filter that is known ends in a wildcard");
    }
}
