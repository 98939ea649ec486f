//! Small values with a unit: sizes, durations, owners, modes.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::ConfigError;
use crate::base::rate_schedule::Timetable;

/// A value with a unit, or a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum ValueText {
    /// With a unit.
    Words(String),
    /// Without one.
    Number(u64),
}

impl ValueText {
    fn text(&self) -> String {
        match self {
            Self::Words(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Parses an optional value with `parse`, whose error is reported with the value's line.
pub(super) fn optional<T>(
    document: &ConfigDocument<'_>,
    value: &Option<Spanned<ValueText>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let parsed = parse(&value.get_ref().text());
    parsed
        .map(Some)
        .map_err(|what| document.invalid(&value.span(), what))
}

/// Parses the number of snapshots that stay on this host, at least 1; `None`: `all`.
pub(super) fn parse_keep(text: &str) -> Result<Option<u32>, String> {
    if text == "all" {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    let wrong = || format!("keep = {text:?} is neither a number from 1 nor \"all\"");
    number.map(Some).ok_or_else(wrong)
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
    ("", 1),
];
const TIME_UNITS: &[(&str, u64)] = &[
    ("s", 1),
    ("m", 60),
    ("min", 60),
    ("h", 3600),
    ("d", 86_400),
    ("", 1),
];

/// Parses a number and its unit; `None` if the unit is not one of `units` or the product is too
/// large.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Parses a size such as `64MiB`, `1 GB` or `4096` into bytes; a bare `M` is 1024², as for dd.
pub fn parse_size(text: &str) -> Result<u64, String> {
    with_unit(text, SIZE_UNITS).ok_or_else(|| format!("{text:?} is not a size like \"64MiB\""))
}

/// Longest age, in seconds: more than a century has no use, and the calendar cannot express the
/// largest numbers.
const MOST_SECONDS: u64 = 100 * 366 * 86_400;

/// Parses a duration such as `90s`, `10m`, `1h`, `2d` or a bare number of seconds; at most a year.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = with_unit(text, TIME_UNITS)
        .ok_or_else(|| format!("{text:?} is not a duration like \"30s\" or \"1h\""))?;
    match seconds {
        0..=31_622_400 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is longer than a year")),
    }
}

/// The units of retention's ages. `m` is missing on purpose: it could mean months or minutes. A
/// month and a year have the length of the longest ones, so that nothing is deleted too early.
const AGE_UNITS: &[(&str, u64)] = &[
    ("h", 3600),
    ("hour", 3600),
    ("hours", 3600),
    ("d", 86_400),
    ("day", 86_400),
    ("days", 86_400),
    ("w", 7 * 86_400),
    ("week", 7 * 86_400),
    ("weeks", 7 * 86_400),
    ("mo", 31 * 86_400),
    ("month", 31 * 86_400),
    ("months", 31 * 86_400),
    ("y", 366 * 86_400),
    ("year", 366 * 86_400),
    ("years", 366 * 86_400),
];

/// Parses an age of one hour or more with its unit, such as `2d`, `3 weeks`, `6mo`.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let age = with_unit(text, AGE_UNITS);
    if age.is_some_and(|seconds| seconds > MOST_SECONDS) {
        return Err(format!(
            "{text:?} is longer than a century; omit it to keep everything"
        ));
    }
    let age = age.filter(|seconds| *seconds >= 3600);
    age.map(Duration::from_secs).ok_or_else(|| {
        format!(
            "{text:?} is not an age like \"2d\": a number and a unit (h, d, w, mo, y), one hour or more"
        )
    })
}

/// Parses numeric ids `uid:gid`; not names, since a snapshot must not depend on those of this
/// machine.
pub(super) fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not an owner like \"1000:1000\""))
}

/// Parses permission bits in octal.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is not a mode like \"0600\""))
}

/// Parses a rate such as `2MB` (per second), or a timetable such as `08:00 2MB, 18:00 off`.
pub(crate) fn parse_timetable(text: &str) -> Result<Timetable, String> {
    Timetable::parse(text, parse_size)
}

/// Parses a cron line of five fields. A line whose time never comes is an error.
pub fn parse_cron(text: &str) -> Result<croner::Cron, String> {
    let cron = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Disallowed)
        .build()
        .parse(text)
        .map_err(|e| format!("{text:?} is not a cron line like \"0 6 * * *\": {e}"))?;
    // `0 , * * *` has no hour, the 31st of February no day.
    match cron.find_next_occurrence(&chrono::DateTime::UNIX_EPOCH, false) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!(
            "{text:?} is a cron line whose time never comes: write one like \"0 6 * * *\""
        )),
    }
}
