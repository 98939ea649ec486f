//! What the operator chose by a path: the only step that follows symbolic links.
//!
//! The path may lead through a directory of another user, who can put a link there: to a file that only root
//! may read. So the path is walked once, by descriptors, and a link counts only if it is root's or ours, or if
//! what it leads to in the end belongs to the link's owner, who could give us that anyway. (The kernel's
//! `protected_symlinks` is the same idea, for sticky directories alone.)

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, ENTER, Meta, PASS};

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// A directory, or another thing in an open directory.
#[derive(Debug, Clone)]
pub struct Chosen {
    dir: Dir,
    /// `None`: the directory itself.
    name: Option<OsString>,
    /// Without links.
    path: PathBuf,
    meta: Meta,
}

impl Chosen {
    /// Opens what `path` leads to. Fails if it leads over a link of another user's to what is not that user's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::begin(path)?;
        while let Some(part) = walk.rest.pop() {
            walk.step(&part)?;
        }
        walk.finish()
    }

    /// A directory that is open already.
    pub fn of_dir(dir: Dir) -> io::Result<Self> {
        Ok(Self {
            meta: Meta::of_fd(&dir)?,
            path: dir.path().to_owned(),
            dir,
            name: None,
        })
    }

    pub fn is_dir(&self) -> bool {
        self.name.is_none()
    }

    /// The directory, or the one that the thing is in.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The thing's name in [`Self::dir`]; empty for the directory itself.
    pub fn name(&self) -> &OsStr {
        self.name.as_deref().unwrap_or_default()
    }

    /// Where it was, free of links. Use it in messages and for comparisons of text only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// A path on its way.
struct Walk {
    /// The directory that is reached, without links.
    at: OwnedFd,
    path: PathBuf,
    /// Components still to go, the next one last.
    rest: Vec<OsString>,
    /// The last component, if it is no directory.
    last: Option<OsString>,
    /// Links that were followed, and their owners.
    links: Vec<(PathBuf, u32)>,
}

impl Walk {
    fn begin(path: &Path) -> io::Result<Self> {
        let base = match path.is_absolute() {
            true => PathBuf::from("/"),
            false => std::env::current_dir()?,
        };
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut walk = Self {
            at: rustix::fs::openat(CWD, &base, PASS | OFlags::CLOEXEC, Mode::empty())?,
            path: base,
            rest: Vec::new(),
            last: None,
            links: Vec::new(),
        };
        walk.push(path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let parts: Vec<OsString> = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
            .map(|part| part.as_os_str().to_owned())
            .collect();
        self.rest.extend(parts.into_iter().rev());
    }

    fn step(&mut self, part: &OsStr) -> io::Result<()> {
        if self.last.is_some() {
            return Err(Errno::NOTDIR.into());
        }
        if part == ".." {
            self.at = self.enter(part)?;
            self.path.pop();
            return Ok(());
        }
        match self.enter(part) {
            Ok(dir) => {
                self.at = dir;
                self.path.push(part);
                return Ok(());
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let thing = rustix::fs::openat(&self.at, part, flags, Mode::empty())?;
        let meta = Meta::of_fd(&thing)?;
        if !meta.is_symlink() {
            self.last = Some(part.to_owned());
            return Ok(());
        }
        if self.links.len() == MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        self.links.push((self.path.join(part), meta.uid()));
        let text = rustix::fs::readlinkat(&thing, "", Vec::new())?.into_bytes();
        let text = PathBuf::from(OsString::from_vec(text));
        if text.is_absolute() {
            let flags = PASS | OFlags::CLOEXEC;
            self.at = rustix::fs::openat(CWD, c"/", flags, Mode::empty())?;
            self.path = PathBuf::from("/");
        }
        self.push(&text);
        Ok(())
    }

    /// Opens the directory `part`; a link is not followed. What is mounted on demand is mounted.
    fn enter(&self, part: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = PASS | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.at, part, flags, Mode::empty())
    }

    fn finish(self) -> io::Result<Chosen> {
        let above = match self.last.is_some() {
            true => self.path.clone(),
            false => self.path.parent().unwrap_or(&self.path).to_owned(),
        };
        let (dir, path, meta) = match &self.last {
            Some(name) => {
                let dir = Dir::from_fd(self.at, &above);
                let meta = dir.meta(name)?;
                (dir, self.path.join(name), meta)
            }
            None => {
                let listable =
                    rustix::fs::openat(&self.at, c".", ENTER | OFlags::CLOEXEC, Mode::empty());
                let fd = match listable {
                    // It may be passed through at least.
                    Err(Errno::ACCESS) => self.at,
                    other => other?,
                };
                let meta = Meta::of_fd(fd.as_fd())?;
                (Dir::from_fd(fd, &self.path), self.path, meta)
            }
        };
        check_owners(&self.links, &meta, rustix::process::geteuid().as_raw())?;
        Ok(Chosen {
            dir,
            name: self.last,
            path,
            meta,
        })
    }
}

/// Fails if a link belongs to neither root, `us`, nor the owner of what it leads to.
fn check_owners(links: &[(PathBuf, u32)], to: &Meta, us: u32) -> io::Result<()> {
    let is_trusted = |uid: u32| uid == 0 || uid == us || uid == to.uid();
    match links.iter().find(|(_, uid)| !is_trusted(*uid)) {
        None => Ok(()),
        Some((link, uid)) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is a symbolic link of user {uid}, and what it leads to is not that user's: name the \
                 place itself, without the link, or give the link to root (`chown -h`)",
                link.display()
            ),
        )),
    }
}
