//! The data folder: made private, and held by one process at a time.
//!
//! It must never touch a file before the lock is held, and never change what it finds when something is wrong. Start at
//! [`Folder::open`]. The lock is the system's own (`flock`), so it ends with the process however that ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::OpenError;

/// Permissions of the folder: its owner alone.
const FOLDER_MODE: u32 = 0o700;
/// Permissions of each file in it: its owner alone.
const FILE_MODE: u32 = 0o600;
/// The name of the lock file, which holds the process ID of the holder as text.
const LOCK_FILE: &str = "lock";

/// A data folder that this process holds. Clones share the lock; it is given back when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    // Never read: the lock is held for as long as the file is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and takes its lock.
    ///
    /// A folder made here, or found empty, is closed to other users; one that holds anything keeps its permissions,
    /// since it may be somebody's working folder, and the files made in it are private either way.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        make_folder(path)?;
        let path = path.canonicalize().map_err(|error| OpenError::file("cannot enter the folder", path, error))?;
        let mut entries =
            fs::read_dir(&path).map_err(|error| OpenError::file("cannot list the folder", &path, error))?;
        if entries.next().is_none() {
            fs::set_permissions(&path, fs::Permissions::from_mode(FOLDER_MODE))
                .map_err(|error| OpenError::file("cannot make private the folder", &path, error))?;
        }
        let lock = lock(&path)?;
        Ok(Self(Arc::new(Held { path, _lock: lock })))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

/// Takes the lock, or says who holds it.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| OpenError::file("cannot write the lock file", &path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { folder: folder.to_owned(), holder: holder(&mut file) });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    write!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The process ID in a lock file; `None` if its holder has not written it yet.
fn holder(file: &mut File) -> Option<u32> {
    /// Longer than any process ID.
    const TEXT_BYTES_MAX: u64 = 20;
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes sure that there is a folder at `path`, also after a power cut; those that are made here are private.
pub(crate) fn make_folder(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|error| OpenError::file("cannot make the folder", path, error)),
    }?;
    sync_parent(path)
}

/// Makes sure that `path` exists and is private, so that what opens it by name keeps those permissions.
pub(crate) fn make_private(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::file("cannot make the file", path, error);
    match OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a private file that appears whole or not at all, also after a power cut.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), OpenError> {
    let failed = |error| OpenError::file("cannot write the file", path, error);
    let draft = path.with_extension("tmp");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    sync_parent(path)
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), OpenError> {
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    let folder = File::open(parent).map_err(|error| OpenError::file("cannot open the folder", parent, error))?;
    folder.sync_all().map_err(|error| OpenError::file("cannot sync the folder", parent, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_made_here_belongs_to_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("a/b")).unwrap();
        make_private(&folder.file("x")).unwrap();
        write_private(&folder.file("y"), b"text").unwrap();
        assert_eq!(mode(folder.path()), FOLDER_MODE);
        for name in ["lock", "x", "y"] {
            assert_eq!(mode(&folder.file(name)), FILE_MODE, "{name}");
        }
    }

    #[test]
    fn a_folder_with_other_things_in_it_keeps_its_permissions() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(place.path().join("letter.txt"), "dear").unwrap();
        let _folder = Folder::open(place.path()).unwrap();
        assert_eq!(mode(place.path()), 0o755);
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let place = tempfile::tempdir().unwrap();
        let first = Folder::open(place.path()).unwrap();
        let clone = first.clone();
        drop(first);
        let refused = Folder::open(place.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()));
        assert!(refused.to_string().contains(&format!("by process {}", std::process::id())), "{refused}");
        drop(clone);
        Folder::open(place.path()).unwrap();
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_said_to_be_in_the_way() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        fs::write(&path, "not a folder").unwrap();
        assert!(matches!(Folder::open(&path), Err(OpenError::File { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"not a folder");
    }
}
