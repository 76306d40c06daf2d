//! Every operation of the service APIs against every right: held alone, and missing alone.
//!
//! The tables are the contract's, written down apart from what the server goes by. Start at [`try_rights`].

use std::collections::BTreeSet;
use std::iter;

use domain::sas::{SasToken, SymmetricKey};
use serde_json::{Value, json};
use testkit::raw_http::RawRequest;
use testkit::whole::Muster;

use crate::ground::{DEVICE_KEY, Ground, Scene, TOKEN_LIFETIME};
use crate::openapi::{fact_name, served};
use crate::outcome;
use crate::table::{Api, Operation, Table};

/// The rights of a kind of resource, and those of which each is enough, by operation.
struct Rights {
    all: &'static [&'static str],
    enough: &'static [(&'static [&'static str], &'static [&'static str])],
    /// Those operations that no OpenAPI file names.
    unpublished: &'static [&'static str],
}

/// `contract/hub-service.md 2.3`; writing includes reading.
const HUB: Rights = Rights {
    all: &["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"],
    enough: &[
        (
            &["RegistryRead", "RegistryWrite"],
            &[
                "GET /devices",
                "GET /devices/{}",
                "GET /devices/{}/modules",
                "GET /devices/{}/modules/{}",
                "GET /statistics/devices",
            ],
        ),
        (
            &["RegistryWrite"],
            &[
                "PUT /devices/{}",
                "DELETE /devices/{}",
                "POST /devices",
                "POST /devices/keys/regenerate",
                "PUT /devices/{}/modules/{}",
                "DELETE /devices/{}/modules/{}",
                "POST /jobs/create",
                "GET /jobs",
                "GET /jobs/{}",
                "DELETE /jobs/{}",
            ],
        ),
        (&["RegistryRead", "RegistryWrite", "ServiceConnect"], &["GET /statistics/service"]),
        (
            &["RegistryWrite", "ServiceConnect"],
            &[
                "GET /configurations",
                "GET /configurations/{}",
                "PUT /configurations/{}",
                "DELETE /configurations/{}",
                "POST /configurations/testQueries",
                "POST /devices/{}/applyConfigurationContent",
            ],
        ),
        (
            &["ServiceConnect"],
            &[
                "GET /twins/{}",
                "PATCH /twins/{}",
                "PUT /twins/{}",
                "GET /twins/{}/modules/{}",
                "PATCH /twins/{}/modules/{}",
                "PUT /twins/{}/modules/{}",
                "POST /devices/query",
                "POST /twins/{}/methods",
                "POST /twins/{}/modules/{}/methods",
                "GET /digitaltwins/{}",
                "PATCH /digitaltwins/{}",
                "POST /digitaltwins/{}/commands/{}",
                "POST /digitaltwins/{}/components/{}/commands/{}",
                "GET /jobs/v2/{}",
                "GET /jobs/v2/query",
                "PUT /jobs/v2/{}",
                "POST /jobs/v2/{}/cancel",
                "DELETE /devices/{}/commands",
                "GET /messages/serviceBound/feedback",
                "DELETE /messages/serviceBound/feedback/{}",
                "POST /messages/serviceBound/feedback/{}/abandon",
                "GET /messages/serviceBound/filenotifications",
                "DELETE /messages/serviceBound/filenotifications/{}",
                "POST /messages/serviceBound/filenotifications/{}/abandon",
            ],
        ),
    ],
    unpublished: &[
        "POST /devices/keys/regenerate",
        "GET /messages/serviceBound/filenotifications",
        "DELETE /messages/serviceBound/filenotifications/{}",
        "POST /messages/serviceBound/filenotifications/{}/abandon",
    ],
};

/// `contract/dps-service.md 8`; writing includes reading, and enrollments their registrations.
const SERVICE: Rights = Rights {
    all: &[
        "ServiceConfig",
        "DeviceConnect",
        "EnrollmentRead",
        "EnrollmentWrite",
        "RegistrationStatusRead",
        "RegistrationStatusWrite",
    ],
    enough: &[
        (
            &["EnrollmentRead", "EnrollmentWrite"],
            &[
                "GET /enrollments/{}",
                "POST /enrollments/query",
                "GET /enrollmentGroups/{}",
                "POST /enrollmentGroups/query",
            ],
        ),
        (
            &["EnrollmentWrite"],
            &[
                "PUT /enrollments/{}",
                "DELETE /enrollments/{}",
                "POST /enrollments",
                "POST /enrollments/{}/attestationmechanism",
                "PUT /enrollmentGroups/{}",
                "DELETE /enrollmentGroups/{}",
                "POST /enrollmentGroups",
                "POST /enrollmentGroups/{}/attestationmechanism",
            ],
        ),
        (
            &["RegistrationStatusRead", "RegistrationStatusWrite", "EnrollmentWrite"],
            &["GET /registrations/{}", "POST /registrations/{}/query"],
        ),
        (&["RegistrationStatusWrite", "EnrollmentWrite"], &["DELETE /registrations/{}"]),
    ],
    unpublished: &[],
};

#[tokio::test]
async fn each_operation_of_a_hub_needs_exactly_its_right() {
    let tables = [
        "hub-registry",
        "hub-twin",
        "hub-method",
        "hub-digital-twin",
        "hub-query",
        "hub-jobs",
        "hub-configurations",
        "hub-messages",
    ];
    try_rights("hub", Api::Hub, &tables, &HUB, "IotHubs/hub").await;
}

#[tokio::test]
async fn each_operation_of_a_provisioning_service_needs_exactly_its_right() {
    let tables = ["provisioning-service"];
    try_rights("provisioning-service", Api::ProvisioningService, &tables, &SERVICE, "provisioningServices/dps").await;
}

async fn try_rights(facts: &str, api: Api, tables: &[&str], rights: &Rights, resource: &str) {
    let listed: BTreeSet<String> =
        rights.enough.iter().flat_map(|(_, operations)| *operations).map(|name| (*name).to_owned()).collect();
    let mut served = served(facts);
    served.extend(rights.unpublished.iter().map(|name| (*name).to_owned()));
    assert_eq!(listed, served, "the operations that are served are those that have a right here");

    let mut ground = Ground::start().await;
    let sets = rights.sets();
    give(&mut ground, (api, resource), rights.all, &sets).await;
    let mut wrong = Vec::new();
    for table in tables.iter().map(|name| Table::read(name)) {
        for operation in &table.operations {
            let named = |names: &[String]| names.iter().map(|name| table.entity(name)).collect();
            let scene = Scene {
                given: named(&operation.given),
                absent: named(&operation.absent),
                registers: operation.registers,
            };
            ground.prepare(&scene).await;
            for (index, set) in sets.iter().enumerate() {
                let is_enough = rights.of(operation).iter().any(|right| set.contains(right));
                if let Some(fault) = try_one(&mut ground, api, operation, &policy(index), is_enough).await {
                    wrong.push(format!("{} with {}: {fault}", operation.name, set.join(", ")));
                }
                if is_enough {
                    ground.prepare(&scene).await;
                }
            }
        }
    }
    ground.stop().await;
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

impl Rights {
    /// Each right alone, and for each operation all but those that are enough.
    fn sets(&self) -> Vec<Vec<&'static str>> {
        let alone = self.all.iter().map(|right| vec![*right]);
        let lacking = self
            .enough
            .iter()
            .map(|(enough, _)| self.all.iter().filter(|right| !enough.contains(right)).copied().collect::<Vec<_>>());
        alone.chain(lacking).collect()
    }

    fn of(&self, operation: &Operation) -> &'static [&'static str] {
        let name = fact_name(operation);
        let found = self.enough.iter().find(|(_, operations)| operations.contains(&name.as_str()));
        found.unwrap_or_else(|| panic!("{name} has no right")).0
    }
}

/// The name of the policy that holds the set at `index`.
fn policy(index: usize) -> String {
    format!("set-{index}")
}

/// Gives a resource a policy for each of `sets`, beside that of its owner, who may do everything.
async fn give(ground: &mut Ground, (api, resource): (Api, &str), all: &[&str], sets: &[Vec<&str>]) {
    let Muster { hub, provisioning, admin, .. } = ground.muster();
    let owner = if api == Api::Hub { &hub.owner } else { &provisioning.owner };
    let policy_of = |name: &str, rights: &[&str], key: &SymmetricKey| {
        let key = key.to_base64();
        json!({ "keyName": name, "rights": rights.join(", "), "primaryKey": key, "secondaryKey": key })
    };
    let key = SymmetricKey::from_bytes(&DEVICE_KEY).unwrap();
    let policies = sets.iter().enumerate().map(|(index, set)| policy_of(&policy(index), set, &key));
    let policies: Value = iter::once(policy_of(&owner.policy, all, &owner.key)).chain(policies).collect();
    let target = format!(
        "/subscriptions/{}/resourceGroups/muster/providers/Microsoft.Devices/{resource}?api-version=2021-04-12",
        admin.subscription
    );
    let headers = ground.headers(Api::Management, &ground.tokens(Api::Management).good);
    let request = RawRequest { method: "GET".to_owned(), target, headers, body: Vec::new() };
    let answer = ground.send(Api::Management, &request).await.unwrap();
    let mut document: Value = serde_json::from_slice(&answer.body).unwrap();
    document["properties"]["authorizationPolicies"] = policies;
    let request = RawRequest { method: "PUT".to_owned(), body: document.to_string().into_bytes(), ..request };
    let answer = ground.send(Api::Management, &request).await.unwrap();
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

/// Asks by `policy`; what is wrong with the answer, if anything is.
async fn try_one(
    ground: &mut Ground,
    api: Api,
    operation: &Operation,
    policy: &str,
    is_enough: bool,
) -> Option<String> {
    let until = ground.muster().clock().now().plus(TOKEN_LIFETIME);
    let key = SymmetricKey::from_bytes(&DEVICE_KEY).unwrap();
    let token = SasToken::write(&key, ground.host(api), Some(policy), until);
    let mut parts = ground.parts(api, operation);
    parts.headers.retain(|(name, _)| name != "Authorization");
    parts.headers.push(("Authorization".to_owned(), token.into_bytes()));
    let answer = ground.send(api, &parts.request()).await;
    let found = outcome::words(api, &answer);
    let (is_expected, expected) = match (is_enough, api) {
        // Some are served and still end in a failure, as a call does of a device that is not connected.
        (true, _) => (answer.is_ok_and(|answer| answer.status == operation.answers), operation.answers.to_string()),
        (false, Api::Hub) => (found == "401 IotHubUnauthorized", "401 IotHubUnauthorized".to_owned()),
        (false, _) => (found == "401 401003", "401 401003".to_owned()),
    };
    if !is_expected {
        return Some(format!("{found}, not {expected}"));
    }
    (!is_enough && !ground.is_unchanged().await).then(|| "something changed".to_owned())
}
