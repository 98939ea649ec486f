//! The arguments of a call of rsync.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::storage::url::RsyncAddress;

impl RsyncAddress {
    /// Returns the argument for the path `below` (empty, or with a final slash).
    pub(super) fn argument(&self, below: &str) -> String {
        let joined = |path: &str| match path.trim_end_matches('/') {
            "" if path.is_empty() => below.to_owned(),
            path => format!("{path}/{below}"),
        };
        match self {
            Self::Ssh { login, path, .. } => match joined(path).as_str() {
                "" => format!("{login}:./"),
                path => format!("{login}:{path}"),
            },
            Self::Daemon { authority, path } => format!("rsync://{authority}/{}", joined(path)),
        }
    }

    /// Returns the path below a daemon's module, with a final slash; may be empty. Files are
    /// fetched by name from the module itself: rsync 3.5 does not find them from a folder in a
    /// module that is no chroot.
    pub(super) fn inner(&self) -> String {
        match self {
            Self::Ssh { .. } => String::new(),
            Self::Daemon { path, .. } => match path.split_once('/') {
                Some((_, below)) if !below.is_empty() => format!("{below}/"),
                _ => String::new(),
            },
        }
    }

    /// Returns the argument for the place that [`Self::inner`] is relative to.
    pub(super) fn outer(&self) -> String {
        match self {
            Self::Ssh { .. } => self.argument(""),
            Self::Daemon { authority, path } => {
                let module = path.split('/').next().unwrap_or(path);
                format!("rsync://{authority}/{module}/")
            }
        }
    }
}

/// The arguments of a call, and its input.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    words: Vec<Word>,
    /// The names for `--files-from`, each with a NUL.
    pub input: Vec<u8>,
    /// Whether the call sends objects; other calls list, fetch or delete.
    pub is_upload: bool,
}

#[derive(Debug)]
enum Word {
    Plain(OsString),
    /// A path below the target's root.
    Remote(String),
    /// The place that [`RsyncAddress::inner`] is relative to.
    Outer,
}

impl Arguments {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds words as they are.
    pub(super) fn add<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) {
        let words = words
            .into_iter()
            .map(|word| Word::Plain(word.as_ref().to_owned()));
        self.words.extend(words);
    }

    /// Restricts the call to these files and the folders that lead to them.
    pub(super) fn files_from(&mut self, keys: &[String]) {
        self.add(["--files-from=-", "--from0"]);
        for key in keys {
            self.input.extend_from_slice(key.as_bytes());
            self.input.push(0);
        }
    }

    /// Adds a folder of this machine.
    pub(super) fn local(&mut self, folder: &Path) {
        let mut path = folder.as_os_str().to_owned();
        path.push("/");
        self.words.push(Word::Plain(path));
    }

    /// Marks the call as one that sends objects.
    pub(super) fn upload(&mut self) {
        self.is_upload = true;
    }

    /// Adds the place that [`RsyncAddress::inner`] is relative to.
    pub(super) fn outer(&mut self) {
        self.words.push(Word::Outer);
    }

    /// Adds the path `below` of the target.
    pub(super) fn remote(&mut self, below: &str) {
        self.words.push(Word::Remote(below.to_owned()));
    }

    /// Returns all words for a call to `address`.
    pub(super) fn words(&self, address: &RsyncAddress) -> impl Iterator<Item = OsString> {
        self.words.iter().map(|word| match word {
            Word::Plain(word) => word.clone(),
            Word::Remote(below) => address.argument(below).into(),
            Word::Outer => address.outer().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_places_below_the_root() {
        let ssh = |path: &str| RsyncAddress::Ssh {
            login: "me@laptop".to_owned(),
            port: None,
            path: path.to_owned(),
        };
        assert_eq!(ssh("/backups").argument("h/"), "me@laptop:/backups/h/");
        assert_eq!(ssh("/").argument(""), "me@laptop:/");
        assert_eq!(ssh("backups/").argument(""), "me@laptop:backups/");
        assert_eq!(ssh("").argument(""), "me@laptop:./");
        assert_eq!(ssh("").argument("h/"), "me@laptop:h/");
        let daemon = RsyncAddress::Daemon {
            authority: "nas:8730".to_owned(),
            path: "module/below".to_owned(),
        };
        assert_eq!(daemon.argument("h/"), "rsync://nas:8730/module/below/h/");
        assert_eq!(daemon.outer() + &daemon.inner(), daemon.argument(""));
        assert_eq!(ssh("/b").outer() + &ssh("/b").inner(), "me@laptop:/b/");
    }
}
