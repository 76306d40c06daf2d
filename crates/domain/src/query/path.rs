//! Paths: which value of a document is meant.

use std::fmt;

use serde_json::{Map, Value};

/// A place in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The member it begins at.
    pub root: Root,
    /// The members below it, from there on; none if the root itself is meant.
    pub rest: Vec<Box<str>>,
}

/// Members of documents that the language knows by name. They are written in any letter case; everything below them is
/// taken as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The device.
    DeviceId,
    /// The module.
    ModuleId,
    /// Whether it may connect.
    Status,
    /// When that changed.
    StatusUpdateTime,
    /// Whether it is connected.
    ConnectionState,
    /// When it was last heard.
    LastActivityTime,
    /// What it is a model of.
    ModelId,
    /// What it may do.
    Capabilities,
    /// What operators say of it.
    Tags,
    /// Both parts of the properties.
    Properties,
    /// Desired properties.
    Desired,
    /// Reported properties.
    Reported,
    /// Any other member of the document.
    Other(Box<str>),
}

/// The members that the language does not treat apart, in the spelling of documents.
const OTHERS: [&str; 18] = [
    "etag",
    "deviceEtag",
    "statusReason",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "version",
    "deviceScope",
    "parentScopes",
    "configurations",
    "jobId",
    "jobType",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "outcome",
    "error",
];

/// What may stand before the first member: the collections' common name, and behind it what tells them apart.
const COLLECTION_WORDS: [&str; 3] = ["devices", "modules", "jobs"];

impl Root {
    const KNOWN: [Self; 10] = [
        Self::DeviceId,
        Self::ModuleId,
        Self::Status,
        Self::StatusUpdateTime,
        Self::ConnectionState,
        Self::LastActivityTime,
        Self::ModelId,
        Self::Capabilities,
        Self::Tags,
        Self::Properties,
    ];

    /// The name of the member, or the names of members one below the other, separated by a dot.
    pub fn name(&self) -> &str {
        match self {
            Self::DeviceId => "deviceId",
            Self::ModuleId => "moduleId",
            Self::Status => "status",
            Self::StatusUpdateTime => "statusUpdateTime",
            Self::ConnectionState => "connectionState",
            Self::LastActivityTime => "lastActivityTime",
            Self::ModelId => "modelId",
            Self::Capabilities => "capabilities",
            Self::Tags => "tags",
            Self::Properties => "properties",
            Self::Desired => "properties.desired",
            Self::Reported => "properties.reported",
            Self::Other(name) => name,
        }
    }

    fn parse(name: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|root| root.name().eq_ignore_ascii_case(name));
        known.unwrap_or_else(|| {
            let other = OTHERS.into_iter().find(|other| other.eq_ignore_ascii_case(name));
            Self::Other(other.unwrap_or(name).into())
        })
    }
}

impl Path {
    /// The place that names separated by dots mean. The collection may stand before the first member of the document, as
    /// in `devices.deviceId` and `devices.jobs.jobId`.
    pub(super) fn resolve(names: Vec<String>) -> Self {
        let mut names = names.into_iter().peekable();
        let mut first = names.next().unwrap_or_default();
        let mut prefixes = &COLLECTION_WORDS[..1];
        while names.peek().is_some() && prefixes.iter().any(|prefix| first.eq_ignore_ascii_case(prefix)) {
            first = names.next().unwrap_or_default();
            prefixes = &COLLECTION_WORDS;
        }
        let mut root = Root::parse(&first);
        if root == Root::Properties {
            let part = match names.peek() {
                Some(next) if next.eq_ignore_ascii_case("desired") => Some(Root::Desired),
                Some(next) if next.eq_ignore_ascii_case("reported") => Some(Root::Reported),
                _ => None,
            };
            if let Some(part) = part {
                names.next();
                root = part;
            }
        }
        Self { root, rest: names.map(String::into_boxed_str).collect() }
    }

    /// The value at this place.
    pub fn find<'d>(&self, document: &'d Map<String, Value>) -> Option<&'d Value> {
        let member = |name: &str| document.get(name);
        let properties = |part| member(Root::Properties.name()).and_then(|properties| properties.get(part));
        let root = match &self.root {
            Root::Desired => properties("desired"),
            Root::Reported => properties("reported"),
            other => member(other.name()),
        };
        self.rest.iter().try_fold(root?, |value, name| match value {
            Value::Object(members) => members.get(&**name),
            // Written with brackets, which only conditions on messages can have.
            Value::Array(items) => items.get(name.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// What a column is called that is given no name: the last member of the path.
    pub(super) fn last_name(&self) -> &str {
        match self.rest.last() {
            Some(name) => name,
            None => self.root.name().rsplit('.').next().unwrap_or_default(),
        }
    }

    /// Whether the value is a moment, whole.
    pub(super) fn is_moment(&self) -> bool {
        matches!(self.root, Root::LastActivityTime | Root::StatusUpdateTime) && self.rest.is_empty()
    }
}

/// As the language writes it.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            // Such a name is taken for a word of the language, or for none at all, where it stands first.
            Root::Other(name) if !super::lexer::is_first_name(name) => write!(f, "{}.[[{name}]]", COLLECTION_WORDS[0])?,
            root => f.write_str(root.name())?,
        }
        for name in &self.rest {
            if super::lexer::is_plain_name(name) {
                write!(f, ".{name}")?;
            } else {
                write!(f, ".[[{name}]]")?;
            }
        }
        Ok(())
    }
}
