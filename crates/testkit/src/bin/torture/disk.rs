//! A disk that forgets what was not synced: built from a trace, it says what would be in the data folder had the power
//! failed at some moment.
//!
//! Two rules, both as strict as POSIX allows. Content reaches the disk by a sync of its file, which covers the writes
//! that were over when the sync began; names reach it by a sync of their folder. Nothing else is promised, and what was
//! not promised is lost, or, with [`Cut::Torn`], comes and goes by chance, sector by sector. Start at [`Disk::apply`].

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use domain::clock::{SeededEntropy, random};

use crate::trace::{Call, Event, parent};
use crate::trouble::{During as _, Result, Trouble};

#[cfg(test)]
mod tests;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All are lost.
    Clean,
    /// Each sector and each name is lost or kept, by the chance that begins with this number.
    Torn(u64),
}

/// Something that has a name: a file's content or a folder's names, as it is seen and as it is on the disk.
#[derive(Debug, Default)]
struct Node {
    is_folder: bool,
    seen_length: u64,
    synced: Vec<u8>,
    /// Not on the disk yet, in order.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    ended_at: u64,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

type NodeId = usize;

/// A name that came, went or changed hands, which happens whole or not at all.
#[derive(Clone, Debug)]
struct Naming {
    ended_at: u64,
    path: String,
    /// What it names; nothing if the name went.
    node: Option<NodeId>,
    /// The name that it had before.
    before: Option<String>,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    root: String,
    nodes: Vec<Node>,
    /// Names as programs see them.
    seen: BTreeMap<String, NodeId>,
    /// Names as they are on the disk.
    synced: BTreeMap<String, NodeId>,
    /// Namings that are not on the disk yet, in order.
    pending: Vec<Naming>,
    /// Where descriptors stand.
    positions: HashMap<u32, Position>,
}

#[derive(Debug)]
struct Position {
    at: u64,
    append: bool,
}

impl Disk {
    /// A disk on which the folder exists that `root` is going to lie in, and nothing else.
    pub fn new(root: &Path) -> Result<Self> {
        let root = root.to_str().ok_or_else(|| Trouble::new("the data folder's path is not UTF-8"))?.to_owned();
        let folder = Node { is_folder: true, ..Node::default() };
        let names = BTreeMap::from([(parent(&root).to_owned(), 0)]);
        Ok(Self {
            root,
            nodes: vec![folder],
            seen: names.clone(),
            synced: names,
            pending: Vec::new(),
            positions: HashMap::new(),
        })
    }

    /// Does what a traced call did.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        let ended_at = event.ended_at;
        match &event.call {
            Call::Open { path, descriptor, flags } => {
                if !self.seen.contains_key(path) && flags.create {
                    self.make(path, ended_at, Node::default());
                }
                if flags.truncate {
                    self.set_length(path, 0, ended_at);
                }
                self.positions.insert(*descriptor, Position { at: 0, append: flags.append });
            }
            Call::Seek { descriptor, position } => {
                if let Some(known) = self.positions.get_mut(descriptor) {
                    known.at = *position;
                }
            }
            Call::Write { path, descriptor, offset, bytes } => {
                self.write(event, path, (*descriptor, *offset), bytes)?;
            }
            Call::Truncate { path, length } => self.set_length(path, *length, ended_at),
            Call::Sync { path } => self.sync(path, event.began_at),
            Call::Rename { from, to } => {
                if let Some(node) = self.seen.remove(from) {
                    self.seen.insert(to.clone(), node);
                    let before = Some(from.clone());
                    self.pending.push(Naming { ended_at, path: to.clone(), node: Some(node), before });
                }
            }
            Call::Remove { path } => {
                if self.seen.remove(path).is_some() {
                    self.pending.push(Naming { ended_at, path: path.clone(), node: None, before: None });
                }
            }
            Call::MakeFolder { path } => self.make(path, ended_at, Node { is_folder: true, ..Node::default() }),
            Call::Send { .. } => {}
        }
        Ok(())
    }

    fn make(&mut self, path: &str, ended_at: u64, node: Node) {
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.seen.insert(path.to_owned(), node);
        self.pending.push(Naming { ended_at, path: path.to_owned(), node: Some(node), before: None });
    }

    /// The node of a name; a file that was removed while it was open has none, and nobody will miss its content.
    fn node(&mut self, path: &str) -> Option<&mut Node> {
        let node = *self.seen.get(path)?;
        self.nodes.get_mut(node)
    }

    fn set_length(&mut self, path: &str, length: u64, ended_at: u64) {
        if let Some(node) = self.node(path) {
            node.seen_length = length;
            node.pending.push(Pending { ended_at, change: Change::Length(length) });
        }
    }

    fn write(
        &mut self,
        event: &Event,
        path: &str,
        (descriptor, offset): (u32, Option<u64>),
        bytes: &[u8],
    ) -> Result<()> {
        let length = bytes.len() as u64;
        let Some(id) = self.seen.get(path).copied() else { return Ok(()) };
        let node = self.nodes.get_mut(id).ok_or_else(|| Trouble::new("a name without a node"))?;
        let offset = if let Some(offset) = offset {
            offset
        } else {
            let position = self.positions.get_mut(&descriptor);
            let position = position.ok_or_else(|| Trouble::new(format!("nobody opened {path}")))?;
            let at = if position.append { node.seen_length } else { position.at };
            position.at = at + length;
            at
        };
        node.seen_length = node.seen_length.max(offset + length);
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        node.pending.push(Pending { ended_at: event.ended_at, change });
        Ok(())
    }

    /// Takes to the disk what had happened to `path` before `began_at`.
    fn sync(&mut self, path: &str, began_at: u64) {
        let Some(node) = self.node(path) else { return };
        let (done, later) =
            std::mem::take(&mut node.pending).into_iter().partition(|change| change.ended_at <= began_at);
        node.pending = later;
        let done: Vec<Pending> = done;
        for pending in &done {
            pending.change.put(&mut node.synced);
        }
        if node.is_folder {
            let names = std::mem::take(&mut self.pending);
            for naming in names {
                match parent(&naming.path) == path && naming.ended_at <= began_at {
                    true => put_name(&mut self.synced, &naming),
                    false => self.pending.push(naming),
                }
            }
        }
    }

    /// Puts what would be left of the data folder after a power cut at `target`, where nothing is yet.
    pub fn write_remains(&self, target: &Path, cut: Cut) -> Result<()> {
        let mut chance = Chance::new(cut);
        let mut names = self.synced.clone();
        for naming in self.pending.iter().filter(|_| chance.keeps()) {
            put_name(&mut names, naming);
        }
        // In order, so that folders come before what is in them. What lies in a folder that was lost is lost with it.
        for (path, node) in &names {
            let Some(inner) = path.strip_prefix(&self.root) else { continue };
            let target = match inner.trim_start_matches('/') {
                "" => target.to_owned(),
                inner => target.join(inner),
            };
            let node = self.nodes.get(*node).ok_or_else(|| Trouble::new("a name without a node"))?;
            if node.is_folder {
                if target.parent().is_some_and(Path::is_dir) {
                    DirBuilder::new().mode(0o700).create(&target)?;
                }
            } else if target.parent().is_some_and(Path::is_dir) {
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&target).during(path)?;
                file.write_all(&node.remains(&mut chance))?;
            }
        }
        Ok(())
    }
}

impl Node {
    /// The content after a power cut.
    fn remains(&self, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.synced.clone();
        for pending in &self.pending {
            for piece in pending.change.pieces() {
                if chance.keeps() {
                    piece.put(&mut content);
                }
            }
        }
        content
    }
}

impl Change {
    /// The change in parts of which each happens whole or not at all.
    fn pieces(&self) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else { return vec![self.clone()] };
        let (mut at, mut rest) = (*offset, bytes.as_slice());
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let room = (SECTOR_BYTES - at % SECTOR_BYTES) as usize;
            let (sector, later) = rest.split_at(room.min(rest.len()));
            pieces.push(Self::Write { offset: at, bytes: sector.to_vec() });
            at += sector.len() as u64;
            rest = later;
        }
        pieces
    }

    fn put(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length as usize, 0),
            Self::Write { offset, bytes } => {
                let end = *offset as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                if let Some(place) = content.get_mut(*offset as usize..end) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }
}

fn put_name(names: &mut BTreeMap<String, NodeId>, naming: &Naming) {
    if let Some(before) = &naming.before {
        names.remove(before);
    }
    match naming.node {
        Some(node) => names.insert(naming.path.clone(), node),
        None => names.remove(&naming.path),
    };
}

/// Whether what was not promised is kept.
struct Chance(Option<SeededEntropy>);

impl Chance {
    fn new(cut: Cut) -> Self {
        Self(match cut {
            Cut::Clean => None,
            Cut::Torn(seed) => Some(SeededEntropy::new(seed)),
        })
    }

    fn keeps(&mut self) -> bool {
        self.0.as_ref().is_some_and(|entropy| {
            let [byte] = random::<1>(entropy);
            byte % 2 == 0
        })
    }
}
