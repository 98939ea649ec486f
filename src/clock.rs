//! The one place that asks what time it is.

use chrono::{DateTime, Utc};

/// Overrides the clock, for tests and drills: an RFC 3339 time.
pub const CLOCK_VARIABLE: &str = "SEALIFT_CLOCK";

/// Now, in UTC.
pub fn now() -> DateTime<Utc> {
    std::env::var(CLOCK_VARIABLE)
        .ok()
        .and_then(|text| DateTime::parse_from_rfc3339(&text).ok())
        .map_or_else(Utc::now, |time| time.with_timezone(&Utc))
}
