//! How many there may be of what operators and devices create.
//!
//! Every bound keeps lists, searches and memory finite; none of them is a price list. Each is a setting whose default
//! stands in [`Quotas::default`]. What is there already is never taken away by a lower setting.

/// The most there may be of each kind. At least 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Devices of a hub. One that has so many is full: operators are refused another, and allocation passes it over.
    /// Assignments that were under way when it became full are still carried out.
    pub devices_per_hub: u64,
    /// Modules of a device.
    pub modules_per_device: u64,
    /// Individual enrollments of a provisioning service.
    pub enrollments: u64,
    /// Enrollment groups of a provisioning service.
    pub enrollment_groups: u64,
    /// CA certificates of a provisioning service or a hub.
    pub ca_certificates: usize,
    /// Hubs linked to a provisioning service.
    pub linked_hubs: usize,
    /// Cloud-to-device messages that wait for a device or module, those that it has and did not settle included.
    pub messages_per_device: u32,
    /// Jobs of a hub that have not ended, those that wait for their time included.
    pub jobs_per_hub: u64,
    /// Configurations of a hub.
    pub configurations_per_hub: u64,
    /// Uploads of files that a device or module has begun and not ended.
    pub uploads_per_device: u32,
    /// Bytes of an uploaded file.
    pub file_bytes: u64,
    /// Bytes of all uploaded files together, those of which only parts are there included; small ones count for
    /// [`CHARGED_BYTES_MIN`](crate::file::CHARGED_BYTES_MIN).
    pub files_bytes: u64,
}

/// Azure: 1,000,000 devices and enrollments, 100 groups of each attestation kind, 25 CA certificates and 50 linked hubs
/// (`contract/dps-service.md 10`), which are no limits of this program; 50 modules (`contract/hub-service.md 4.3`);
/// 50 messages (`contract/hub-device.md 8`); 10 uploads (`contract/hub-device.md 5.4`). Jobs are bounded there by how many
/// run at once (`contract/hub-service.md 12`), which [`crate::job::RUNNING_PER_HUB_MAX`] does here.
impl Default for Quotas {
    fn default() -> Self {
        Self {
            devices_per_hub: 10_000_000,
            modules_per_device: 50,
            enrollments: 10_000_000,
            enrollment_groups: 1_000,
            ca_certificates: 100,
            linked_hubs: 250,
            messages_per_device: 50,
            jobs_per_hub: 10_000,
            configurations_per_hub: 100,
            uploads_per_device: 10,
            file_bytes: 1 << 30,
            files_bytes: 16 << 30,
        }
    }
}
