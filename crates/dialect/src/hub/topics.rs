//! The topics of a hub's MQTT dialect (`contract/hub-device.md 2.5`).
//!
//! Topics that name a device are compared as text with the connected identity, never as MQTT filters: a device ID may
//! hold `+` and `#`. What belongs to somebody else is `None`, like what belongs to nobody.

use domain::ids::{MethodName, MethodRequestId};
use domain::operation::identity::IdentityName;
use domain::operation::session::Filter;

/// Longest `$rid` that is echoed; the clients' own are at most a GUID.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// What a device can publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication<'a> {
    /// Telemetry, with its undecoded property bag.
    Telemetry {
        /// What stands behind `messages/events/`.
        bag: &'a str,
    },
    /// A request for the twin.
    ReadTwin {
        /// To be echoed byte for byte.
        request_id: &'a str,
    },
    /// A patch of the reported properties.
    Report {
        /// To be echoed byte for byte.
        request_id: &'a str,
        /// The version the device builds on, if it names one that is a number.
        expected_version: Option<u64>,
    },
    /// The answer to a direct method request.
    MethodResult {
        /// Chosen by the device.
        status: i32,
        /// That of the request.
        request_id: &'a str,
    },
}

/// Reads the topic of something that `own` publishes.
pub fn parse_publication<'a>(topic: &'a str, own: &IdentityName) -> Option<Publication<'a>> {
    let Some(hub) = topic.strip_prefix("$iothub/") else {
        return parse_telemetry(topic, own).map(|bag| Publication::Telemetry { bag });
    };
    if let Some(query) = hub.strip_prefix("twin/GET/?") {
        return Some(Publication::ReadTwin { request_id: request_id(query)? });
    }
    if let Some(query) = hub.strip_prefix("twin/PATCH/properties/reported/?") {
        let expected_version = parameter(query, "$version").and_then(|version| version.parse().ok());
        return Some(Publication::Report { request_id: request_id(query)?, expected_version });
    }
    let (status, query) = hub.strip_prefix("methods/res/")?.split_once("/?")?;
    Some(Publication::MethodResult { status: status.parse().ok()?, request_id: request_id(query)? })
}

/// The property bag of a telemetry topic of `own`. The slash before an empty bag may be missing.
pub fn parse_telemetry<'a>(topic: &'a str, own: &IdentityName) -> Option<&'a str> {
    let behind = behind_own(topic, own)?.strip_prefix("messages/events")?;
    if behind.is_empty() { Some(behind) } else { behind.strip_prefix('/') }
}

/// Reads a filter that `own` may subscribe to.
pub fn parse_filter(filter: &str, own: &IdentityName) -> Option<Filter> {
    match filter {
        "$iothub/twin/res/#" => return Some(Filter::TwinReplies),
        "$iothub/twin/PATCH/properties/desired/#" => return Some(Filter::Desired),
        "$iothub/methods/POST/#" => return Some(Filter::Methods),
        _ => {}
    }
    match (behind_own(filter, own)?, &own.module) {
        ("messages/devicebound/#", _) => Some(Filter::CloudToDevice),
        ("inputs/#", Some(_)) => Some(Filter::Inputs),
        ("#", Some(_)) => Some(Filter::Module),
        _ => None,
    }
}

/// The topic of the answer to a twin request. Clients take what follows `$rid=` up to the next `&` for theirs.
pub fn twin_result(status: u16, request_id: &str, version: Option<u64>) -> String {
    let version = version.map(|version| format!("&$version={version}")).unwrap_or_default();
    format!("$iothub/twin/res/{status}/?$rid={request_id}{version}")
}

/// The topic of a change of desired properties.
pub fn desired_change(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

/// The topic of a direct method request. Nothing follows the ID: clients take what is left of the topic for it.
pub fn method_request(method: &MethodName, request: MethodRequestId) -> String {
    format!("$iothub/methods/POST/{method}/?$rid={:032x}", request.bits())
}

/// The topic of a cloud-to-device message to `own`, with its property bag.
pub fn cloud_to_device(own: &IdentityName, bag: &str) -> String {
    format!("{}/messages/devicebound/{bag}", path_of(own))
}

/// The address of cloud-to-device messages as the messages themselves carry it, whose capital clients expect
/// (`contract/hub-device.md 2.8`).
pub fn cloud_to_device_address(own: &IdentityName) -> String {
    format!("/{}/messages/deviceBound", path_of(own))
}

fn path_of(own: &IdentityName) -> String {
    match &own.module {
        None => format!("devices/{}", own.device),
        Some(module) => format!("devices/{}/modules/{module}", own.device),
    }
}

/// What stands behind `devices/{device}/` or `devices/{device}/modules/{module}/`.
fn behind_own<'a>(topic: &'a str, own: &IdentityName) -> Option<&'a str> {
    let behind = topic.strip_prefix("devices/")?.strip_prefix(own.device.as_str())?.strip_prefix('/')?;
    match &own.module {
        None => Some(behind),
        Some(module) => behind.strip_prefix("modules/")?.strip_prefix(module.as_str())?.strip_prefix('/'),
    }
}

fn request_id(query: &str) -> Option<&str> {
    parameter(query, "$rid").filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use domain::ids::{DeviceId, ModuleId};

    use super::*;

    fn own(device: &str, module: Option<&str>) -> IdentityName {
        IdentityName { device: DeviceId::parse(device).unwrap(), module: module.map(|id| ModuleId::parse(id).unwrap()) }
    }

    #[test]
    fn what_a_device_publishes_is_told_by_the_topic() {
        use Publication::{MethodResult, ReadTwin, Report, Telemetry};

        let (device, module) = (own("dev-1", None), own("dev-1", Some("m")));
        let cases: &[(&str, &IdentityName, Option<Publication<'_>>)] = &[
            ("devices/dev-1/messages/events/a=b", &device, Some(Telemetry { bag: "a=b" })),
            ("devices/dev-1/messages/events/", &device, Some(Telemetry { bag: "" })),
            ("devices/dev-1/messages/events", &device, Some(Telemetry { bag: "" })),
            ("devices/dev-1/messages/eventsx", &device, None),
            ("devices/dev-2/messages/events/", &device, None),
            ("devices/DEV-1/messages/events/", &device, None),
            ("devices/dev-1/modules/m/messages/events/a=b/", &module, Some(Telemetry { bag: "a=b/" })),
            ("devices/dev-1/modules/m/messages/events/", &device, None),
            ("devices/dev-1/messages/events/", &module, None),
            ("$iothub/twin/GET/?$rid=3", &device, Some(ReadTwin { request_id: "3" })),
            ("$iothub/twin/GET/?a=b&$rid=a%2f+/=", &device, Some(ReadTwin { request_id: "a%2f+/=" })),
            ("$iothub/twin/GET/", &device, None),
            ("$iothub/twin/GET/?", &device, None),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=6",
                &module,
                Some(Report { request_id: "6", expected_version: None }),
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=6&$version=4",
                &device,
                Some(Report { request_id: "6", expected_version: Some(4) }),
            ),
            ("$iothub/twin/PATCH/properties/desired/?$rid=6", &device, None),
            ("$iothub/methods/res/-5/?$rid=1-a", &device, Some(MethodResult { status: -5, request_id: "1-a" })),
            ("$iothub/methods/res/ok/?$rid=1", &device, None),
            ("$iothub/methods/POST/reboot/?$rid=1", &device, None),
            ("$dps/registrations/res/", &device, None),
            ("", &device, None),
        ];
        for (topic, own, expected) in cases {
            assert_eq!(parse_publication(topic, own), *expected, "{topic}");
        }
        let long = format!("$iothub/twin/GET/?$rid={}", "r".repeat(REQUEST_ID_BYTES_MAX + 1));
        assert_eq!(parse_publication(&long, &device), None);
    }

    #[test]
    fn an_id_of_wildcards_is_compared_as_text() {
        let odd = own("a+#%41", None);
        assert_eq!(parse_telemetry("devices/a+#%41/messages/events/", &odd), Some(""));
        assert_eq!(parse_telemetry("devices/axyA/messages/events/", &odd), None);
        assert_eq!(parse_filter("devices/a+#%41/messages/devicebound/#", &odd), Some(Filter::CloudToDevice));
        assert_eq!(parse_filter("devices/+/messages/devicebound/#", &odd), None);
    }

    #[test]
    fn the_known_filters_are_granted_to_their_owner() {
        let (device, module) = (own("d", None), own("d", Some("m")));
        let cases: &[(&str, Option<Filter>, Option<Filter>)] = &[
            ("$iothub/twin/res/#", Some(Filter::TwinReplies), Some(Filter::TwinReplies)),
            ("$iothub/twin/PATCH/properties/desired/#", Some(Filter::Desired), Some(Filter::Desired)),
            ("$iothub/methods/POST/#", Some(Filter::Methods), Some(Filter::Methods)),
            ("devices/d/messages/devicebound/#", Some(Filter::CloudToDevice), None),
            ("devices/d/modules/m/messages/devicebound/#", None, Some(Filter::CloudToDevice)),
            ("devices/d/modules/m/inputs/#", None, Some(Filter::Inputs)),
            ("devices/d/modules/m/#", None, Some(Filter::Module)),
            ("devices/d/#", None, None),
            ("devices/other/messages/devicebound/#", None, None),
            ("devices/+/messages/devicebound/#", None, None),
            ("#", None, None),
            ("$iothub/#", None, None),
            ("$iothub/twin/res/+", None, None),
        ];
        for (filter, for_device, for_module) in cases {
            let found = (parse_filter(filter, &device), parse_filter(filter, &module));
            assert_eq!(found, (*for_device, *for_module), "{filter}");
        }
    }

    #[test]
    fn answers_echo_the_request_id() {
        assert_eq!(twin_result(200, "a%2F", None), "$iothub/twin/res/200/?$rid=a%2F");
        assert_eq!(twin_result(204, "6", Some(7)), "$iothub/twin/res/204/?$rid=6&$version=7");
        let (method, request) = (MethodName::parse("Get.State").unwrap(), MethodRequestId::from_bits(0xa1));
        let topic = "$iothub/methods/POST/Get.State/?$rid=000000000000000000000000000000a1";
        assert_eq!(method_request(&method, request), topic);
        assert_eq!(desired_change(3), "$iothub/twin/PATCH/properties/desired/?$version=3");
    }
}
