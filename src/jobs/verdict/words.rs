//! Times and lists as sentences have them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::base::units;

/// Returns `3 days`, `5 h`; a negative time counts as none.
pub(super) fn span(time: TimeDelta) -> String {
    units::duration(time.to_std().unwrap_or(Duration::ZERO))
}

/// Returns `3 days ago`; a time in the future is `just now`.
pub(super) fn age(time: TimeDelta) -> String {
    match time.to_std() {
        Ok(time) => format!("{} ago", units::duration(time)),
        Err(_) => "just now".to_owned(),
    }
}

/// Returns `every day`, `every 6 h`.
pub(super) fn every(interval: TimeDelta) -> String {
    match interval.num_minutes() {
        1440 => "every day".to_owned(),
        10_080 => "every week".to_owned(),
        60 => "every hour".to_owned(),
        _ => format!("every {}", span(interval)),
    }
}

/// Returns `2026-04-06 08:00 UTC`.
pub(super) fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Returns `s3`, `s3 and laptop`, `s3, laptop and disk`.
pub(super) fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// Returns the first texts, and how many more there are.
pub(super) fn first_of(texts: &[&str], most: usize) -> String {
    let shown = texts[..texts.len().min(most)].join("; ");
    match texts.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
