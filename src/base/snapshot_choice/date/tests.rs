use chrono::{FixedOffset, NaiveDate, NaiveDateTime};
use proptest::prelude::*;

use super::*;

/// Central European time in 2026: summer time from 29 March 02:00 to 25 October 03:00.
#[derive(Debug, Clone, Copy)]
struct CentralEurope;

impl CentralEurope {
    const WINTER: i32 = 3600;
    const SUMMER: i32 = 7200;

    fn seconds_east(utc: &NaiveDateTime) -> i32 {
        let summer =
            "2026-03-29T01:00:00".parse().unwrap()..="2026-10-25T00:59:59".parse().unwrap();
        match summer.contains(utc) {
            true => Self::SUMMER,
            false => Self::WINTER,
        }
    }
}

impl TimeZone for CentralEurope {
    type Offset = FixedOffset;

    fn from_offset(_: &FixedOffset) -> Self {
        Self
    }

    fn offset_from_local_date(&self, date: &NaiveDate) -> MappedLocalTime<FixedOffset> {
        self.offset_from_local_datetime(&date.and_time(NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> MappedLocalTime<FixedOffset> {
        // The offset that is in force first comes first.
        let fitting = |seconds: i32| {
            let utc = *local - Duration::seconds(seconds.into());
            (Self::seconds_east(&utc) == seconds).then(|| FixedOffset::east_opt(seconds).unwrap())
        };
        match (fitting(Self::SUMMER), fitting(Self::WINTER)) {
            (Some(first), Some(last)) => MappedLocalTime::Ambiguous(first, last),
            (Some(only), None) | (None, Some(only)) => MappedLocalTime::Single(only),
            (None, None) => MappedLocalTime::None,
        }
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> FixedOffset {
        self.offset_from_utc_datetime(&utc.and_time(NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> FixedOffset {
        FixedOffset::east_opt(Self::seconds_east(utc)).unwrap()
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn span(text: &str, now: &str) -> TimeSpan {
    let now = utc(now).with_timezone(&CentralEurope);
    parse(text, &now).unwrap().unwrap()
}

#[test]
fn a_day_is_the_local_day() {
    let now = "2026-11-30T10:00:00Z";
    for (text, begin, until) in [
        ("2026-11-29", "2026-11-28T23:00:00Z", "2026-11-29T23:00:00Z"),
        ("today", "2026-11-29T23:00:00Z", "2026-11-30T23:00:00Z"),
        ("Yesterday", "2026-11-28T23:00:00Z", "2026-11-29T23:00:00Z"),
        // 23 and 25 hours.
        ("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
    ] {
        let found = span(text, now);
        assert!(found.is_day, "{text}");
        assert_eq!(
            (found.begin, found.until),
            (utc(begin), utc(until)),
            "{text}"
        );
    }
    // After midnight here, and before it in UTC, it is the next day already.
    let late = span("today", "2026-11-29T23:30:00Z");
    assert_eq!(late.begin, utc("2026-11-29T23:00:00Z"));
}

#[test]
fn a_time_means_at_or_before() {
    let now = "2026-11-30T10:00:30Z";
    for (text, last) in [
        ("2026-11-29 18:00", "2026-11-29T17:00:59Z"),
        ("2026-11-29T18:00", "2026-11-29T17:00:59Z"),
        ("2026-11-29 18:00:05", "2026-11-29T17:00:05Z"),
        ("2026-11-29 18:00Z", "2026-11-29T18:00:59Z"),
        ("2026-11-29T18:00:05Z", "2026-11-29T18:00:05Z"),
        ("2026-11-29T18:00:05+01:00", "2026-11-29T17:00:05Z"),
        ("2026-11-29 18:00 -0500", "2026-11-29T23:00:59Z"),
        ("6 hours ago", "2026-11-30T04:00:30Z"),
        ("an hour ago", "2026-11-30T09:00:30Z"),
        ("90 minutes ago", "2026-11-30T08:30:30Z"),
        ("3 days ago", "2026-11-27T10:00:30Z"),
        ("2 weeks ago", "2026-11-16T10:00:30Z"),
        // At the same time of the day, though in summer time.
        ("40 days ago", "2026-10-21T09:00:30Z"),
        ("1 month ago", "2026-10-30T10:00:30Z"),
        ("a year ago", "2025-11-30T10:00:30Z"),
        // The clocks skipped 02:30, and showed 02:30 twice.
        ("2026-03-29 02:30", "2026-03-29T01:30:59Z"),
        ("2026-10-25 02:30", "2026-10-25T01:30:59Z"),
    ] {
        let (found, last) = (span(text, now), utc(last));
        assert!(!found.is_day, "{text}");
        assert!(found.contains(last), "{text}: {found:?}");
        assert!(found.contains(utc("1999-01-01T00:00:00Z")), "{text}");
        assert!(!found.contains(last + SECOND), "{text}: {found:?}");
    }
}

#[test]
fn what_is_no_date_is_not_read_as_one() {
    let now = utc("2026-11-30T10:00:00Z");
    for text in [
        "latest",
        "42",
        "20261129T180000Z",
        "0123456789abcdef",
        "",
        "2026-11",
        "ago-1",
    ] {
        assert_eq!(parse(text, &now), Ok(None), "{text}");
    }
    for text in [
        "2026-02-29",
        "2026-13-01",
        "2026-11-29 24:00",
        "2026-11-29 18",
        "2026-11-29 1:00",
    ] {
        let wrong = BadDate::Impossible(text.to_owned());
        assert_eq!(parse(text, &now), Err(wrong), "{text}");
    }
    for text in [
        "ago",
        "three days ago",
        "3 ago",
        "3 fortnights ago",
        "-3 days ago",
        "3 4 days ago",
    ] {
        assert_eq!(
            parse(text, &now),
            Err(BadDate::Ago(text.to_owned())),
            "{text}"
        );
    }
    for text in ["4000000000 years ago", "4294967295 weeks ago"] {
        assert_eq!(
            parse(text, &now),
            Err(BadDate::TooFar(text.to_owned())),
            "{text}"
        );
    }
}

fn some_time() -> impl Strategy<Value = DateTime<Utc>> {
    (0i64..250_000_000_000).prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap())
}

fn some_zone() -> impl Strategy<Value = FixedOffset> {
    (-14 * 60..=14 * 60).prop_map(|minutes| FixedOffset::east_opt(minutes * 60).unwrap())
}

proptest! {
    /// Each moment belongs to exactly one day: the one that a clock there shows.
    #[test]
    fn a_day_has_exactly_the_moments_that_clocks_show_on_it(
        time in some_time(), zone in some_zone(), apart in -2i64..=2,
    ) {
        let local = time.with_timezone(&zone);
        let other = local.date_naive() + Days::new(4) - Days::new((4 - apart) as u64);
        let found = parse(&other.format("%Y-%m-%d").to_string(), &local).unwrap().unwrap();
        prop_assert_eq!(found.contains(time), apart == 0);
    }

    /// What a list shows in minutes chooses the snapshot that it stands beside.
    #[test]
    fn the_minute_of_a_moment_includes_it(time in some_time(), zone in some_zone()) {
        let local = time.with_timezone(&zone);
        let found = parse(&local.format("%Y-%m-%d %H:%M").to_string(), &local).unwrap().unwrap();
        prop_assert!(found.contains(time) && !found.contains(time + Duration::minutes(1)));
    }

    #[test]
    fn more_units_ago_is_never_later(
        time in some_time(), zone in some_zone(), number in 0u32..500, unit in 0usize..6,
    ) {
        let unit = ["seconds", "minutes", "hours", "days", "weeks", "months"][unit];
        let now = time.with_timezone(&zone);
        let ago = |number: u32| parse(&format!("{number} {unit} ago"), &now).unwrap().unwrap();
        prop_assert!(ago(0).contains(time));
        prop_assert!(ago(number + 1).until < ago(number).until);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*", time in some_time(), zone in some_zone()) {
        let now = time.with_timezone(&zone);
        let _ = parse(&text, &now);
        let _ = parse(&format!("{text} ago"), &now);
        let _ = parse(&format!("2026-11-29 {text}"), &now);
    }
}
