//! The configuration of a machine that drills: `[drill]`, its `[[check]]` tables, and nothing of a
//! host that backs up. An identity belongs here, and never beside a `[[source]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::check::{KnownKeys, keys_of, only_known_keys};
use super::document::ConfigDocument;
use super::error::ConfigError;
use super::post_check::{RawPostCheck, collect_checks};
use super::raw::nested_of_checks;
use super::raw_command::RawCommand;
use super::restore_settings::base_url_of;
use super::value::{self, ValueText, optional};
use super::{CommandLine, PostCheck, PostCheckKind};
use crate::base::ids::HostName;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::storage;

/// The table, and the key by which a file is known to be of this kind.
const DRILL: &str = "drill";
/// How long `start` and `stop` may take, each.
pub const SERVICE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the checks are repeated until they pass.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(180);
/// Number of drills of which one restores an older snapshot.
pub const RANDOM_OLDER: u32 = 4;

/// Which snapshot is drilled if the command line does not say.
#[derive(Debug, Clone)]
pub enum DrillSnapshot {
    /// Any live snapshot, drawn by lot each time.
    Random,
    /// This one.
    Chosen(SnapshotChoice),
}

impl DrillSnapshot {
    /// Parses `latest`, `random`, or the choice of a snapshot.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            text => SnapshotChoice::parse(text)
                .map(Self::Chosen)
                .map_err(|error| error.to_string()),
        }
    }
}

/// The configuration of a machine that drills.
#[derive(Debug, Clone)]
pub struct DrillConfig {
    /// The absolute path of the file.
    pub file: PathBuf,
    /// Places of backups, as `--from` takes them.
    pub from: Vec<String>,
    /// The host, if the places hold several.
    pub host: Option<HostName>,
    /// Files of identities; at least one.
    pub identities: Vec<PathBuf>,
    /// The OpenSSH private key that signs receipts.
    pub signer: PathBuf,
    /// The principal that signs. `None`: `drill@` and the machine's name.
    pub principal: Option<String>,
    /// The snapshot.
    pub snapshot: DrillSnapshot,
    /// Each place has its turn; else the first one is always drilled.
    pub every_target: bool,
    /// Number of drills of which one restores an older snapshot. `None`: none does.
    pub random_older: Option<u32>,
    /// Starts a service on the restored data. `None`: nothing is started.
    pub start: Option<CommandLine>,
    /// Stops it. `None`: nothing is stopped.
    pub stop: Option<CommandLine>,
    /// How long `start` and `stop` may take, each.
    pub service_timeout: Duration,
    /// How long the checks are repeated until they pass.
    pub check_timeout: Duration,
    /// The URL before the paths of HTTP checks.
    pub base_url: Option<String>,
    /// The directory in which snapshots are restored. `None`: the system's for temporary files.
    pub scratch: Option<PathBuf>,
    /// A larger snapshot is not restored. `None`: any.
    pub max_bytes: Option<u64>,
    /// The checks that are part of a drill.
    pub checks: Vec<PostCheck>,
}

/// The whole document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDrillDocument {
    drill: Spanned<RawDrill>,
    #[serde(default)]
    check: Vec<Spanned<RawPostCheck>>,
}

/// One text, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// `[drill]` as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDrill {
    from: Spanned<OneOrMore>,
    host: Option<Spanned<String>>,
    identity: Spanned<OneOrMore>,
    signer: String,
    principal: Option<Spanned<String>>,
    snapshot: Option<Spanned<String>>,
    every_target: Option<bool>,
    random_older: Option<Spanned<String>>,
    start: Option<Spanned<RawCommand>>,
    stop: Option<Spanned<RawCommand>>,
    service_timeout: Option<Spanned<ValueText>>,
    check_timeout: Option<Spanned<ValueText>>,
    base_url: Option<Spanned<String>>,
    scratch: Option<String>,
    max_bytes: Option<Spanned<ValueText>>,
}

/// Returns the keys of `[drill]`.
pub(super) fn keys() -> (&'static str, &'static [&'static str]) {
    (DRILL, keys_of::<RawDrill>())
}

/// Returns whether `document` has a `[drill]`, and refuses one that is a host's, too.
pub(super) fn is_for_drills(document: &ConfigDocument<'_>) -> Result<bool, ConfigError> {
    let table = DeTable::parse(document.text).map_err(|error| document.syntax(&error))?;
    let table = table.get_ref();
    let key = |name: &str| table.keys().find(|key| key.get_ref() == name);
    let Some(drill) = key(DRILL) else {
        return Ok(false);
    };
    let of_host = ["source", "snapshots", "target", "recipients", "state"];
    match of_host.iter().find(|name| key(name).is_some()) {
        None => Ok(true),
        Some(other) => {
            let what = format!(
                "[drill] and `{other}` in one file: a host that backs up must never hold an identity. Drills belong on \
                 the key holder's machine, in a configuration of their own with only [drill] and [[check]]"
            );
            Err(document.invalid(&drill.span(), what))
        }
    }
}

impl DrillConfig {
    /// Validates `text` as the content of `file`, an absolute path.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let document = ConfigDocument { text, file };
        if !is_for_drills(&document)? {
            let file = file.to_owned();
            return Err(ConfigError::ForHosts { file });
        }
        let known = KnownKeys {
            top: keys_of::<RawDrillDocument>(),
            tables: vec![keys(), ("check", keys_of::<RawPostCheck>())],
            nested: nested_of_checks(),
        };
        only_known_keys(&document, &known)?;
        let raw: RawDrillDocument = toml::from_str(text).map_err(|e| document.syntax(&e))?;
        let checks = collect_checks(&document, &raw.check, Vec::new())?;
        raw.drill.get_ref().validate(&document, checks)
    }

    /// Returns the files whose content decides what this machine runs, decrypts and signs with.
    pub(super) fn trusted_files(&self) -> Vec<PathBuf> {
        let mut files = self.identities.clone();
        files.push(self.signer.clone());
        files
    }
}

impl RawDrill {
    fn validate(
        &self,
        document: &ConfigDocument<'_>,
        checks: Vec<PostCheck>,
    ) -> Result<DrillConfig, ConfigError> {
        let duration = |value| optional(document, value, value::parse_duration);
        let host = self.host.as_ref().map(|host| {
            let parsed = host.get_ref().parse();
            parsed.map_err(|error: crate::base::ids::InvalidId| {
                document.invalid(&host.span(), error.to_string())
            })
        });
        let snapshot = self.snapshot.as_ref().map(|text| {
            let parsed = DrillSnapshot::parse(text.get_ref());
            parsed.map_err(|what| document.invalid(&text.span(), what))
        });
        let latest = DrillSnapshot::Chosen(SnapshotChoice::latest());
        let base_url = self.base_url.as_ref();
        let base_url = base_url.map(|url| base_url_of(document, url)).transpose()?;
        let checks: Vec<PostCheck> = checks.into_iter().filter(|one| one.in_drill).collect();
        require_base_url(document, &checks, base_url.as_deref())?;
        let start = command(document, "start", &self.start)?;
        let stop = command(document, "stop", &self.stop)?;
        if let (Some(raw), None) = (&self.start, &stop) {
            let what = "`start` without `stop`: the drill would leave the service running";
            return Err(document.invalid(&raw.span(), what));
        }
        if let (Some(raw), None) = (&self.stop, &start) {
            let what = "`stop` without `start`: a drill stops only what it started";
            return Err(document.invalid(&raw.span(), what));
        }
        Ok(DrillConfig {
            file: document.file.to_owned(),
            from: self.from(document)?,
            host: host.transpose()?,
            identities: self.identities(document)?,
            signer: document.resolve(&self.signer),
            principal: self.principal(document)?,
            snapshot: snapshot.transpose()?.unwrap_or(latest),
            every_target: self.every_target.unwrap_or(true),
            random_older: self.random_older(document)?,
            start,
            stop,
            service_timeout: duration(&self.service_timeout)?.unwrap_or(SERVICE_TIMEOUT),
            check_timeout: duration(&self.check_timeout)?.unwrap_or(CHECK_TIMEOUT),
            base_url,
            scratch: self.scratch.as_deref().map(|path| document.resolve(path)),
            max_bytes: optional(document, &self.max_bytes, value::parse_size)?,
            checks,
        })
    }

    /// Returns the places. A relative path is relative to the file's directory.
    fn from(&self, document: &ConfigDocument<'_>) -> Result<Vec<String>, ConfigError> {
        let wrong = |what: String| Err(document.invalid(&self.from.span(), what));
        let mut places = Vec::new();
        for text in self.from.get_ref().all() {
            if url::Url::parse(text).is_ok_and(|url| url.password().is_some()) {
                return wrong(
                    "a password in a URL: secrets come from the environment or from files"
                        .to_owned(),
                );
            }
            let is_name = !text.contains(['/', ':']);
            if !is_name && let Err(error) = storage::check_url(text) {
                return wrong(error.to_string());
            }
            let is_folder = !text.contains("://") && storage::folder_path(text).is_some();
            places.push(match is_folder && !is_name {
                true => document.resolve(text).to_string_lossy().into_owned(),
                false => text.clone(),
            });
        }
        match places.is_empty() {
            true => wrong("from names no place of backups".to_owned()),
            false => Ok(places),
        }
    }

    fn identities(&self, document: &ConfigDocument<'_>) -> Result<Vec<PathBuf>, ConfigError> {
        let all = self.identity.get_ref().all();
        if let Some(secret) = all.iter().find_map(|text| super::check::private_part(text)) {
            let what = format!("identity is the path of a file, and this is {secret} itself");
            return Err(document.invalid(&self.identity.span(), what));
        }
        match all.is_empty() {
            true => Err(document.invalid(&self.identity.span(), "identity names no file")),
            false => Ok(all.iter().map(|path| document.resolve(path)).collect()),
        }
    }

    fn principal(&self, document: &ConfigDocument<'_>) -> Result<Option<String>, ConfigError> {
        let Some(principal) = &self.principal else {
            return Ok(None);
        };
        let checked = check_principal(principal.get_ref());
        checked.map_err(|what| document.invalid(&principal.span(), what))?;
        Ok(Some(principal.get_ref().clone()))
    }

    fn random_older(&self, document: &ConfigDocument<'_>) -> Result<Option<u32>, ConfigError> {
        let Some(text) = &self.random_older else {
            return Ok(Some(RANDOM_OLDER));
        };
        if text.get_ref() == "never" {
            return Ok(None);
        }
        let number = text.get_ref().strip_prefix("1 in ");
        let number = number.and_then(|number| number.trim().parse().ok());
        match number.filter(|number| (1..=100).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let what = "random_older is \"1 in N\" with N from 1 to 100, or \"never\"";
                Err(document.invalid(&text.span(), what))
            }
        }
    }
}

fn command(
    document: &ConfigDocument<'_>,
    key: &str,
    raw: &Option<Spanned<RawCommand>>,
) -> Result<Option<CommandLine>, ConfigError> {
    match raw {
        None => Ok(None),
        Some(raw) if raw.get_ref().is_empty() => {
            Err(document.invalid(&raw.span(), format!("`{key}` names no program")))
        }
        Some(raw) => Ok(Some(raw.get_ref().line())),
    }
}

/// Refuses a check that asks a service if the configuration does not say where that is.
fn require_base_url(
    document: &ConfigDocument<'_>,
    checks: &[PostCheck],
    base_url: Option<&str>,
) -> Result<(), ConfigError> {
    let mut checks = checks.iter();
    let asking = checks.find(|check| matches!(check.kind, PostCheckKind::Http(_)));
    match (asking, base_url) {
        (Some(check), None) => {
            let what = format!(
                "the check {:?} asks a service: set `base_url` (and `start`, `stop`) in [drill]",
                check.name
            );
            Err(document.invalid(&(0..0), what))
        }
        _ => Ok(()),
    }
}

/// Returns what is wrong with a principal, as `allowed_signers` has it.
pub fn check_principal(text: &str) -> Result<(), String> {
    let is_plain =
        |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '"' | '*' | '?' | '!' | '#');
    match (1..=100).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a principal such as \"drill@laptop\": visible ASCII characters without , \" * ? ! #"
        )),
    }
}
