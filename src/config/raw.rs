//! The tables of the file as serde reads them, and their validation.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::check::{KnownKeys, Nested, keys_of};
use super::document::ConfigDocument;
use super::error::ConfigError;
use super::hooks::RawHooks;
use super::notify::{RawNotify, collect_channels};
use super::post_check::{RawExpect, RawFileCheck, RawPostCheck, RawSqlCheck, collect_checks};
use super::preset::{self, RawSnapshots};
use super::proof::RawProof;
use super::restore_settings::{RawRestore, RestoreSettings};
use super::schedule::RawSchedule;
use super::serve_settings::{RawHistory, RawServe};
use super::source::{RawSource, atocore_source, collect_sources, written_sources};
use super::value::{ValueText, optional};
use super::written::{TableKind, WrittenTable};
use super::{Config, PackConfig, Recipient, Retention, TargetConfig, value};
use crate::storage::{self, Patience, TargetSpec};

/// The whole document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    host: Spanned<String>,
    recipients: Spanned<Vec<Spanned<String>>>,
    signer: String,
    next_signer: Option<String>,
    state: String,
    #[serde(default)]
    pub snapshots: RawSnapshots,
    #[serde(default)]
    pub source: Vec<Spanned<RawSource>>,
    #[serde(default)]
    target: Vec<Spanned<RawTarget>>,
    retention: Option<Spanned<RawRetention>>,
    schedule: Option<RawSchedule>,
    pack: Option<RawPack>,
    spool: Option<RawSpool>,
    verify: Option<RawVerify>,
    #[serde(default)]
    serve: RawServe,
    hooks: Option<RawHooks>,
    restore: Option<RawRestore>,
    proof: Option<RawProof>,
    #[serde(default)]
    check: Vec<Spanned<RawPostCheck>>,
    #[serde(default)]
    notify: Vec<Spanned<RawNotify>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    name: Spanned<String>,
    url: Spanned<String>,
    endpoint: Option<Spanned<String>>,
    region: Option<Spanned<String>>,
    #[serde(default)]
    path_style: bool,
    timeout: Option<Spanned<ValueText>>,
    retry: Option<Spanned<ValueText>>,
    ssh: Option<Spanned<String>>,
    upload: Option<Spanned<ValueText>>,
    download: Option<Spanned<ValueText>>,
    concurrency: Option<Spanned<usize>>,
    #[serde(default)]
    write_only: bool,
    data_class: Option<Spanned<String>>,
    class: Option<Spanned<String>>,
    retention: Option<Spanned<RawRetention>>,
    #[serde(default)]
    prune: bool,
    max_age: Option<Spanned<ValueText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RawRetention {
    last: u32,
    hourly: u32,
    daily: u32,
    weekly: u32,
    monthly: u32,
    yearly: u32,
    within: Option<Spanned<ValueText>>,
    keep_tags: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPack {
    archive_size: Option<Spanned<ValueText>>,
    level: Option<Spanned<i32>>,
    threads: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpool {
    limit: Option<Spanned<ValueText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVerify {
    max_age: Option<Spanned<ValueText>>,
}

/// Returns the keys of every table.
pub(super) fn known_keys() -> KnownKeys {
    KnownKeys {
        top: keys_of::<RawConfig>(),
        tables: vec![
            ("snapshots", keys_of::<RawSnapshots>()),
            ("source", keys_of::<RawSource>()),
            ("target", keys_of::<RawTarget>()),
            ("retention", keys_of::<RawRetention>()),
            ("schedule", keys_of::<RawSchedule>()),
            ("pack", keys_of::<RawPack>()),
            ("spool", keys_of::<RawSpool>()),
            ("verify", keys_of::<RawVerify>()),
            ("serve", keys_of::<RawServe>()),
            ("hooks", keys_of::<RawHooks>()),
            ("restore", keys_of::<RawRestore>()),
            ("check", keys_of::<RawPostCheck>()),
            ("notify", keys_of::<RawNotify>()),
            ("proof", keys_of::<RawProof>()),
        ],
        nested: [
            ("schedule.include", Nested::Free),
            ("target.retention", Nested::Known(keys_of::<RawRetention>())),
            ("serve.history", Nested::Known(keys_of::<RawHistory>())),
            ("restore.map", Nested::Free),
        ]
        .into_iter()
        .chain(nested_of_checks())
        .collect(),
    }
}

/// Returns the tables in `[[check]]`, and their keys.
pub(super) fn nested_of_checks() -> Vec<(&'static str, Nested)> {
    vec![
        ("check.body", Nested::Free),
        ("check.explain", Nested::Free),
        ("check.expect", Nested::Known(keys_of::<RawExpect>())),
        ("check.expect.json", Nested::Free),
        ("check.sql", Nested::Known(keys_of::<RawSqlCheck>())),
        ("check.file", Nested::Known(keys_of::<RawFileCheck>())),
    ]
}

impl RawConfig {
    /// Returns the tables of `kind` that the file has, in its order.
    pub(super) fn written_tables(
        &self,
        document: &ConfigDocument<'_>,
        kind: TableKind,
    ) -> Result<Vec<WrittenTable>, ConfigError> {
        if kind == TableKind::Source {
            return written_sources(document, &self.source);
        }
        let written = self.target.iter().map(|target| WrittenTable {
            name: target.get_ref().name.get_ref().clone(),
            line: document.line(&target.span()),
        });
        Ok(written.collect())
    }

    pub(crate) fn validate(self, document: &ConfigDocument<'_>) -> Result<Config, ConfigError> {
        let host = self.host.get_ref().parse();
        let host = host.map_err(|e: crate::base::ids::InvalidId| {
            document.invalid(&self.host.span(), e.to_string())
        })?;
        if self.recipients.get_ref().is_empty() {
            let what = "no recipients: nothing can be sealed without one";
            return Err(document.invalid(&self.recipients.span(), what));
        }
        let recipients = self.recipients.get_ref().iter();
        let recipients = recipients
            .map(|text| Recipient::validate(text.get_ref(), &text.span(), document))
            .collect::<Result<_, _>>()?;
        let state = document.resolve(&self.state);
        let snapshots_dir = self.snapshots.dir.as_deref();
        let sources = collect_sources(document, &self.snapshots, &self.source)?;
        let atocore = atocore_source(document, &self.snapshots, &self.source, &sources)?;
        let preset_root = self.snapshots.preset_root(document);
        let (defaults, checks) = match &preset_root {
            Some(root) => (
                preset::restore_defaults(root, atocore.as_ref()),
                preset::checks(atocore.as_ref()),
            ),
            None => (RestoreSettings::default(), Vec::new()),
        };
        let restore = self.restore.unwrap_or_default();
        let schedule = match &self.schedule {
            Some(raw) => raw.validate(document, &sources, atocore.as_ref())?,
            None => Default::default(),
        };
        Ok(Config {
            file: document.file.to_owned(),
            host,
            recipients,
            signer: document.resolve(&self.signer),
            next_signer: self
                .next_signer
                .as_deref()
                .map(|path| document.resolve(path)),
            snapshots_dir: snapshots_dir
                .map_or_else(|| state.join("snapshots"), |dir| document.resolve(dir)),
            keep_local: self.snapshots.keep(document)?,
            state,
            restore: restore.validate(document, &sources, defaults)?,
            checks: collect_checks(document, &self.check, checks)?,
            schedule,
            channels: collect_channels(document, &self.notify)?,
            atocore,
            preset_root,
            sources,
            targets: targets(document, &self.target)?,
            retention: retention(document, self.retention.as_ref())?,
            keep_tags: keep_tags(document, self.retention.as_ref())?.unwrap_or_default(),
            verify_max_age: match self.verify {
                Some(raw) => optional(document, &raw.max_age, value::parse_age)?,
                None => None,
            },
            serve: self.serve.validate(document)?,
            hooks: match &self.hooks {
                Some(raw) => raw.validate(document)?,
                None => Default::default(),
            },
            proof: match &self.proof {
                Some(raw) => Some(raw.validate(document)?),
                None => None,
            },
            pack: pack(document, self.pack)?,
            patience: Patience::default(),
            spool_limit: match self.spool {
                Some(raw) => optional(document, &raw.limit, value::parse_size)?,
                None => None,
            },
        })
    }
}

fn targets(
    document: &ConfigDocument<'_>,
    raw: &[Spanned<RawTarget>],
) -> Result<Vec<TargetConfig>, ConfigError> {
    let mut names = BTreeSet::new();
    raw.iter()
        .map(|target| {
            let raw = target.get_ref();
            let name = raw.name.get_ref();
            if name.is_empty() || !names.insert(name.clone()) {
                let what = format!("target name {name:?} is empty or used twice");
                return Err(document.invalid(&raw.name.span(), what));
            }
            let url = target_url(document, &raw.url)?;
            let text = |value: &Option<Spanned<String>>| {
                value.as_ref().map(|value| value.get_ref().clone())
            };
            check_target(document, raw, &url)?;
            Ok(TargetConfig {
                name: name.clone(),
                url,
                endpoint: text(&raw.endpoint),
                region: text(&raw.region),
                path_style: raw.path_style,
                timeout: optional(document, &raw.timeout, value::parse_duration)?,
                retry: optional(document, &raw.retry, value::parse_duration)?,
                ssh: text(&raw.ssh),
                upload: optional(document, &raw.upload, value::parse_timetable)?,
                download: optional(document, &raw.download, value::parse_timetable)?,
                concurrency: concurrency(document, &raw.concurrency)?,
                write_only: raw.write_only,
                data_class: text(&raw.data_class),
                class: text(&raw.class),
                retention: retention(document, raw.retention.as_ref())?,
                keep_tags: keep_tags(document, raw.retention.as_ref())?,
                prune: raw.prune,
                max_age: optional(document, &raw.max_age, value::parse_age)?,
                patience: Patience::default(),
            })
        })
        .collect()
}

fn concurrency(
    document: &ConfigDocument<'_>,
    raw: &Option<Spanned<usize>>,
) -> Result<Option<usize>, ConfigError> {
    match raw {
        Some(number) if !(1..=256).contains(number.get_ref()) => {
            Err(document.invalid(&number.span(), "concurrency must be between 1 and 256"))
        }
        other => Ok(other.as_ref().map(|number| *number.get_ref())),
    }
}

/// Returns the target's URL. A path is read as `--target` reads it, but relative to the file's
/// directory.
fn target_url(document: &ConfigDocument<'_>, url: &Spanned<String>) -> Result<String, ConfigError> {
    let text = url.get_ref();
    let wrong = |what: String| Err(document.invalid(&url.span(), what));
    if text.contains("://") || storage::folder_path(text).is_none() {
        return Ok(text.clone());
    }
    if !text.contains('/') {
        return wrong(format!(
            "url: {text:?} is not a URL; for a folder beside this file write ./{text}"
        ));
    }
    Ok(document.resolve(text).to_string_lossy().into_owned())
}

/// Checks the settings that depend on the URL's scheme. The error has the line of the wrong key and
/// does not repeat its value, which may contain a password.
fn check_target(
    document: &ConfigDocument<'_>,
    raw: &RawTarget,
    url: &str,
) -> Result<(), ConfigError> {
    let text = |value: &Option<Spanned<String>>| value.as_ref().map(|v| v.get_ref().clone());
    let spec = TargetSpec {
        endpoint: text(&raw.endpoint),
        region: text(&raw.region),
        ssh: text(&raw.ssh),
        data_class: text(&raw.data_class),
        class: text(&raw.class),
        ..TargetSpec::from_url(url)
    };
    if url::Url::parse(url).is_ok_and(|url| url.password().is_some()) {
        let what = "a password in a URL: secrets come from the environment or from files";
        return Err(document.invalid(&raw.url.span(), what));
    }
    if url.starts_with("memory:") {
        let what =
            "url: a target in memory is lost at the end of the run; name a folder or a server";
        return Err(document.invalid(&raw.url.span(), what));
    }
    let Err(fault) = spec.check() else {
        return Ok(());
    };
    const SCHEMES: [&str; 8] = ["s3", "gs", "az", "https", "http", "file", "rsync", "sftp"];
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if let Some(scheme) = scheme.filter(|scheme| !SCHEMES.contains(scheme)) {
        let what = format!(
            "unknown scheme {scheme:?} (known: {}); {fault}",
            SCHEMES.join(", ")
        );
        return Err(document.invalid(&raw.url.span(), what));
    }
    let spanned = match fault.key {
        "endpoint" => &raw.endpoint,
        "region" => &raw.region,
        "ssh" => &raw.ssh,
        "data_class" => &raw.data_class,
        "class" => &raw.class,
        _ => &None,
    };
    let span = spanned.as_ref().map_or(raw.url.span(), Spanned::span);
    Err(document.invalid(&span, fault.to_string()))
}

fn retention(
    document: &ConfigDocument<'_>,
    raw: Option<&Spanned<RawRetention>>,
) -> Result<Option<Retention>, ConfigError> {
    let Some(spanned) = raw else { return Ok(None) };
    let raw = spanned.get_ref();
    let kept = Retention {
        last: raw.last,
        hourly: raw.hourly,
        daily: raw.daily,
        weekly: raw.weekly,
        monthly: raw.monthly,
        yearly: raw.yearly,
        within: optional(document, &raw.within, value::parse_age)?,
    };
    if kept == Retention::default() {
        let what = match raw.keep_tags {
            None => "this retention keeps nothing; remove the section to keep everything",
            Some(_) => {
                "this retention keeps only what has a tag of keep_tags; add a rule such as last = 1, or remove the \
                 section to keep everything"
            }
        };
        return Err(document.invalid(&spanned.span(), what));
    }
    Ok(Some(kept))
}

/// Returns the tags that keep their snapshots. `None`: the table does not say.
fn keep_tags(
    document: &ConfigDocument<'_>,
    raw: Option<&Spanned<RawRetention>>,
) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(tags) = raw.and_then(|raw| raw.get_ref().keep_tags.as_ref()) else {
        return Ok(None);
    };
    if let Some(empty) = tags.iter().find(|tag| tag.get_ref().is_empty()) {
        return Err(document.invalid(&empty.span(), "a tag in keep_tags is empty"));
    }
    Ok(Some(tags.iter().map(|tag| tag.get_ref().clone()).collect()))
}

fn pack(document: &ConfigDocument<'_>, raw: Option<RawPack>) -> Result<PackConfig, ConfigError> {
    let mut pack = PackConfig::default();
    let Some(raw) = raw else { return Ok(pack) };
    let size = |text: &str| {
        let bytes = value::parse_size(text)?;
        let fits = (1 << 20..=4 << 30).contains(&bytes);
        fits.then_some(bytes)
            .ok_or_else(|| "archive_size must be between 1MiB and 4GiB".to_owned())
    };
    if let Some(bytes) = optional(document, &raw.archive_size, size)? {
        pack.archive_bytes = bytes;
    }
    if let Some(level) = raw.level {
        if !(1..=22).contains(level.get_ref()) {
            return Err(document.invalid(&level.span(), "level must be between 1 and 22"));
        }
        pack.level = level.into_inner();
    }
    if let Some(threads) = raw.threads {
        if *threads.get_ref() > 256 {
            return Err(document.invalid(&threads.span(), "threads must be at most 256"));
        }
        pack.threads = Some(threads.into_inner()).filter(|threads| *threads > 0);
    }
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a key that a struct has is unknown to the check, or a table has no keys at all.
    #[test]
    fn the_keys_of_each_table_are_the_fields_of_its_struct() {
        let known = known_keys();
        for (table, keys) in &known.tables {
            assert!(known.top.contains(table), "{table}");
            assert!(!keys.is_empty(), "{table}");
        }
        let keys = |name: &str| {
            known
                .tables
                .iter()
                .find(|(table, _)| *table == name)
                .unwrap()
                .1
        };
        assert_eq!(keys("spool"), ["limit"]);
        assert_eq!(keys("pack"), ["archive_size", "level", "threads"]);
        assert!(keys("source").contains(&"must_exist") && keys("target").contains(&"prune"));
    }
}
