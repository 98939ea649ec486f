//! Times as people at this machine read them: in the zone that `TZ` or the system sets.

use chrono::{DateTime, Local, Offset as _, Utc};

/// Returns the local time now.
pub(crate) fn now() -> DateTime<Local> {
    super::clock::now().with_timezone(&Local)
}

/// Returns `2026-11-29 18:00`, local time.
pub(crate) fn minute(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local)
        .format("%Y-%m-%d %H:%M")
        .to_string()
}

/// Returns the local zone's distance from UTC at `time`, such as `+01:00`.
pub(crate) fn offset(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%:z").to_string()
}

/// Returns whether local time is UTC at `time`.
pub(crate) fn is_utc(time: DateTime<Utc>) -> bool {
    let offset = time.with_timezone(&Local).offset().fix();
    offset.local_minus_utc() == 0
}
