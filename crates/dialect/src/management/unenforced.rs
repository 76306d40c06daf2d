//! Properties of resources that would restrict who may come in or go out, and that nothing enforces.
//!
//! A restriction that is stored, shown and not kept is worse than a refusal: its owner relies on it. So what restricts is
//! refused, and what restricts nothing is kept like every property that nothing is known about. Start at [`judge`].

use domain::operation::ErrorKind;
use serde_json::Value;

use crate::error::Refused;

/// What a property may say without restricting anything. Null and absence restrict nothing anywhere.
#[derive(Clone, Copy, Debug)]
enum Permissive {
    /// One of these words, in any case.
    Words(&'static [&'static str]),
    /// Not true.
    False,
    /// An empty list.
    NoRules,
    /// An object whose members restrict nothing.
    Members(&'static [(&'static str, Permissive)]),
}

/// The properties that restrict, of hubs and of provisioning services (`contract/control-plane.md 4.1, 4.2`), each with
/// what restricts nothing.
const RESTRICTING: [(&str, Permissive); 9] = [
    ("publicNetworkAccess", Permissive::Words(&["Enabled"])),
    ("ipFilterRules", Permissive::NoRules),
    (
        "networkRuleSets",
        Permissive::Members(&[("defaultAction", Permissive::Words(&["Allow"])), ("ipRules", Permissive::NoRules)]),
    ),
    // Nobody is let in below 1.2, so that the lower ones promise nothing that is not kept.
    ("minTlsVersion", Permissive::Words(&["1.0", "1.1", "1.2"])),
    ("disableLocalAuth", Permissive::False),
    ("disableDeviceSAS", Permissive::False),
    ("disableModuleSAS", Permissive::False),
    ("restrictOutboundNetworkAccess", Permissive::False),
    ("allowedFqdnList", Permissive::NoRules),
];

/// Refuses `properties` if one of them restricts.
pub(super) fn judge(properties: &Value) -> Result<(), Refused> {
    for (name, permissive) in RESTRICTING {
        if let Some(value) = member(properties, name).filter(|value| !permissive.holds(value)) {
            return Err(refusal(name, permissive, value));
        }
    }
    Ok(())
}

/// A member of an object, in whatever case its name is written: the last one, as a reader that ignores case would take it.
fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.as_object()?.iter().rfind(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn refusal(name: &str, permissive: Permissive, value: &Value) -> Refused {
    if let Permissive::Members(members) = permissive {
        let of_member = members.iter().find_map(|(member, permissive)| {
            let value = self::member(value, member).filter(|value| !permissive.holds(value))?;
            Some(refusal(&format!("{name}.{member}"), *permissive, value))
        });
        if let Some(refused) = of_member {
            return refused;
        }
    }
    let taken = match permissive {
        Permissive::Words(words) => format!("only {} is taken", words.join(", ")),
        Permissive::False => "only false is taken".to_owned(),
        Permissive::NoRules => "only an empty list is taken".to_owned(),
        Permissive::Members(_) => "only an object that restricts nothing is taken".to_owned(),
    };
    let text = format!("{name}: this server does not enforce it, so that {taken}.");
    Refused::new(ErrorKind::InvalidArgument, text)
}

impl Permissive {
    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Self::False, Value::Bool(false)) => true,
            (Self::Words(words), Value::String(word)) => words.iter().any(|known| known.eq_ignore_ascii_case(word)),
            (Self::NoRules, Value::Array(rules)) => rules.is_empty(),
            (Self::Members(members), Value::Object(_)) => {
                let holds =
                    |(name, permissive): &(&str, Self)| member(value, name).is_none_or(|it| permissive.holds(it));
                members.iter().all(holds)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::arm_json::{parse_hub, parse_service};
    use super::*;

    #[test]
    fn what_restricts_is_refused_and_says_that_it_is_not_enforced() {
        let rule = json!([{ "filterName": "one", "action": "Reject", "ipMask": "192.0.2.0/24" }]);
        let cases = [
            ("publicNetworkAccess", json!("Disabled"), "publicNetworkAccess"),
            ("publicNetworkAccess", json!(7), "publicNetworkAccess"),
            ("PublicNetworkAccess", json!("Disabled"), "publicNetworkAccess"),
            ("networkRuleSets", json!({ "DefaultAction": "Deny" }), "networkRuleSets.defaultAction"),
            ("ipFilterRules", rule.clone(), "ipFilterRules"),
            ("ipFilterRules", json!("192.0.2.0/24"), "ipFilterRules"),
            ("networkRuleSets", json!({ "defaultAction": "Deny" }), "networkRuleSets.defaultAction"),
            ("networkRuleSets", json!({ "defaultAction": "Allow", "ipRules": rule }), "networkRuleSets.ipRules"),
            ("networkRuleSets", json!([]), "networkRuleSets"),
            ("minTlsVersion", json!("1.3"), "minTlsVersion"),
            ("disableLocalAuth", json!(true), "disableLocalAuth"),
            ("disableDeviceSAS", json!(true), "disableDeviceSAS"),
            ("disableModuleSAS", json!(true), "disableModuleSAS"),
            ("restrictOutboundNetworkAccess", json!(true), "restrictOutboundNetworkAccess"),
            ("allowedFqdnList", json!(["hub.example.org"]), "allowedFqdnList"),
        ];
        for (name, value, named) in cases {
            let body = json!({ "location": "local", "properties": { name: value } });
            for refused in [parse_hub(&body).map(drop), parse_service(&body).map(drop)] {
                let refused = refused.expect_err(named);
                assert_eq!(refused.kind, ErrorKind::InvalidArgument, "{named}");
                let begins = format!("{named}: this server does not enforce it, so that only ");
                assert!(refused.public.starts_with(&begins), "{}", refused.public);
            }
        }
    }

    #[test]
    fn what_restricts_nothing_is_kept() {
        let cases = [
            ("publicNetworkAccess", json!("enabled")),
            ("publicNetworkAccess", Value::Null),
            ("ipFilterRules", json!([])),
            ("networkRuleSets", json!({ "applyToBuiltInEventHubEndpoint": true, "ipRules": [] })),
            ("networkRuleSets", json!({ "defaultAction": "Allow", "ipRules": null })),
            ("minTlsVersion", json!("1.2")),
            ("disableLocalAuth", json!(false)),
            ("allowedFqdnList", json!([])),
        ];
        for (name, value) in cases {
            let body = json!({ "location": "local", "properties": { name: value.clone() } });
            assert_eq!(parse_hub(&body).unwrap().extra.get(name), Some(&value), "{name}");
            assert_eq!(parse_service(&body).unwrap().extra.get(name), Some(&value), "{name}");
        }
    }
}
