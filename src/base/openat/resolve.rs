//! Resolves a path that the operator typed, in places in which another user may plant links.
//!
//! The kernel follows every link. Here each component is opened by itself. A symbolic link is
//! accepted only if it belongs to root or us, or if the thing to which the path leads in the end
//! belongs to the link's owner, who could give us that thing anyway. (The kernel's
//! `protected_symlinks` is the same idea, for sticky directories only.) A user cannot plant a
//! directory in this way, since he cannot move one of another user.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::{Dir, Meta, PASS};

/// Links that are followed, as many as the kernel follows.
const MOST_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// How far a path can be resolved.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The last directory of the path that exists, with its real path.
    pub dir: Dir,
    /// The components below it that do not exist.
    pub missing: Vec<OsString>,
    /// The thing that the path leads to, if it exists and is not a directory.
    pub other: Option<Meta>,
    /// The directory that `dir` is in, and its name there; `None` for the root directory.
    pub above: Option<(Dir, OsString)>,
    /// The first directory on the way, `dir` included, in which another user can rename things that
    /// are not his; `None`: there is none.
    pub exposed: Option<PathBuf>,
}

impl Resolved {
    /// Returns the real path, for messages.
    pub fn path(&self) -> PathBuf {
        let mut path = self.dir.path().to_path_buf();
        path.extend(&self.missing);
        path
    }
}

/// A resolution in progress.
struct PathWalk {
    /// Every directory from the root down to here, with its name.
    dirs: Vec<(OwnedFd, OsString)>,
    /// Components still to be resolved.
    rest: VecDeque<OsString>,
    /// The links that were followed, and their owners' ids.
    links: Vec<(PathBuf, u32)>,
    /// See [`Resolved::exposed`].
    exposed: Option<PathBuf>,
}

impl Dir {
    /// Resolves `path` as far as it exists. Fails if the path contains a symbolic link of another
    /// user and the thing to which it leads does not belong to that user.
    pub fn resolve(path: &Path) -> io::Result<Resolved> {
        let path = std::path::absolute(path)?;
        let root = open(CWD, OsStr::new("/"), PASS)?;
        let mut walk = PathWalk {
            dirs: vec![(root, OsString::new())],
            rest: VecDeque::new(),
            links: Vec::new(),
            exposed: None,
        };
        walk.push_front(&path);
        walk.run()
    }

    /// Opens a directory as [`Self::resolve`] finds it; a missing one is an error.
    pub fn open_trusted(path: &Path) -> io::Result<Self> {
        let resolved = Self::resolve(path)?;
        match (resolved.other, resolved.missing.is_empty()) {
            (None, true) => Ok(resolved.dir),
            (None, false) => Err(io::ErrorKind::NotFound.into()),
            (Some(_), _) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

/// Returns whether a user other than root and us can rename entries of the directory that are not
/// his.
fn is_exposed(meta: &Meta) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != ours {
        return true;
    }
    let mode = meta.permissions();
    if mode & STICKY != 0 {
        return false;
    }
    let own_group = meta.gid() == 0 || meta.gid() == rustix::process::getegid().as_raw();
    mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && !own_group)
}

/// Fails if a link belongs to neither root, us, nor the owner of what it leads to.
fn check_owners(links: &[(PathBuf, u32)], end: &Meta) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    let is_trusted = |uid: u32| uid == 0 || uid == ours || uid == end.uid();
    match links.iter().find(|(_, uid)| !is_trusted(*uid)) {
        None => Ok(()),
        Some((link, uid)) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is a symbolic link of user {uid}, and leads to a thing that is not that user's: name the \
                 place itself, without the link, or give the link to root (`chown -h`)",
                link.display()
            ),
        )),
    }
}

fn open(dir: impl std::os::fd::AsFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

impl PathWalk {
    /// Puts the components of `path` before the rest.
    fn push_front(&mut self, path: &Path) {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        for (at, part) in parts.enumerate() {
            self.rest.insert(at, part);
        }
    }

    /// Returns the directory that was reached.
    fn here(&self) -> io::Result<&OwnedFd> {
        let last = self.dirs.last().map(|(fd, _)| fd);
        last.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(self.dirs.iter().skip(1).map(|(_, name)| name));
        path
    }

    fn run(mut self) -> io::Result<Resolved> {
        while let Some(name) = self.rest.pop_front() {
            if name == ".." {
                if self.dirs.len() > 1 {
                    self.dirs.pop();
                }
                continue;
            }
            // Opened as a directory first: only that mounts an automount.
            let opened = match open(self.here()?, &name, PASS) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    open(self.here()?, &name, OFlags::PATH)
                }
                other => other,
            };
            let found = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.rest.push_front(name);
                    return self.finish(None);
                }
                other => other?,
            };
            let meta = Meta::of_fd(&found)?;
            if meta.is_dir() {
                self.dirs.push((found, name));
                if self.exposed.is_none() && is_exposed(&meta) {
                    self.exposed = Some(self.path());
                }
            } else if meta.is_symlink() {
                self.follow(&found, &meta, &name)?;
            } else {
                let last = self.rest.is_empty();
                self.rest.push_front(name);
                return match last {
                    true => self.finish(Some(meta)),
                    false => Err(io::ErrorKind::NotADirectory.into()),
                };
            }
        }
        self.finish(None)
    }

    /// Follows the open link `name`.
    fn follow(&mut self, link: &OwnedFd, meta: &Meta, name: &OsStr) -> io::Result<()> {
        if self.links.len() == MOST_LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        self.links.push((self.path().join(name), meta.uid()));
        let text = rustix::fs::readlinkat(link, c"", Vec::new())?;
        let text = PathBuf::from(OsString::from_vec(text.into_bytes()));
        if text.is_absolute() {
            self.dirs.truncate(1);
        }
        self.push_front(&text);
        Ok(())
    }

    fn finish(mut self, other: Option<Meta>) -> io::Result<Resolved> {
        let path = self.path();
        // A directory that was opened only to reach its entries is opened for listing, if that is
        // allowed.
        let listable = |fd: &OwnedFd| match open(fd, OsStr::new("."), super::ENTER) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fd.try_clone(),
            other => other,
        };
        let dir = Dir::from_fd(listable(self.here()?)?, &path);
        let end = match &other {
            Some(meta) => *meta,
            None => Meta::of_fd(&dir)?,
        };
        check_owners(&self.links, &end)?;
        let name = self.dirs.pop().map(|(_, name)| name);
        let above = match (self.dirs.last(), name) {
            (Some((fd, _)), Some(name)) => Some((Dir::from_fd(listable(fd)?, &self.path()), name)),
            _ => None,
        };
        Ok(Resolved {
            dir,
            missing: self.rest.into(),
            other,
            above,
            exposed: self.exposed,
        })
    }
}
