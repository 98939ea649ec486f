//! Where a target is and how patient to be with it, as a value; and what is wrong with one, before it is used.

use super::setting::{self, Takes};
use super::url::{self, Address};
use super::{OpenError, ssh};
use crate::base::rate_schedule::Timetable;

const DEFAULT_TIMEOUT_SECONDS: u64 = 300;
const DEFAULT_RETRY_SECONDS: u64 = 180;
const DEFAULT_CONCURRENCY: usize = 4;
/// They go in one call together.
const RSYNC_CONCURRENCY: usize = 32;

/// Where a target is and how patient to be with it; all but the URL may be left to defaults.
#[derive(Debug, Clone, Default)]
pub struct TargetSpec {
    /// As the configuration calls it; empty for a target given by its URL alone.
    pub name: String,
    /// A path, `user@host:path`, or `file`, `s3`, `gs`, `az`, `https` (WebDAV), `rsync`, `sftp` and
    /// `memory` URLs.
    pub url: String,
    /// The server, where it is not the provider's own.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; the default wherever an endpoint is
    /// given.
    pub path_style: Option<bool>,
    /// Clear-text HTTP. An endpoint or URL that says `http://` allows it too.
    pub allow_http: bool,
    /// Deadline of one request; uploads of whole archives get four times that.
    pub timeout_seconds: Option<u64>,
    /// For how long a failing request is tried again.
    pub retry_seconds: Option<u64>,
    /// Uploads at once.
    pub concurrency: Option<usize>,
    /// Of rsync over ssh, and of sftp: the command with its options, instead of plain `ssh`.
    pub ssh: Option<String>,
    /// How fast to send and to fetch, at the most.
    pub upload: Option<Timetable>,
    pub download: Option<Timetable>,
    /// The credentials can neither list nor read: what is there is known from memory only.
    pub write_only: bool,
    /// Of S3, GCS and Azure: the storage class of data archives, and of all else.
    pub data_class: Option<String>,
    pub class: Option<String>,
}

impl TargetSpec {
    pub fn from_url(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }

    pub fn timeout_seconds(&self) -> u64 {
        self.timeout_seconds
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS)
            .max(1)
    }

    pub fn retry_seconds(&self) -> u64 {
        self.retry_seconds.unwrap_or(DEFAULT_RETRY_SECONDS)
    }

    pub fn concurrency(&self) -> usize {
        let default = match Address::parse(&self.url) {
            Ok(Address::Rsync(_)) => RSYNC_CONCURRENCY,
            _ => DEFAULT_CONCURRENCY,
        };
        self.concurrency.unwrap_or(default).max(1)
    }

    /// The name, if there is one, and the URL without secrets.
    pub fn label(&self) -> String {
        let url = url::without_secrets(&self.url);
        match self.name.as_str() {
            "" => url,
            name => format!("{name} ({url})"),
        }
    }
}

/// A setting that would be of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// As the configuration calls it: `url`, `endpoint`, `region`, `ssh`, `class`, `data_class`.
    pub key: &'static str,
    /// Without the value, which may hold a secret.
    what: String,
}

impl Fault {
    /// What is wrong with a target that has this storage class, if that is the fault.
    pub(super) fn of_class(&self) -> Option<String> {
        match (self.key, self.what.starts_with("only")) {
            ("class" | "data_class", true) => Some(format!(
                "{} is set, but it has no storage classes",
                self.key
            )),
            ("class" | "data_class", false) => Some(format!("{} is not a storage class", self.key)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let colon = if self.key.ends_with("class") { ":" } else { "" };
        write!(f, "{}{colon} {}", self.key, self.what)
    }
}

impl TargetSpec {
    /// Says what is wrong, as far as it shows without asking anybody.
    pub fn check(&self) -> Result<(), Fault> {
        let address = Address::parse(&self.url).map_err(|error| Fault {
            key: "url",
            what: match error {
                OpenError::Malformed { reason, .. } => format!("names no target: {reason}"),
                other => other.to_string(),
            },
        })?;
        self.check_settings(&address)
    }

    pub(super) fn check_settings(&self, address: &Address) -> Result<(), Fault> {
        let checked = [
            ("endpoint", &self.endpoint, Takes::Server),
            ("region", &self.region, Takes::Label),
            ("ssh", &self.ssh, Takes::Text),
        ];
        for (key, value, takes) in checked {
            if let Some(value) = value {
                setting::check(takes, value).map_err(|what| Fault { key, what })?;
            }
        }
        if let Some(command) = &self.ssh {
            let checked = ssh::check_command(command);
            checked.map_err(|what| Fault { key: "ssh", what })?;
        }
        self.check_classes(address)
    }

    /// A class that would be ignored, or that no request can name, is refused.
    fn check_classes(&self, address: &Address) -> Result<(), Fault> {
        let has_classes = matches!(
            address,
            Address::S3(_) | Address::Gcs(_) | Address::Azure(_)
        );
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (key, class) in [("data_class", &self.data_class), ("class", &self.class)] {
            let Some(class) = class else { continue };
            let is_one = (1..=64).contains(&class.len()) && class.chars().all(is_word);
            let what = match (has_classes, is_one) {
                (true, true) => continue,
                (false, _) => "only s3, gs and az targets have storage classes".to_owned(),
                (true, false) => format!("{class:?} is not a storage class like \"GLACIER_IR\""),
            };
            return Err(Fault { key, what });
        }
        Ok(())
    }
}
