//! Finds the configuration, and checks whether other users can change it.
//!
//! A configuration names commands, recipients and the signer, so its author decides what this
//! process does. A file that was *named* (`--config`, `$SEALIFT_CONFIG`) is the caller's choice.
//! One that was merely *found*, such as the `sealift.toml` in root's current directory, is obeyed
//! only if no other user than root and this one can change it and the files that it trusts. The
//! programs that its commands run are not checked: a shell line can name any.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::{Config, DrillConfig, ENVIRONMENT, FILE_NAME, Recipient, SYSTEM_FILE};
use crate::base::ownership::{self, Exposure};
use crate::base::user_dirs;

/// A configuration, and warnings about it for the operator.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// One line for each file that other users can change.
    pub warnings: Vec<String>,
}

/// Largest configuration file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Returns the file that the environment names; `None` if it names none.
pub fn named_by_environment() -> Option<PathBuf> {
    let named = std::env::var_os(ENVIRONMENT).filter(|path| !path.is_empty());
    named.map(PathBuf::from)
}

/// Returns the paths at which a configuration is looked for, in this order.
fn places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(FILE_NAME)];
    places.extend(user_dirs::sealift_dir().map(|dir| dir.join(FILE_NAME)));
    places.push(PathBuf::from(SYSTEM_FILE));
    places
}

impl Config {
    /// Reads and validates the file `explicit`, or the one that `$SEALIFT_CONFIG` names, or the
    /// first existing one of `./sealift.toml`, `sealift/sealift.toml` in the user's configuration
    /// directory, and `/etc/sealift/sealift.toml`.
    ///
    /// A named file that cannot be read is an error: a silent fall-back to another one would back
    /// up the wrong data.
    pub fn find(explicit: Option<&Path>) -> Result<LoadedConfig, ConfigError> {
        let (config, warnings) = find_as::<Self>(explicit)?;
        Ok(LoadedConfig { config, warnings })
    }
}

impl DrillConfig {
    /// Reads and validates the configuration of a machine that drills, and returns it with warnings
    /// for the operator. It is found like a host's ([`Config::find`]).
    pub fn find(explicit: Option<&Path>) -> Result<(Self, Vec<String>), ConfigError> {
        find_as(explicit)
    }
}

/// What a configuration file can be read as.
trait ConfigKind: Sized {
    fn read(text: &str, path: &Path) -> Result<Self, ConfigError>;
    /// Returns the files that others must not be able to change either.
    fn trusted(&self) -> Vec<PathBuf>;
}

impl ConfigKind for Config {
    fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse(text, path)
    }

    fn trusted(&self) -> Vec<PathBuf> {
        self.trusted_files()
    }
}

impl ConfigKind for DrillConfig {
    fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse(text, path)
    }

    fn trusted(&self) -> Vec<PathBuf> {
        self.trusted_files()
    }
}

fn find_as<C: ConfigKind>(explicit: Option<&Path>) -> Result<(C, Vec<String>), ConfigError> {
    if let Some(path) = explicit.map(Path::to_owned).or_else(named_by_environment) {
        return read_named(&path);
    }
    let looked = places();
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => read_found(path),
        None => Err(ConfigError::NotFound { looked }),
    }
}

/// Reads a file that was found. Fails if other users can change it or a file that it trusts.
fn read_found<C: ConfigKind>(path: &Path) -> Result<(C, Vec<String>), ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let refused = |exposure: Exposure| ConfigError::Exposed {
        file: path.to_owned(),
        exposure: exposure.to_string(),
        remedy: exposure.remedy,
    };
    let path = std::path::absolute(path).map_err(failed)?;
    // The file is opened once, so the checked file is the one that is read.
    let file = ownership::open_regular(&path).map_err(failed)?;
    if let Some(exposure) = ownership::exposure_of(&file, &path).map_err(failed)? {
        return Err(refused(exposure));
    }
    let text = ownership::read_text(&file, MAX_BYTES).map_err(failed)?;
    let config = C::read(&text, &path)?;
    for trusted in config.trusted() {
        let exposure = ownership::exposure_at(&trusted);
        let unseen = |source| ConfigError::Read {
            path: trusted.clone(),
            source,
        };
        if let Some(exposure) = exposure.map_err(unseen)? {
            return Err(refused(exposure));
        }
    }
    Ok((config, Vec::new()))
}

/// Reads a file that the caller named; it may be a pipe.
fn read_named<C: ConfigKind>(path: &Path) -> Result<(C, Vec<String>), ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let path = std::path::absolute(path).map_err(failed)?;
    let file = std::fs::File::open(&path).map_err(failed)?;
    let mut text = String::new();
    (&file).read_to_string(&mut text).map_err(failed)?;
    let config = C::read(&text, &path)?;
    let mut exposures: Vec<Exposure> = Vec::new();
    if file.metadata().is_ok_and(|meta| meta.is_file()) {
        // A named file is obeyed even if its path cannot be checked.
        exposures.extend(ownership::exposure_of(&file, &path).ok().flatten());
    }
    for trusted in config.trusted() {
        let exposure = ownership::exposure_at(&trusted).ok().flatten();
        exposures.extend(exposure.filter(|new| !exposures.contains(new)));
    }
    let warnings = exposures.iter().map(|exposure| {
        let remedy = &exposure.remedy;
        format!(
            "{exposure}: others can change which commands {} runs or whom it trusts; {remedy}",
            path.display()
        )
    });
    Ok((config, warnings.collect()))
}

impl Config {
    /// Returns the files that decide who can open the backups and whose signatures count.
    fn trusted_files(&self) -> Vec<PathBuf> {
        let files = self
            .recipients
            .iter()
            .filter_map(|recipient| match recipient {
                Recipient::File(path) => Some(path.clone()),
                Recipient::Text(_) => None,
            });
        let mut files: Vec<PathBuf> = files.collect();
        files.push(self.signer.clone());
        files.push(self.signer.with_file_name("allowed_signers"));
        files.extend(self.next_signer.clone());
        files
    }
}
