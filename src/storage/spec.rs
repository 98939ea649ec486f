//! The settings of one target, and the check of them before they are used.

use super::error::{Fault, OpenError};
use super::patience::Patience;
use super::redact::without_secrets;
use super::setting::{self, Takes};
use super::ssh;
use super::url::Address;
use crate::base::rate_schedule::Timetable;

const DEFAULT_TIMEOUT_SECONDS: u64 = 300;
const DEFAULT_RETRY_SECONDS: u64 = 180;
const DEFAULT_CONCURRENCY: usize = 4;
/// rsync sends the objects of many puts in one call.
const RSYNC_CONCURRENCY: usize = 32;

/// The settings of one target: address, deadlines, limits, storage classes. All but the URL have
/// defaults.
#[derive(Debug, Clone, Default)]
pub struct TargetSpec {
    /// Name in the configuration; empty for a target that is given by its URL alone.
    pub name: String,
    /// A path, `user@host:path`, or a `file`, `s3`, `gs`, `az`, `https` (WebDAV), `rsync`, `sftp`
    /// or `memory` URL.
    pub url: String,
    /// Address of the server. `None`: the environment's, else the provider's own.
    pub endpoint: Option<String>,
    /// Region of the bucket. `None`: the environment's, else the provider's default.
    pub region: Option<String>,
    /// Whether requests go to `endpoint/bucket/key` instead of `bucket.endpoint/key`. `None`: only
    /// if an endpoint is set.
    pub path_style: Option<bool>,
    /// Whether clear-text HTTP is allowed. An endpoint or URL with `http://` allows it too.
    pub allow_http: bool,
    /// Seconds until one request must have ended; uploads of whole archives get four times that.
    /// `None`: 300.
    pub timeout_seconds: Option<u64>,
    /// Seconds for which a failing request is retried. `None`: 180.
    pub retry_seconds: Option<u64>,
    /// How long the command waits until the target answers for the first time.
    pub patience: Patience,
    /// Number of concurrent uploads. `None`: 4, or 32 for rsync.
    pub concurrency: Option<usize>,
    /// The ssh command with its options, for rsync over ssh and for sftp. `None`: plain `ssh`.
    pub ssh: Option<String>,
    /// Limit of bytes per second for sending. `None`: no limit.
    pub upload: Option<Timetable>,
    /// Limit of bytes per second for fetching. `None`: no limit.
    pub download: Option<Timetable>,
    /// Whether the credentials can neither list nor read. The catalog is then the only record of
    /// the target's objects.
    pub write_only: bool,
    /// Storage class of data archives (S3, GCS, Azure). `None`: that of [`Self::class`].
    pub data_class: Option<String>,
    /// Storage class of all other objects (S3, GCS, Azure). `None`: the bucket's default.
    pub class: Option<String>,
}

impl TargetSpec {
    /// Returns the defaults for `url`.
    pub fn from_url(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }

    /// Seconds until one request must have ended; at least 1.
    pub fn timeout_seconds(&self) -> u64 {
        self.timeout_seconds
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS)
            .max(1)
    }

    /// Seconds for which a failing request is retried; 0 means a single try.
    pub fn retry_seconds(&self) -> u64 {
        let chosen = self.patience.retry().map(|retry| retry.as_secs());
        let own = self.retry_seconds.unwrap_or(DEFAULT_RETRY_SECONDS);
        chosen.unwrap_or(own)
    }

    /// Number of concurrent uploads; at least 1.
    pub fn concurrency(&self) -> usize {
        let default = match Address::parse(&self.url) {
            Ok(Address::Rsync(_)) => RSYNC_CONCURRENCY,
            _ => DEFAULT_CONCURRENCY,
        };
        self.concurrency.unwrap_or(default).max(1)
    }

    /// Returns the name, if there is one, and the URL without secrets.
    pub fn label(&self) -> String {
        let url = without_secrets(&self.url);
        match self.name.as_str() {
            "" => url,
            name => format!("{name} ({url})"),
        }
    }
}

impl TargetSpec {
    /// Returns what is wrong with the settings, as far as it shows without contacting a server.
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

    /// Refuses a class that would be ignored or that no request can name.
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
