//! `[schedule]`: when the jobs of this host are due, and when a backup is late.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::{ConfigError, near};
use super::value::{self, ValueText, optional};
use super::{AtoCoreSource, Source};
use crate::base::ids::HostName;
use crate::base::similar::nearest;

/// When `verify` runs if the file does not say: Sunday night.
const VERIFY: &str = "30 3 * * 0";
/// The share of the stored bytes that a scheduled `verify` reads if the file does not say.
const VERIFY_SHARE: &str = "2%";
/// The jitter if the file does not say.
const JITTER: Duration = Duration::from_secs(60);
/// The largest jitter.
const MOST_JITTER: Duration = Duration::from_secs(6 * 3600);
/// How often a target that is behind is tried if the file does not say.
const CATCH_UP_TARGETS: Duration = Duration::from_secs(15 * 60);
/// How long a run may take if the file does not say.
const MAX_RUN: Duration = Duration::from_secs(12 * 3600);
/// The value of a job that does not run by itself.
const OFF: &str = "off";

/// A cron line.
#[derive(Debug, Clone)]
pub struct CronLine {
    /// As the file has it.
    pub text: String,
    cron: croner::Cron,
}

impl CronLine {
    /// Parses a line of five fields.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            cron: value::parse_cron(text)?,
            text: text.to_owned(),
        })
    }

    /// Returns the first occurrence after `after` in `zone`. A fixed time that a change of the
    /// zone's offset leaves out comes right after the gap; one that it repeats comes once.
    fn next(&self, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&zone);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc))
    }
}

/// What becomes of the occurrences of a job that no agent was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissedRuns {
    /// One run makes up for all of them.
    #[default]
    Once,
    /// They are left out.
    Skip,
}

/// `[schedule]`.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The time zone of all cron lines.
    pub zone: Tz,
    /// When a backup is due; empty: there is no schedule.
    pub backup: Vec<CronLine>,
    /// A run begins up to this much after its occurrence.
    pub jitter: Duration,
    /// What becomes of missed occurrences.
    pub catch_up: MissedRuns,
    /// How much later than due a backup is late; `None`: that depends on the interval, see
    /// [`Schedule::next_by`].
    pub grace: Option<Duration>,
    /// Sources that are taken on request only, and when a backup takes them.
    pub include: Vec<(String, CronLine)>,
    /// When `verify` runs; `None`: not by itself.
    pub verify: Option<CronLine>,
    /// The share of the stored bytes that it reads, as `verify --data` takes it.
    pub verify_share: String,
    /// When `prune` runs; `None`: not by itself.
    pub prune: Option<CronLine>,
    /// How often a target that is behind is tried between backups.
    pub catch_up_targets: Duration,
    /// How long a run may take; `None`: as long as it wants.
    pub max_run: Option<Duration>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            zone: Tz::UTC,
            backup: Vec::new(),
            jitter: JITTER,
            catch_up: MissedRuns::default(),
            grace: None,
            include: Vec::new(),
            verify: None,
            verify_share: VERIFY_SHARE.to_owned(),
            prune: None,
            catch_up_targets: CATCH_UP_TARGETS,
            max_run: Some(MAX_RUN),
        }
    }
}

impl Schedule {
    /// Returns the first time after `now` at which a backup is due; `None` without a schedule.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.next_of(&self.backup, now)
    }

    /// Returns the first occurrence of `lines` after `after`; `None`: there is none.
    pub fn next_of(&self, lines: &[CronLine], after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = lines.iter().filter_map(|line| line.next(self.zone, after));
        next.min()
    }

    /// Returns the time by which the push after the one at `now` should have arrived: the next due
    /// time and the grace. Without a grace in the file it is a quarter of the time to the due time
    /// after that, at least one hour and at most a day. So a daily backup of 06:00 is late at
    /// 12:00, however long packing and shipping take. `None` without a schedule.
    pub fn next_by(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.next(now)?;
        let grace = match self.grace {
            Some(grace) => chrono::Duration::from_std(grace).ok()?,
            None => {
                let interval = self.next(due)? - due;
                (interval / 4).clamp(chrono::Duration::hours(1), chrono::Duration::days(1))
            }
        };
        due.checked_add_signed(grace)
    }

    /// Returns how long after `occurrence` the run of `host` begins: a time below the jitter, the
    /// same each time that it is asked for.
    pub fn jitter_at(&self, host: &HostName, occurrence: DateTime<Utc>) -> chrono::Duration {
        let mut hasher = blake3::Hasher::new();
        hasher.update(host.as_str().as_bytes());
        hasher.update(&occurrence.timestamp().to_le_bytes());
        let mut drawn = [0; 8];
        hasher.finalize_xof().fill(&mut drawn);
        let drawn = u128::from(u64::from_le_bytes(drawn));
        let share = (drawn * self.jitter.as_millis()) >> 64;
        chrono::Duration::milliseconds(i64::try_from(share).unwrap_or(0))
    }
}

/// One cron line, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawLines {
    One(String),
    Several(Vec<String>),
}

/// `[schedule]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSchedule {
    zone: Option<Spanned<String>>,
    backup: Option<Spanned<RawLines>>,
    jitter: Option<Spanned<ValueText>>,
    catch_up: Option<MissedRuns>,
    grace: Option<Spanned<ValueText>>,
    include: Option<BTreeMap<String, Spanned<String>>>,
    verify: Option<Spanned<String>>,
    verify_share: Option<Spanned<String>>,
    prune: Option<Spanned<String>>,
    catch_up_targets: Option<Spanned<ValueText>>,
    max_run: Option<Spanned<ValueText>>,
}

impl RawSchedule {
    pub(super) fn validate(
        &self,
        document: &ConfigDocument<'_>,
        sources: &[Source],
        atocore: Option<&AtoCoreSource>,
    ) -> Result<Schedule, ConfigError> {
        let defaults = Schedule::default();
        let time =
            |value: &Option<Spanned<ValueText>>| optional(document, value, value::parse_duration);
        let backup = self.backup_lines(document)?;
        let verify = match &self.verify {
            Some(line) => job_line(document, line)?,
            None if backup.is_empty() => None,
            None => CronLine::parse(VERIFY).ok(),
        };
        let catch_up_targets = optional(document, &self.catch_up_targets, pause)?;
        Ok(Schedule {
            zone: self.zone(document)?,
            include: self.include_lines(document, sources, atocore)?,
            jitter: optional(document, &self.jitter, jitter)?.unwrap_or(defaults.jitter),
            catch_up: self.catch_up.unwrap_or_default(),
            grace: time(&self.grace)?,
            verify_share: self.share(document)?.unwrap_or(defaults.verify_share),
            prune: match &self.prune {
                Some(line) => job_line(document, line)?,
                None => None,
            },
            catch_up_targets: catch_up_targets.unwrap_or(defaults.catch_up_targets),
            max_run: match time(&self.max_run)? {
                Some(Duration::ZERO) => None,
                Some(time) => Some(time),
                None => defaults.max_run,
            },
            backup,
            verify,
        })
    }

    fn zone(&self, document: &ConfigDocument<'_>) -> Result<Tz, ConfigError> {
        let Some(zone) = &self.zone else {
            return Ok(Tz::UTC);
        };
        zone.get_ref().parse().map_err(|_| {
            let names: Vec<&str> = TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
            let near = near(nearest(zone.get_ref(), &names));
            let what = format!(
                "zone: {:?} is not a time zone like \"Europe/Berlin\"{near}",
                zone.get_ref()
            );
            document.invalid(&zone.span(), what)
        })
    }

    fn backup_lines(&self, document: &ConfigDocument<'_>) -> Result<Vec<CronLine>, ConfigError> {
        let Some(raw) = &self.backup else {
            return Ok(Vec::new());
        };
        let lines = match raw.get_ref() {
            RawLines::One(line) => std::slice::from_ref(line),
            RawLines::Several(lines) => lines,
        };
        if lines.is_empty() {
            let what = "backup: an empty list; leave the key out for no schedule";
            return Err(document.invalid(&raw.span(), what));
        }
        let lines = lines.iter().map(|line| CronLine::parse(line));
        lines
            .collect::<Result<_, _>>()
            .map_err(|what| document.invalid(&raw.span(), what))
    }

    /// Returns the sources to include with their lines. Each must be one that is taken on request
    /// only.
    fn include_lines(
        &self,
        document: &ConfigDocument<'_>,
        sources: &[Source],
        atocore: Option<&AtoCoreSource>,
    ) -> Result<Vec<(String, CronLine)>, ConfigError> {
        let is_known = |name: &str| {
            let mut all = sources.iter();
            let of_atocore = atocore.is_some() && name == "chroma";
            of_atocore || all.any(|source| source.name == name && source.on_request)
        };
        let lines = self.include.iter().flatten().map(|(name, line)| {
            if !is_known(name) {
                let what = format!(
                    "include: no source {name:?} is taken on request only; set `on_request = true` in its [[source]]"
                );
                return Err(document.invalid(&line.span(), what));
            }
            let parsed = CronLine::parse(line.get_ref());
            let parsed = parsed.map_err(|what| document.invalid(&line.span(), what))?;
            Ok((name.clone(), parsed))
        });
        lines.collect()
    }

    fn share(&self, document: &ConfigDocument<'_>) -> Result<Option<String>, ConfigError> {
        let Some(share) = &self.verify_share else {
            return Ok(None);
        };
        let text = share.get_ref();
        let percent = text.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
        let is_share = percent.is_some_and(|percent| percent > 0.0 && percent <= 100.0);
        if is_share || text == "all" {
            return Ok(Some(text.clone()));
        }
        let what = format!("verify_share: {text:?} is not a share like \"2%\" or \"all\"");
        Err(document.invalid(&share.span(), what))
    }
}

/// Parses a cron line, or `off`.
fn job_line(
    document: &ConfigDocument<'_>,
    line: &Spanned<String>,
) -> Result<Option<CronLine>, ConfigError> {
    if line.get_ref() == OFF {
        return Ok(None);
    }
    let parsed = CronLine::parse(line.get_ref());
    parsed
        .map(Some)
        .map_err(|what| document.invalid(&line.span(), what))
}

fn jitter(text: &str) -> Result<Duration, String> {
    let time = value::parse_duration(text)?;
    match time <= MOST_JITTER {
        true => Ok(time),
        false => Err("jitter must be at most 6h".to_owned()),
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    let time = value::parse_duration(text)?;
    match time >= Duration::from_secs(60) {
        true => Ok(time),
        false => Err("catch_up_targets must be at least 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests;
