//! A thing that the operator chose by a path. Opening it is the only step that follows symbolic
//! links ([`Dir::resolve`]).

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::{Dir, Meta};

/// A directory, or another thing in an open directory.
#[derive(Debug, Clone)]
pub struct Chosen {
    dir: Dir,
    /// The thing's name in `dir`; `None`: the directory itself.
    name: Option<OsString>,
    /// Free of links.
    path: PathBuf,
    meta: Meta,
}

impl Chosen {
    /// Opens the thing that `path` leads to. Fails if the path contains a symbolic link of another
    /// user and the thing does not belong to that user.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut resolved = Dir::resolve(path)?;
        let path = resolved.path();
        match resolved.other {
            Some(meta) => Ok(Self {
                dir: resolved.dir,
                name: resolved.missing.pop(),
                path,
                meta,
            }),
            None if resolved.missing.is_empty() => Self::of_dir(resolved.dir),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a `Chosen` of an open directory.
    pub fn of_dir(dir: Dir) -> io::Result<Self> {
        Ok(Self {
            meta: Meta::of_fd(&dir)?,
            path: dir.path().to_owned(),
            dir,
            name: None,
        })
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.name.is_none()
    }

    /// Returns the directory, or the one that the thing is in.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the thing's name in [`Self::dir`]; empty for the directory itself.
    pub fn name(&self) -> &OsStr {
        self.name.as_deref().unwrap_or_default()
    }

    /// Returns its path as of the opening, free of links. Use it in messages and for comparisons of
    /// text only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its metadata as of the opening.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }
}
