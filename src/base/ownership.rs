//! Finds out who can change a file, by its owner and mode and those of every directory on the path
//! to it.
//!
//! A file is *closed* if only root and the user who runs Sealift can change what its path leads to.
//! The check goes from the root down, link by link, and looks at a directory before it trusts an
//! entry of it. A path that is closed so far cannot be exchanged, so a closed path opens the file
//! that was checked.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use io::ErrorKind::{NotFound, PermissionDenied};
use rustix::io::Errno;

/// Something on a path that others can change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", path.display())]
pub struct Exposure {
    /// The file or directory.
    pub path: PathBuf,
    /// Completes the path to a sentence, such as `is owned by uid 1000 (mode 0755)`.
    pub reason: String,
    /// The next step for the operator.
    pub remedy: String,
}

/// Links that are followed, as many as Linux follows.
const MAX_LINKS: u32 = 40;
const STICKY: u32 = 0o1000;

/// Opens a regular file for reading; anything else is an error, and a FIFO is not waited for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Reads the text of an open file; one of more than `limit` bytes is an error.
pub fn read_text(file: &File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    match text.len() as u64 > limit {
        true => Err(io::Error::other(format!("it is larger than {limit} bytes"))),
        false => Ok(text),
    }
}

/// Returns how other users can change `file`, which was opened by `path`; `None` if they cannot.
pub fn exposure_of(file: &File, path: &Path) -> io::Result<Option<Exposure>> {
    let opened = file.metadata()?;
    match walk(path)? {
        Reached::Exposed(exposure) => Ok(Some(exposure)),
        Reached::Found(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => {
            Ok(exposed(path, &opened, false))
        }
        Reached::Found(_) | Reached::Absent => {
            Err(io::Error::other("it was exchanged while it was opened"))
        }
    }
}

/// Returns how other users can change the file at `path`, or create one there; `None` if they
/// cannot.
pub fn exposure_at(path: &Path) -> io::Result<Option<Exposure>> {
    Ok(match walk(path)? {
        Reached::Exposed(exposure) => Some(exposure),
        Reached::Found(found) => exposed(path, &found, false),
        Reached::Absent => None,
    })
}

/// What a path leads to.
enum Reached {
    Exposed(Exposure),
    Found(Metadata),
    /// Nothing that this user can reach is there, and others cannot create anything there.
    Absent,
}

/// Follows `path`, looking at each directory before it uses an entry of it.
fn walk(path: &Path) -> io::Result<Reached> {
    let mut rest = Vec::new();
    push_components(&mut rest, &std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let entry = match next.symlink_metadata() {
            Ok(entry) => Some(entry),
            // A file that this user cannot reach cannot be read either.
            Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => None,
            Err(error) => return Err(error),
        };
        // In a sticky directory such as /tmp other users can add entries, but cannot exchange ours.
        // The file's own directory must be closed even so: names beside the file are read, too.
        let is_safe_if_sticky = entry.as_ref().is_some_and(|entry| is_ours(entry.uid()));
        let may_be_sticky = is_safe_if_sticky && !rest.is_empty();
        if let Some(exposure) = exposed(&at, &at.symlink_metadata()?, may_be_sticky) {
            return Ok(Reached::Exposed(exposure));
        }
        let Some(entry) = entry else {
            return Ok(Reached::Absent);
        };
        if entry.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            push_components(&mut rest, &target);
        } else if rest.is_empty() {
            return Ok(Reached::Found(entry));
        } else if entry.is_dir() {
            at = next;
        } else {
            return Err(Errno::NOTDIR.into());
        }
    }
    Ok(Reached::Found(at.symlink_metadata()?))
}

/// Puts the components of `path` on the stack, the first on top.
fn push_components(stack: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => stack.push(name.to_owned()),
            Component::ParentDir => stack.push("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// Whether `uid` is root or the user who runs this process.
fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Returns how others can change the thing `path`. A sticky directory counts as closed if
/// `may_be_sticky`.
fn exposed(path: &Path, meta: &Metadata, may_be_sticky: bool) -> Option<Exposure> {
    let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
    let (reason, remedy) = if !is_ours(uid) {
        let user = match rustix::process::geteuid().as_raw() {
            0 => "root".to_owned(),
            uid => format!("root or uid {uid}"),
        };
        (
            format!("is owned by uid {uid} (mode {mode:04o})"),
            format!("let {user} own it"),
        )
    } else if mode & 0o022 != 0 && !(may_be_sticky && mode & STICKY != 0) {
        (
            format!("can be written by others (owner uid {uid}, mode {mode:04o})"),
            format!("run `chmod go-w {}`", path.display()),
        )
    } else {
        return None;
    };
    Some(Exposure {
        path: path.to_owned(),
        reason,
        remedy,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns a closed directory with a closed file in it. It is in /tmp, which is sticky.
    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")
            .unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        chmod(&inner, 0o755);
        let file = inner.join("file");
        fs::write(&file, "x").unwrap();
        chmod(&file, 0o644);
        (dir, file)
    }

    fn exposed_path(path: &Path) -> Option<PathBuf> {
        let at = exposure_at(path).unwrap();
        if let Ok(file) = open_regular(path) {
            assert_eq!(exposure_of(&file, path).unwrap(), at);
        }
        at.map(|exposure| exposure.path)
    }

    #[test]
    fn a_file_below_a_sticky_directory_is_closed_and_each_open_step_is_named() {
        let (dir, file) = scene();
        assert_eq!(exposed_path(&file), None);
        for (open, mode, closed) in [
            (file.as_path(), 0o664, 0o644),
            (file.as_path(), 0o646, 0o644),
            (file.parent().unwrap(), 0o775, 0o755),
            (file.parent().unwrap(), 0o1777, 0o755),
            (dir.path(), 0o707, 0o700),
        ] {
            chmod(open, mode);
            assert_eq!(exposed_path(&file), Some(open.to_owned()), "{mode:o}");
            chmod(open, closed);
        }
        // Sticky is enough above the file's own directory.
        chmod(dir.path(), 0o1777);
        assert_eq!(exposed_path(&file), None);
    }

    #[test]
    fn a_link_leads_no_further_than_its_directories_are_closed() {
        let (dir, file) = scene();
        let (open, link) = (dir.path().join("open"), dir.path().join("link"));
        fs::create_dir(&open).unwrap();
        symlink(&file, open.join("second")).unwrap();
        symlink("open/second", &link).unwrap();
        chmod(&open, 0o755);
        assert_eq!(exposed_path(&link), None);
        chmod(&open, 0o777);
        assert_eq!(exposed_path(&link), Some(open));
        fs::remove_file(&link).unwrap();
        symlink("link", &link).unwrap();
        assert!(exposure_at(&link).is_err());
    }

    #[test]
    fn a_missing_file_is_exposed_if_others_can_create_it() {
        let (_dir, file) = scene();
        let (inner, absent) = (file.parent().unwrap(), file.with_file_name("absent"));
        assert_eq!(exposed_path(&absent), None);
        chmod(inner, 0o1777);
        assert_eq!(exposed_path(&absent), Some(inner.to_owned()));
    }

    #[test]
    fn a_fifo_in_a_files_place_is_an_error_at_once() {
        let (_dir, file) = scene();
        let fifo = file.with_file_name("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        assert!(open_regular(&fifo).is_err());
        assert!(open_regular(file.parent().unwrap()).is_err());
    }
}
