//! What is sent if all is well: `testdata/bad-input/*.json`, a table of operations and the entities they need.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// A file of operations.
#[derive(Debug, Deserialize)]
pub struct Table {
    /// Which API they belong to.
    pub api: Api,
    /// What has to be there first, by name.
    pub entities: Map<String, Value>,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// Whom a request is for, and who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// An operator at a provisioning service.
    ProvisioningService,
    /// A device at a provisioning service.
    ProvisioningDevice,
    /// An operator at a hub.
    Hub,
    /// A device at a hub.
    HubDevice,
    /// The operator at the management port.
    Management,
}

/// Something that is put before an operation is tried, and read after it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entity {
    /// Where it is put.
    pub api: Api,
    /// Where it is.
    pub path: String,
    /// What it is.
    pub body: Value,
    /// Whether it is put over what stands there, and not removed first: a twin cannot be, and a hub's address is used up.
    #[serde(default)]
    pub stays: bool,
}

/// An operation with every member, header and parameter that it knows, each of which is spoilt in turn.
#[derive(Clone, Debug, Deserialize)]
pub struct Operation {
    /// What the golden file calls it.
    pub name: String,
    /// The method.
    pub method: String,
    /// The path, with parameters in braces.
    pub path: String,
    /// The status if nothing is spoilt.
    pub answers: u16,
    /// The entities it needs.
    #[serde(default)]
    pub given: Vec<String>,
    /// The entities that it may make.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The parameters of the path.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The parameters of the query.
    #[serde(default)]
    pub query: Map<String, Value>,
    /// The headers, but for those that every request has.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// The body.
    pub body: Option<Value>,
    /// JSON pointers into the body to what the API does not look into.
    #[serde(default)]
    pub free: Vec<String>,
    /// Whether it is about a device that has registered.
    #[serde(default)]
    pub registers: bool,
}

impl Table {
    /// Reads a file.
    pub fn read(name: &str) -> Self {
        let path = testdata().join("bad-input").join(format!("{name}.json"));
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The entity called `name`.
    pub fn entity(&self, name: &str) -> Entity {
        let entity = self.entities.get(name).unwrap_or_else(|| panic!("no entity {name}"));
        serde_json::from_value(entity.clone()).unwrap()
    }
}

/// The folder of test data.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}
