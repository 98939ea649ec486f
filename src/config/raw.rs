//! The file's shape, and its validation table by table.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::check::Place;
use super::source::{RawSource, collect_sources};
use super::{Config, ConfigError, PackConfig, Recipient, Retention, Schedule, TargetConfig, value};
use crate::storage::{self, TargetSpec};

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
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSnapshots {
    dir: Option<String>,
    pub preset: Option<Spanned<String>>,
    pub root: Option<String>,
    #[serde(default)]
    pub include_chroma: bool,
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
    timeout: Option<Spanned<Text>>,
    retry: Option<Spanned<Text>>,
    ssh: Option<Spanned<String>>,
    upload: Option<Spanned<Text>>,
    download: Option<Spanned<Text>>,
    concurrency: Option<Spanned<usize>>,
    #[serde(default)]
    write_only: bool,
    data_class: Option<Spanned<String>>,
    class: Option<Spanned<String>>,
    retention: Option<Spanned<RawRetention>>,
    #[serde(default)]
    prune: bool,
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
    within: Option<Spanned<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchedule {
    backup: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPack {
    archive_size: Option<Spanned<Text>>,
    level: Option<Spanned<i32>>,
    threads: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpool {
    limit: Option<Spanned<Text>>,
}

/// A value with a unit, or a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Words(String),
    Number(u64),
}

impl Text {
    fn text(&self) -> String {
        match self {
            Self::Words(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Parses an optional spanned text, complaining at its line.
pub(super) fn optional<T>(
    place: &Place<'_>,
    value: &Option<Spanned<Text>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let parsed = parse(&value.get_ref().text());
    parsed
        .map(Some)
        .map_err(|what| place.invalid(&value.span(), what))
}

impl RawConfig {
    pub fn validate(self, place: &Place<'_>) -> Result<Config, ConfigError> {
        let host = self.host.get_ref().parse();
        let host = host.map_err(|e: crate::base::ids::InvalidId| {
            place.invalid(&self.host.span(), e.to_string())
        })?;
        if self.recipients.get_ref().is_empty() {
            let what = "no recipients: without one nothing can be sealed";
            return Err(place.invalid(&self.recipients.span(), what));
        }
        let recipients = self.recipients.get_ref().iter();
        let recipients = recipients
            .map(|text| Recipient::validate(text.get_ref(), &text.span(), place))
            .collect::<Result<_, _>>()?;
        let state = place.resolve(&self.state);
        let snapshots_dir = self.snapshots.dir.as_deref();
        Ok(Config {
            file: place.file.to_owned(),
            host,
            recipients,
            signer: place.resolve(&self.signer),
            next_signer: self.next_signer.as_deref().map(|path| place.resolve(path)),
            snapshots_dir: snapshots_dir
                .map_or_else(|| state.join("snapshots"), |dir| place.resolve(dir)),
            state,
            sources: collect_sources(place, &self.snapshots, &self.source)?,
            targets: targets(place, &self.target)?,
            retention: retention(place, self.retention.as_ref())?,
            schedule: schedule(place, self.schedule)?,
            pack: pack(place, self.pack)?,
            spool_limit: match self.spool {
                Some(raw) => optional(place, &raw.limit, value::parse_size)?,
                None => None,
            },
        })
    }
}

fn targets(
    place: &Place<'_>,
    raw: &[Spanned<RawTarget>],
) -> Result<Vec<TargetConfig>, ConfigError> {
    let mut names = BTreeSet::new();
    raw.iter()
        .map(|target| {
            let raw = target.get_ref();
            let name = raw.name.get_ref();
            if name.is_empty() || !names.insert(name.clone()) {
                let what = format!("target name {name:?} is empty or used twice");
                return Err(place.invalid(&raw.name.span(), what));
            }
            let url = target_url(place, &raw.url)?;
            let text = |value: &Option<Spanned<String>>| {
                value.as_ref().map(|value| value.get_ref().clone())
            };
            check_target(place, raw, &url)?;
            Ok(TargetConfig {
                name: name.clone(),
                url,
                endpoint: text(&raw.endpoint),
                region: text(&raw.region),
                path_style: raw.path_style,
                timeout: optional(place, &raw.timeout, value::parse_duration)?,
                retry: optional(place, &raw.retry, value::parse_duration)?,
                ssh: text(&raw.ssh),
                upload: optional(place, &raw.upload, value::parse_timetable)?,
                download: optional(place, &raw.download, value::parse_timetable)?,
                concurrency: concurrency(place, &raw.concurrency)?,
                write_only: raw.write_only,
                data_class: text(&raw.data_class),
                class: text(&raw.class),
                retention: retention(place, raw.retention.as_ref())?,
                prune: raw.prune,
            })
        })
        .collect()
}

fn concurrency(
    place: &Place<'_>,
    raw: &Option<Spanned<usize>>,
) -> Result<Option<usize>, ConfigError> {
    match raw {
        Some(number) if !(1..=256).contains(number.get_ref()) => {
            Err(place.invalid(&number.span(), "concurrency must be between 1 and 256"))
        }
        other => Ok(other.as_ref().map(|number| *number.get_ref())),
    }
}

/// The target's URL. A path is taken as `--target` takes it, but from the file's directory.
fn target_url(place: &Place<'_>, url: &Spanned<String>) -> Result<String, ConfigError> {
    let text = url.get_ref();
    let wrong = |what: String| Err(place.invalid(&url.span(), what));
    if text.contains("://") || storage::folder_path(text).is_none() {
        return Ok(text.clone());
    }
    if !text.contains('/') {
        return wrong(format!(
            "url: {text:?} is no URL; for a folder beside this file write ./{text}"
        ));
    }
    Ok(place.resolve(text).to_string_lossy().into_owned())
}

/// Complains at the line of the key that is at fault. Values are not repeated: they may hold a password.
fn check_target(place: &Place<'_>, raw: &RawTarget, url: &str) -> Result<(), ConfigError> {
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
        return Err(place.invalid(&raw.url.span(), what));
    }
    if url.starts_with("memory:") {
        let what = "url: what is in memory is gone with the run; name a place";
        return Err(place.invalid(&raw.url.span(), what));
    }
    let Err(fault) = spec.check() else {
        return Ok(());
    };
    const SCHEMES: [&str; 8] = ["s3", "gs", "az", "https", "http", "file", "rsync", "sftp"];
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if let Some(scheme) = scheme.filter(|scheme| !SCHEMES.contains(scheme)) {
        let what = format!(
            "scheme {scheme:?} is none of {}; {fault}",
            SCHEMES.join(", ")
        );
        return Err(place.invalid(&raw.url.span(), what));
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
    Err(place.invalid(&span, fault.to_string()))
}

fn retention(
    place: &Place<'_>,
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
        within: optional(place, &raw.within, value::parse_age)?,
    };
    if kept == Retention::default() {
        let what = "retention that keeps nothing; leave the section out to keep everything";
        return Err(place.invalid(&spanned.span(), what));
    }
    Ok(Some(kept))
}

fn schedule(place: &Place<'_>, raw: Option<RawSchedule>) -> Result<Schedule, ConfigError> {
    let Some(line) = raw.and_then(|raw| raw.backup) else {
        return Ok(Schedule::default());
    };
    let cron = value::parse_cron(line.get_ref());
    Ok(Schedule {
        backup: Some(cron.map_err(|what| place.invalid(&line.span(), what))?),
    })
}

fn pack(place: &Place<'_>, raw: Option<RawPack>) -> Result<PackConfig, ConfigError> {
    let mut pack = PackConfig::default();
    let Some(raw) = raw else { return Ok(pack) };
    let size = |text: &str| {
        let bytes = value::parse_size(text)?;
        let fits = (1 << 20..=4 << 30).contains(&bytes);
        fits.then_some(bytes)
            .ok_or_else(|| "archive_size must be between 1MiB and 4GiB".to_owned())
    };
    if let Some(bytes) = optional(place, &raw.archive_size, size)? {
        pack.archive_bytes = bytes;
    }
    if let Some(level) = raw.level {
        if !(1..=22).contains(level.get_ref()) {
            return Err(place.invalid(&level.span(), "level must be between 1 and 22"));
        }
        pack.level = level.into_inner();
    }
    if let Some(threads) = raw.threads {
        if *threads.get_ref() > 256 {
            return Err(place.invalid(&threads.span(), "threads must be at most 256"));
        }
        pack.threads = Some(threads.into_inner()).filter(|threads| *threads > 0);
    }
    Ok(pack)
}
