//! Removes a tree without leaving it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::{Dir, Kind, chmod_fd};

/// How many directories on the way down stay open; deeper ones are opened again on the way up.
const MOST_OPEN: usize = 32;

/// A directory on the way down.
struct RemovalLevel {
    /// `None`: it is too deep to stay open.
    dir: Option<Dir>,
    /// The directories in it that are still to be removed.
    dirs: Vec<OsString>,
}

impl Dir {
    /// Removes everything in this directory, whatever modes the directories in it have. The
    /// directory itself stays, even if it is moved meanwhile.
    pub fn clear(&self) -> io::Result<()> {
        let (dir, dirs) = strip(self.clone())?;
        let mut rel: Vec<u8> = Vec::new();
        let mut levels = vec![RemovalLevel {
            dir: Some(dir),
            dirs,
        }];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else {
                return Ok(());
            };
            let Some(name) = level.dirs.last().cloned() else {
                levels.pop();
                let Some(above) = levels.last_mut() else {
                    return Ok(());
                };
                let Some(done) = above.dirs.pop() else {
                    continue;
                };
                rel.truncate(
                    rel.len()
                        .saturating_sub(done.len() + usize::from(depth > 2)),
                );
                let held = match &above.dir {
                    Some(dir) => dir.clone(),
                    None => self.sub(OsStr::from_bytes(&rel))?,
                };
                remove_empty(&held, &done)?;
                continue;
            };
            let held = match &level.dir {
                Some(dir) => dir.clone(),
                None => self.sub(OsStr::from_bytes(&rel))?,
            };
            let (dir, dirs) = match enter(&held, &name).and_then(strip) {
                // It is gone, or no longer a directory.
                Err(error) if is_gone(&error) => {
                    level.dirs.pop();
                    remove_other(&held, &name)?;
                    continue;
                }
                other => other?,
            };
            if !rel.is_empty() {
                rel.push(b'/');
            }
            rel.extend_from_slice(name.as_bytes());
            levels.push(RemovalLevel {
                dir: (depth < MOST_OPEN).then_some(dir),
                dirs,
            });
        }
    }

    /// Removes `name` and everything in it. A missing one is no error.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        match enter(self, name) {
            Ok(dir) => {
                dir.clear()?;
                remove_empty(self, name)
            }
            Err(error) if is_gone(&error) => remove_other(self, name),
            Err(error) => Err(error),
        }
    }
}

/// Opens the directory `name`; adds the owner's rights to its mode if they are missing.
fn enter(dir: &Dir, name: &OsStr) -> io::Result<Dir> {
    match dir.sub(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            dir.set_mode(name, 0o700)?;
            dir.sub(name)
        }
        other => other,
    }
}

/// Returns whether the error says that the directory is gone or no longer a directory.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    let is = |errno: Errno| code == Some(errno.raw_os_error());
    is(Errno::NOENT) || is(Errno::NOTDIR) || is(Errno::LOOP)
}

/// Removes everything but directories from `dir`, and returns it with the names of the directories.
fn strip(dir: Dir) -> io::Result<(Dir, Vec<OsString>)> {
    let mut found = dir.entries()?;
    // Entries can be removed only with the owner's permission to write and enter.
    let writable = super::Meta::of_fd(&dir)?.permissions() & 0o300 == 0o300;
    if !writable && !found.is_empty() {
        chmod_fd(&dir, 0o700)?;
        found = dir.entries()?;
    }
    let mut dirs = Vec::new();
    for entry in found {
        match entry.kind {
            Kind::Dir => dirs.push(OsString::from_vec(entry.name.into_vec())),
            _ => remove_other(&dir, &entry.name)?,
        }
    }
    Ok((dir, dirs))
}

/// Removes a thing that is not a directory; a missing one is no error.
fn remove_other(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes an empty directory; a missing one is no error.
fn remove_empty(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.remove_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Another thing took its place: that is not ours to remove, and nothing of ours is left
        // there.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        other => other,
    }
}
