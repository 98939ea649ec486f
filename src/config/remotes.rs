//! Named places of backups on the key holder's machine: `remotes.toml` in the user's configuration
//! directory.
//!
//! Each table is a remote, by its name: a URL, and what else belongs to it. A remote can name an
//! ssh command to run, and the signer to trust, so a file that others can change is refused.
//! Commands add and remove whole tables, and leave the rest of the file, comments included, as it
//! is.

mod error;
mod named_remote;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;

use self::named_remote::RawRemote;
use super::document::ConfigDocument;
use super::error::ConfigError;
use super::write::quoted;
use crate::base::dir_lock::DirLock;
use crate::base::fs::{create_private_dir, write_atomic};
use crate::base::ownership;
use crate::base::similar::nearest;
use crate::base::user_dirs;

pub use self::error::RemotesError;
pub use self::named_remote::{NamedRemote, is_name};

/// The file's name in the user's configuration directory.
pub const FILE_NAME: &str = "remotes.toml";
/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
const HEADER: &str = "# Named places of backups, for `sealift ... --from NAME`; `sealift remote` adds and removes them.\n";

/// The remotes of a file.
#[derive(Debug, Clone)]
pub struct Remotes {
    /// The file, which need not exist.
    pub file: PathBuf,
    /// The remotes, by name.
    pub all: BTreeMap<String, NamedRemote>,
    text: String,
}

impl Remotes {
    /// Reads the user's file; one that does not exist is empty. Without a home directory, or with
    /// that of another user, there is no remote.
    pub fn load() -> Result<Self, RemotesError> {
        match file() {
            Ok(file) => match Self::read(&file) {
                Err(RemotesError::Io { source, .. })
                    if user_dirs::is_home_of_another_user(&source) =>
                {
                    Ok(Self::none(file))
                }
                read => read,
            },
            Err(_) => Ok(Self::none(PathBuf::new())),
        }
    }

    fn none(file: PathBuf) -> Self {
        Self {
            file,
            all: BTreeMap::new(),
            text: String::new(),
        }
    }

    fn read(file: &Path) -> Result<Self, RemotesError> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let failed = |source| RemotesError::Io {
            what: "read",
            file: file.to_owned(),
            source,
        };
        let text = match ownership::open_regular(file) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => String::new(),
            Err(error) => return Err(failed(error)),
            Ok(opened) => {
                if let Some(exposure) = ownership::exposure_of(&opened, file).map_err(failed)? {
                    let file = file.to_owned();
                    return Err(RemotesError::Exposed { file, exposure });
                }
                ownership::read_text(&opened, MAX_BYTES).map_err(failed)?
            }
        };
        Ok(Self::parse(file, text)?)
    }

    fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let document = ConfigDocument { text: &text, file };
        let raw: BTreeMap<String, Spanned<RawRemote>> =
            toml::from_str(&text).map_err(|error| document.syntax(&error))?;
        let validated = raw.into_iter().map(|(name, raw)| {
            let remote = NamedRemote::validate(&document, &name, raw)?;
            Ok((name, remote))
        });
        let all = validated.collect::<Result<_, ConfigError>>()?;
        let file = file.to_owned();
        Ok(Self { file, all, text })
    }

    /// Returns the remote `name`; the error names the nearest one.
    pub fn get(&self, name: &str) -> Result<&NamedRemote, RemotesError> {
        self.all.get(name).ok_or_else(|| RemotesError::Unknown {
            name: name.to_owned(),
            nearest: self.nearest(name).map(str::to_owned),
        })
    }

    /// Returns the name that looks most like `name`; `None` if none is similar.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
        nearest(name, &names)
    }

    fn with(&self, name: &str, remote: &NamedRemote) -> Result<String, RemotesError> {
        if !is_name(name) {
            return Err(RemotesError::Name(name.to_owned()));
        }
        if self.all.contains_key(name) {
            return Err(RemotesError::Taken(name.to_owned()));
        }
        remote.check().map_err(RemotesError::Setting)?;
        let gap = match self.text.as_str() {
            "" => HEADER.to_owned() + "\n",
            text if text.ends_with('\n') => "\n".to_owned(),
            _ => "\n\n".to_owned(),
        };
        Ok(format!("{}{gap}{}", self.text, remote.table(name)))
    }

    /// Returns the text without the table `name`. A comment right above the next table stays.
    fn without(&self, name: &str) -> Result<String, RemotesError> {
        self.get(name)?;
        let heads = [
            format!("[{name}]"),
            format!("[{}]", quoted(name)),
            format!("['{name}']"),
        ];
        let lines: Vec<&str> = self.text.split_inclusive('\n').collect();
        let is_head = |line: &str| heads.iter().any(|head| line.trim() == head);
        let entangled = || RemotesError::Entangled {
            name: name.to_owned(),
            file: self.file.clone(),
        };
        let start = lines
            .iter()
            .position(|line| is_head(line))
            .ok_or_else(entangled)?;
        let next = lines[start + 1..]
            .iter()
            .position(|line| line.trim_start().starts_with('['));
        let mut end = next.map_or(lines.len(), |next| start + 1 + next);
        if next.is_some() {
            while end > start + 1 && lines[end - 1].trim_start().starts_with('#') {
                end -= 1;
            }
        }
        let text = [&lines[..start], &lines[end..]].concat().concat();
        let mut expected = self.all.clone();
        expected.remove(name);
        match Self::parse(&self.file, text.clone()) {
            Ok(left) if left.all == expected => Ok(text),
            _ => Err(entangled()),
        }
    }
}

/// Returns the path of the user's file.
pub fn file() -> Result<PathBuf, RemotesError> {
    let dir = user_dirs::sealift_dir().ok_or(RemotesError::NoHome)?;
    Ok(dir.join(FILE_NAME))
}

/// Adds a remote to the user's file. Returns the file.
pub fn add(name: &str, remote: &NamedRemote) -> Result<PathBuf, RemotesError> {
    change(&file()?, |remotes| remotes.with(name, remote))
}

/// Removes a remote from the user's file. Returns the file.
pub fn remove(name: &str) -> Result<PathBuf, RemotesError> {
    let file = file()?;
    Remotes::read(&file)?.get(name)?;
    change(&file, |remotes| remotes.without(name))
}

/// Replaces the file in one step by what `edit` makes of it, while no other process does.
fn change(
    file: &Path,
    edit: impl Fn(&Remotes) -> Result<String, RemotesError>,
) -> Result<PathBuf, RemotesError> {
    let failed = |source| RemotesError::Io {
        what: "write",
        file: file.to_owned(),
        source,
    };
    let dir = file.parent().unwrap_or(Path::new("/"));
    create_private_dir(dir).map_err(failed)?;
    if let Some(exposure) = ownership::exposure_at(file).map_err(failed)? {
        let file = file.to_owned();
        return Err(RemotesError::Exposed { file, exposure });
    }
    let _lock = DirLock::exclusive(dir).map_err(failed)?;
    let text = edit(&Remotes::read(file)?)?;
    // A link to the file stays one.
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    write_atomic(&real, text.as_bytes(), 0o600).map_err(failed)?;
    Ok(file.to_owned())
}

#[cfg(test)]
mod tests;
