//! How the vectors under `testdata/wire/provisioning` write requests, asks and replies.

use std::fmt::Write as _;

use domain::ids::{OperationId, RegistrationId};
use domain::operation::enrollment::{self, BulkItem};
use domain::operation::registration::{self, Answer, Registration, Request as Wanted};
use domain::operation::{Operation, PageRequest, Reply};

use crate::vectors::show_precondition;

/// An operation, as a line.
pub fn show(operation: &Operation) -> String {
    match operation {
        Operation::Registration(ask) => show_registration_ask(ask),
        Operation::Enrollment(ask) => show_enrollment_ask(ask),
        other => panic!("{other:?}"),
    }
}

fn show_registration_ask(ask: &registration::Ask) -> String {
    let registration::Ask { id_scope, registration_id, request } = ask;
    match request {
        Wanted::Poll { operation } => format!("poll | {id_scope} | {registration_id} | {operation}"),
        Wanted::LookUp => format!("look up | {id_scope} | {registration_id}"),
        Wanted::Refuse(unfit) => {
            let cause = unfit.cause().map_or("-", domain::decision::Cause::code);
            format!("refuse | {id_scope} | {registration_id} | {cause}: {unfit}")
        }
        Wanted::Register(registration) => {
            format!("register | {id_scope} | {registration_id}{}", show_registration(registration))
        }
    }
}

fn show_registration(registration: &Registration) -> String {
    let mut shown = String::new();
    if let Some(id) = &registration.registration_id {
        write!(shown, " | of {id}").unwrap();
    }
    if let Some(payload) = &registration.payload {
        write!(shown, " | payload {payload}").unwrap();
    }
    if let Some(tpm) = &registration.tpm {
        let storage_root_key = tpm.storage_root_key.as_ref().map(hex::encode).unwrap_or_default();
        write!(shown, " | tpm {} {storage_root_key}", hex::encode(&tpm.endorsement_key)).unwrap();
    }
    if registration.has_certificate_request {
        shown += " | csr";
    }
    if registration.force {
        shown += " | force";
    }
    shown
}

fn show_enrollment_ask(ask: &enrollment::Ask) -> String {
    use enrollment::Ask;
    let page = |PageRequest { after, limit }: &PageRequest| {
        let after = after.as_ref().map(|cursor| format!(" after {}", cursor.0)).unwrap_or_default();
        format!("{limit}{after}")
    };
    match ask {
        Ask::Put { draft, precondition } => format!("put | {} | {}", draft.name, show_precondition(*precondition)),
        Ask::Find(name) => format!("find | {name}"),
        Ask::FindAttestation(name) => format!("find attestation | {name}"),
        Ask::Delete { name, precondition } => format!("delete | {name} | {}", show_precondition(*precondition)),
        Ask::List { kind, page: wanted } => format!("list | {kind:?} | {}", page(wanted)),
        Ask::Bulk(items) => items.iter().fold("bulk".to_owned(), |shown, item| shown + " | " + &show_item(item)),
        Ask::FindRegistration(id) => format!("find registration | {id}"),
        Ask::DeleteRegistration { registration_id, precondition } => {
            format!("delete registration | {registration_id} | {}", show_precondition(*precondition))
        }
        Ask::ListRegistrations { group, page: wanted } => format!("list registrations | {group} | {}", page(wanted)),
    }
}

fn show_item(item: &BulkItem) -> String {
    match item {
        BulkItem::Put { draft, precondition } => format!("put {} {}", draft.name, show_precondition(*precondition)),
        BulkItem::Delete { name, precondition } => format!("delete {name} {}", show_precondition(*precondition)),
    }
}

/// The fields of an answer to a device.
pub fn read_reply(fields: &[&str]) -> Reply {
    let operation = |text: &str| OperationId::parse(text).unwrap();
    Reply::Registration(match fields {
        ["accepted", id, seconds] => {
            Answer::Accepted { operation: operation(id), retry_after_s: seconds.parse().unwrap() }
        }
        ["assigning", id, registration_id, seconds] => Answer::Assigning {
            operation: operation(id),
            registration_id: RegistrationId::parse(registration_id).unwrap(),
            retry_after_s: seconds.parse().unwrap(),
        },
        ["finished", id, state] => {
            Answer::Finished { operation: operation(id), state: serde_json::from_str(state).unwrap() }
        }
        ["state", state] => Answer::State(serde_json::from_str(state).unwrap()),
        other => panic!("{other:?}"),
    })
}
