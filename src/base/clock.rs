//! The only place that reads the clock.
//!
//! `SEALIFT_CLOCK` overrides the clock. The program calls [`check`] once before anything else: a
//! value that is not a time is an error and never ignored. A valid value is reported in each run,
//! since it may be a leftover of a drill.

use std::time::SystemTime;

use chrono::{DateTime, Timelike as _, Utc};

use crate::base::ids::{InvalidId, Stamp};

/// Overrides the clock, for tests and drills: an RFC 3339 time.
pub const CLOCK_VARIABLE: &str = "SEALIFT_CLOCK";

/// Why no snapshot can be stamped.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The variable holds something else than a time.
    #[error(
        "{CLOCK_VARIABLE} is {text:?}, which is not a time like 2026-04-07T06:00:00Z: unset it, or set it to one"
    )]
    Unreadable {
        /// The variable's value.
        text: String,
    },
    /// The variable holds a time that no stamp can express.
    #[error(
        "{CLOCK_VARIABLE} is out of range: unset it, or set it to a time like 2026-04-07T06:00:00Z"
    )]
    Variable(#[source] InvalidId),
    /// The machine's clock shows a time that no stamp can express.
    #[error("the clock of this machine is wrong: set it right")]
    System(#[source] InvalidId),
}

/// Returns the time that `SEALIFT_CLOCK` sets; `None` if the variable is not set. Fails if no
/// snapshot could be stamped with the time that the variable or the clock shows.
pub fn check() -> Result<Option<DateTime<Utc>>, ClockError> {
    let Some(value) = std::env::var_os(CLOCK_VARIABLE) else {
        Stamp::at(system()).map_err(ClockError::System)?;
        return Ok(None);
    };
    let text = value.to_string_lossy().into_owned();
    let time = parse(&text).ok_or(ClockError::Unreadable { text })?;
    Stamp::at(time).map_err(ClockError::Variable)?;
    Ok(Some(time))
}

/// Returns the time now, in UTC.
pub fn now() -> DateTime<Utc> {
    let set = std::env::var(CLOCK_VARIABLE).ok();
    set.and_then(|text| parse(&text)).unwrap_or_else(system)
}

/// Reads the machine's clock. (`Utc::now` would panic if it is before 1970.)
fn system() -> DateTime<Utc> {
    of_files().into()
}

/// Returns the machine's own time, which files get: `SEALIFT_CLOCK` does not change it. Only for
/// comparisons with times of files.
#[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
pub(crate) fn of_files() -> SystemTime {
    SystemTime::now()
}

/// Returns [`of_files`] in nanoseconds since 1970; 0 before 1970.
pub(crate) fn of_files_ns() -> i128 {
    let since = of_files().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| time.as_nanos() as i128)
}

/// Returns `time` without its fraction of a second, as reports show it.
pub(crate) fn in_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    time.with_nanosecond(0).unwrap_or(time)
}

/// Parses a time that Sealift recorded, in whole seconds.
pub(crate) fn recorded(text: &str) -> Option<DateTime<Utc>> {
    parse(text).map(in_seconds)
}

/// Parses an RFC 3339 time. A leap second becomes the second before it: not every reader accepts a
/// `:60`.
fn parse(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    time.with_nanosecond(time.nanosecond() % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_second_is_the_second_before_it() {
        let time = parse("2026-12-31T23:59:60Z").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-12-31T23:59:59+00:00");
        assert_eq!(parse("2026-12-31"), None);
        assert_eq!(parse("yesterday"), None);
    }
}
