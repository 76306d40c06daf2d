//! What an item of a bulk request, or a line of an import, is to do (`contract/hub-service.md 4.4` and `8.2`).
//!
//! Here alone are the modes spelled, and here alone it is read which version each demands. Start at [`ImportMode`].

use domain::ids::{Etag, Precondition};
use serde_json::Value;

use super::registry_json::{self, invalid};
use super::twin_json;
use crate::error::Refused;
use crate::http::parse_precondition;
use crate::json::text;

/// The modes; those with a version are carried out only where it is the one that the item names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportMode {
    Create,
    Update,
    UpdateIfMatchEtag,
    CreateOrUpdate,
    CreateOrUpdateIfMatchEtag,
    Delete,
    DeleteIfMatchEtag,
    UpdateTwin,
    UpdateTwinIfMatchEtag,
}

impl ImportMode {
    const ALL: [Self; 9] = [
        Self::Create,
        Self::Update,
        Self::UpdateIfMatchEtag,
        Self::CreateOrUpdate,
        Self::CreateOrUpdateIfMatchEtag,
        Self::Delete,
        Self::DeleteIfMatchEtag,
        Self::UpdateTwin,
        Self::UpdateTwinIfMatchEtag,
    ];

    /// The mode that an item names, in any letter case; `None` if it names none.
    pub(super) fn parse(item: &Value) -> Result<Option<Self>, Refused> {
        let Some(named) = text(item, "importMode")? else { return Ok(None) };
        let found = Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(&named));
        found.map(Some).ok_or_else(unknown)
    }

    /// As it is spelled.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::UpdateIfMatchEtag => "updateIfMatchETag",
            Self::CreateOrUpdate => "createOrUpdate",
            Self::CreateOrUpdateIfMatchEtag => "createOrUpdateIfMatchETag",
            Self::Delete => "delete",
            Self::DeleteIfMatchEtag => "deleteIfMatchETag",
            Self::UpdateTwin => "updateTwin",
            Self::UpdateTwinIfMatchEtag => "updateTwinIfMatchETag",
        }
    }

    /// What the mode demands of what is there; without the version that it wants in the item, none is right.
    pub(super) fn precondition(self, item: &Value) -> Result<Precondition, Refused> {
        match self {
            Self::Create | Self::UpdateTwin => Ok(Precondition::None),
            Self::Update | Self::CreateOrUpdate | Self::Delete => Ok(Precondition::Exists),
            Self::UpdateIfMatchEtag | Self::CreateOrUpdateIfMatchEtag | Self::DeleteIfMatchEtag => {
                // One SDK sends the member as identities spell it.
                let member = if item.get("eTag").is_some() { "eTag" } else { "etag" };
                named_etag(item, member, registry_json::parse_etag)
            }
            Self::UpdateTwinIfMatchEtag => named_etag(item, "twinETag", twin_json::parse_etag),
        }
    }
}

/// That a mode is none, or none of those that are taken here.
pub(super) fn unknown() -> Refused {
    invalid("importMode is none that is known.")
}

fn named_etag(item: &Value, member: &'static str, read: fn(&str) -> Option<Etag>) -> Result<Precondition, Refused> {
    let etag = text(item, member)?.filter(|etag| !etag.is_empty());
    Ok(etag.map_or(Precondition::Impossible, |etag| parse_precondition(&etag, read)))
}
