//! Why a configuration is not obeyed.

use std::path::PathBuf;

/// Why a configuration is not obeyed. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was named, and none is in the usual places.
    #[error(
        "no configuration found (looked for {}); `sealift init` writes one",
        list(looked)
    )]
    NotFound {
        /// The places that were searched.
        looked: Vec<PathBuf>,
    },
    /// It is the configuration of a machine that drills, and no host's.
    #[error(
        "{} has [drill]: it is the configuration of a machine that drills, and no host's",
        file.display()
    )]
    ForDrills {
        /// The configuration.
        file: PathBuf,
    },
    /// It is the configuration of a host, and no drill is described in it.
    #[error("{} has no [drill]: it is the configuration of a host", file.display())]
    ForHosts {
        /// The configuration.
        file: PathBuf,
    },
    /// The configuration, or a file that it names, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Other users can change a configuration that was found and not named, or a file that it
    /// trusts.
    #[error(
        "{} was found, not named, and is not obeyed: {exposure}; {remedy}, or name the file with --config if you \
         trust it",
        file.display()
    )]
    Exposed {
        /// The configuration.
        file: PathBuf,
        /// Names the object that others can change, its owner and its mode.
        exposure: String,
        /// The next step for the operator.
        remedy: String,
    },
    /// A table has no such key.
    #[error("{}:{line}: unknown key {key:?}{}", file.display(), near(nearest.as_deref()))]
    UnknownKey {
        /// The configuration.
        file: PathBuf,
        /// The key's line.
        line: usize,
        /// The key.
        key: String,
        /// The known key that looks most like it; `None`: none is similar.
        nearest: Option<String>,
    },
    /// A value is a private key.
    #[error("{}:{line}: {what}; the backing-up host must never hold an identity, only recipients", file.display())]
    Identity {
        /// The configuration, or a file of recipients.
        file: PathBuf,
        /// The value's line.
        line: usize,
        /// Names the kind of private key.
        what: String,
    },
    /// A value is not valid.
    #[error("{}:{line}: {what}", file.display())]
    Invalid {
        /// The configuration, or a file of recipients.
        file: PathBuf,
        /// The value's line.
        line: usize,
        /// The reason, and what would be valid.
        what: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// Returns the suggestion for a mistyped name.
pub(super) fn near(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |key| format!("; did you mean {key:?}?"))
}
