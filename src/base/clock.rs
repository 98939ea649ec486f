//! The only place that reads the clock.
//!
//! `SEALIFT_CLOCK` overrides the clock. The program calls [`check`] once before anything else: a
//! value that is not a time is an error and never ignored. A valid value is reported in each run,
//! since it may be a leftover of a drill.
//!
//! The variable has one of these forms:
//!
//! - `TIME`: the clock shows this time and does not go on.
//! - `TIME@RATE`: it shows this time when the process first reads it, and runs RATE times as fast
//!   as the machine's own clock.
//! - `TIME@RATE@SECONDS`: it showed this time so long after the machine started. The agent passes
//!   this form to its children, so that all of them have the same clock.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Timelike as _, Utc};
use rustix::time::{ClockId, clock_gettime};

use crate::base::ids::{InvalidId, Stamp};

/// Overrides the clock, for tests and drills: an RFC 3339 time, and how fast it runs from there.
pub const CLOCK_VARIABLE: &str = "SEALIFT_CLOCK";
/// The fastest clock, and one day in a tenth of a second.
const FASTEST: f64 = 1_000_000.0;

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

/// What the variable sets.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SetClock {
    time: DateTime<Utc>,
    /// How many times as fast as the machine's clock it runs. `None`: it does not go on.
    rate: Option<f64>,
    /// When it showed `time`, in time since the machine started. `None`: at the first reading.
    anchor: Option<Duration>,
}

impl SetClock {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('@');
        let time = parse(parts.next()?)?;
        let rate = parts.next().map(|rate| rate.parse::<f64>().ok());
        let anchor = parts.next().map(|at| at.parse::<f64>().ok());
        let is_rate = |rate: &f64| *rate > 0.0 && *rate <= FASTEST;
        let rate = match rate {
            Some(rate) => Some(rate.filter(is_rate)?),
            None => None,
        };
        let anchor = match anchor {
            Some(at) => Some(Duration::try_from_secs_f64(at?).ok()?),
            None => None,
        };
        let is_whole = parts.next().is_none();
        is_whole.then_some(Self { time, rate, anchor })
    }

    fn now(&self) -> DateTime<Utc> {
        let Some(rate) = self.rate else {
            return self.time;
        };
        let passed = since_boot().saturating_sub(self.anchor());
        let shown = Duration::try_from_secs_f64(passed.as_secs_f64() * rate);
        let shown = shown
            .ok()
            .and_then(|it| chrono::Duration::from_std(it).ok());
        let time = shown.and_then(|shown| self.time.checked_add_signed(shown));
        time.unwrap_or(self.time)
    }

    fn anchor(&self) -> Duration {
        static FIRST_READ: OnceLock<Duration> = OnceLock::new();
        self.anchor
            .unwrap_or_else(|| *FIRST_READ.get_or_init(since_boot))
    }
}

/// Returns what the variable sets; `None`: it is not set, or is no time.
fn set_clock() -> Option<SetClock> {
    let text = std::env::var(CLOCK_VARIABLE).ok()?;
    SetClock::parse(&text)
}

/// Returns the time that `SEALIFT_CLOCK` sets; `None` if the variable is not set. Fails if no
/// snapshot could be stamped with the time that the variable or the clock shows.
pub fn check() -> Result<Option<DateTime<Utc>>, ClockError> {
    let Some(value) = std::env::var_os(CLOCK_VARIABLE) else {
        Stamp::at(system()).map_err(ClockError::System)?;
        return Ok(None);
    };
    let text = value.to_string_lossy().into_owned();
    let set = SetClock::parse(&text).ok_or(ClockError::Unreadable { text })?;
    let time = set.now();
    Stamp::at(time).map_err(ClockError::Variable)?;
    Ok(Some(time))
}

/// Returns the time now, in UTC.
pub fn now() -> DateTime<Utc> {
    set_clock().map_or_else(system, |set| set.now())
}

/// Returns how many times as fast as the machine's own the clock runs. A clock that does not go on
/// counts as the machine's.
pub fn rate() -> f64 {
    set_clock().and_then(|set| set.rate).unwrap_or(1.0)
}

/// Returns the time that passes on the machine while the clock goes on by `time`.
pub fn real_time(time: Duration) -> Duration {
    time.div_f64(rate().max(f64::MIN_POSITIVE))
}

/// Returns the value of `SEALIFT_CLOCK` with which another process has the same clock. `None`: it
/// has it without.
pub fn value_for_children() -> Option<String> {
    let set = set_clock()?;
    let rate = set.rate?;
    let time = set.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let anchor = set.anchor().as_secs_f64();
    Some(format!("{time}@{rate}@{anchor:.6}"))
}

/// Returns the time since the machine started, sleep included.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
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

    #[test]
    fn a_clock_runs_from_its_anchor_at_its_rate() {
        let time = "2026-04-01T00:00:00Z";
        let fixed = SetClock::parse(time).unwrap();
        assert_eq!((fixed.rate, fixed.now()), (None, parse(time).unwrap()));
        let anchor = since_boot().saturating_sub(Duration::from_secs(10));
        let text = format!("{time}@168@{:.6}", anchor.as_secs_f64());
        let running = SetClock::parse(&text).unwrap();
        let shown = (running.now() - fixed.time).num_milliseconds();
        assert!((1_680_000..1_680_000 + 168_000).contains(&shown), "{shown}");
        for wrong in [
            "@168", "@0", "@-1", "@x", "@1@y", "@1@2@3", "@NaN", "@inf", "@1e9",
        ] {
            let text = match wrong {
                "@168" => wrong.to_owned(),
                wrong => format!("{time}{wrong}"),
            };
            assert_eq!(SetClock::parse(&text), None, "{text}");
        }
    }
}
