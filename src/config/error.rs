//! Why a configuration is not obeyed.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no configuration found (looked for {}); `sealift init` writes one",
        list(looked)
    )]
    NotFound { looked: Vec<PathBuf> },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{} was found, not named, and is not obeyed: {exposure}; {remedy}, or name the file with --config if you \
         trust it",
        file.display()
    )]
    Exposed {
        file: PathBuf,
        /// Names the object, its owner and its mode.
        exposure: String,
        remedy: String,
    },
    #[error("{}:{line}: unknown key {key:?}{}", file.display(), near(nearest.as_deref()))]
    UnknownKey {
        file: PathBuf,
        line: usize,
        key: String,
        nearest: Option<String>,
    },
    #[error("{}:{line}: {what}; the backing-up host must never hold an identity, only recipients", file.display())]
    Identity {
        file: PathBuf,
        line: usize,
        what: String,
    },
    #[error("{}:{line}: {what}", file.display())]
    Invalid {
        file: PathBuf,
        line: usize,
        what: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

pub(super) fn near(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |key| format!("; did you mean {key:?}?"))
}
