//! Dates and times as people write them: `2026-11-29`, `2026-11-29 18:00`, `yesterday`,
//! `3 days ago`.
//!
//! Without a zone they are in the zone of `now`. A local time that the clocks skipped is read as if
//! they had not been set yet; of one that occurred twice, the later counts.

use chrono::{
    DateTime, Days, Duration, FixedOffset, MappedLocalTime, Months, NaiveDate, NaiveDateTime,
    NaiveTime, Offset as _, TimeZone, Utc,
};

/// A text that reads like a date or a time and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDate {
    /// There is no such day or time.
    #[error("{0:?} is not a date or a time that exists")]
    Impossible(String),
    /// The words before `ago` are no number and unit.
    #[error(
        "{0:?} is not understood; write it as in \"3 days ago\", \"2 weeks ago\", \"6 hours ago\""
    )]
    Ago(String),
    /// It is beyond the years that a calendar has.
    #[error("{0:?} is too far away")]
    TooFar(String),
}

/// The times of the snapshots that a date means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan {
    /// The time that the text names, or the begin of the day that it names.
    pub begin: DateTime<Utc>,
    /// The second after the last one.
    pub until: DateTime<Utc>,
    /// Whether the text names a day, whose snapshots are not before it. A time means "at or
    /// before".
    pub is_day: bool,
    /// Whether the text was read in the local zone. Otherwise it names its own.
    pub is_local: bool,
}

impl TimeSpan {
    /// Returns whether `time` is in the span.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        (!self.is_day || self.begin <= time) && time < self.until
    }

    fn of_time(begin: DateTime<Utc>, length: Duration) -> Option<Self> {
        Some(Self {
            begin,
            until: begin.checked_add_signed(length)?,
            is_day: false,
            is_local: true,
        })
    }
}

/// Reads `text` as a date or a time relative to `now`. `None`: it does not read like one.
///
/// A day means its own snapshots. A time means those at or before it: one without seconds includes
/// its whole minute, as lists show minutes.
pub fn parse<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<Option<TimeSpan>, BadDate> {
    let words = text.trim().to_ascii_lowercase();
    let today = now.naive_local().date();
    let zone = now.timezone();
    let too_far = || BadDate::TooFar(text.to_owned());
    match words.as_str() {
        "today" => return day(today, &zone).map(Some).ok_or_else(too_far),
        "yesterday" => {
            let day_before = today.pred_opt().and_then(|date| day(date, &zone));
            return day_before.map(Some).ok_or_else(too_far);
        }
        _ => {}
    }
    if let Some(amount) = words.strip_suffix("ago")
        && amount.is_empty() | amount.ends_with(' ')
    {
        let (number, unit) = amount_of(amount).ok_or_else(|| BadDate::Ago(text.to_owned()))?;
        let time = back(now, number, unit).and_then(whole_second);
        let span = time.and_then(|time| TimeSpan::of_time(time, SECOND));
        return span.map(Some).ok_or_else(too_far);
    }
    if !reads_like_a_date(&words) {
        return Ok(None);
    }
    let impossible = || BadDate::Impossible(text.to_owned());
    let (date, rest) = words.split_at(10);
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(|_| impossible())?;
    if rest.is_empty() {
        return day(date, &zone).map(Some).ok_or_else(too_far);
    }
    let (time, offset) = split_offset(&rest[1..]).ok_or_else(impossible)?;
    let (time, length) = clock_time(time).ok_or_else(impossible)?;
    let local = date.and_time(time);
    let begin = match offset {
        Some(offset) => at(local, &offset),
        None => at(local, &zone),
    };
    let span = begin.and_then(|begin| TimeSpan::of_time(begin, length));
    let mut span = span.ok_or_else(too_far)?;
    span.is_local = offset.is_none();
    Ok(Some(span))
}

const SECOND: Duration = Duration::seconds(1);

/// Whether `text` begins with `2026-11-29`, alone or before a space or a `t`.
fn reads_like_a_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(shape)
        && matches!(bytes.get(10), None | Some(b' ' | b't'))
}

/// Separates a time from the `z` or `+01:00` behind it. `None`: what is behind it is no offset.
fn split_offset(text: &str) -> Option<(&str, Option<FixedOffset>)> {
    if let Some(time) = text.strip_suffix('z') {
        return Some((time.trim_end(), Some(Utc.fix())));
    }
    let Some(at) = text.find(['+', '-']) else {
        return Some((text, None));
    };
    let offset = text[at..].parse().ok()?;
    Some((text[..at].trim_end(), Some(offset)))
}

/// Parses `18:00` or `18:00:05`. Returns the time and the length of what it names.
fn clock_time(text: &str) -> Option<(NaiveTime, Duration)> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b':');
    match (is_plain, text.len()) {
        (true, 5) => {
            let time = NaiveTime::parse_from_str(text, "%H:%M").ok()?;
            Some((time, Duration::minutes(1)))
        }
        (true, 8) => {
            // A leap second parses, and is the second before it.
            let time = NaiveTime::parse_from_str(text, "%H:%M:%S").ok()?;
            Some((time, SECOND))
        }
        _ => None,
    }
}

/// A unit of what is before `ago`.
#[derive(Clone, Copy)]
enum AgoUnit {
    Seconds(u32),
    /// By the calendar: at the same time of the day.
    Days(u32),
    Months(u32),
}

fn amount_of(text: &str) -> Option<(u32, AgoUnit)> {
    let mut words = text.split_whitespace();
    let (number, unit, None) = (words.next()?, words.next()?, words.next()) else {
        return None;
    };
    let number = match number {
        "a" | "an" | "one" => 1,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    let unit = match unit.strip_suffix('s').unwrap_or(unit) {
        "second" | "sec" => AgoUnit::Seconds(1),
        "minute" | "min" => AgoUnit::Seconds(60),
        "hour" => AgoUnit::Seconds(3600),
        "day" => AgoUnit::Days(1),
        "week" => AgoUnit::Days(7),
        "month" => AgoUnit::Months(1),
        "year" => AgoUnit::Months(12),
        _ => return None,
    };
    Some((number, unit))
}

/// Returns the time `number` units before `now`.
fn back<Z: TimeZone>(now: &DateTime<Z>, number: u32, unit: AgoUnit) -> Option<DateTime<Utc>> {
    let local = now.naive_local();
    let earlier = match unit {
        AgoUnit::Seconds(each) => {
            let seconds = i64::from(number).checked_mul(i64::from(each))?;
            return now.to_utc().checked_sub_signed(Duration::seconds(seconds));
        }
        AgoUnit::Days(each) => {
            let days = u64::from(number).checked_mul(u64::from(each))?;
            local.checked_sub_days(Days::new(days))?
        }
        AgoUnit::Months(each) => {
            local.checked_sub_months(Months::new(number.checked_mul(each)?))?
        }
    };
    at(earlier, &now.timezone())
}

fn whole_second(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.timestamp(), 0)
}

/// Returns the day `date` in `zone`, which may have 23 or 25 hours.
fn day<Z: TimeZone>(date: NaiveDate, zone: &Z) -> Option<TimeSpan> {
    // A midnight that occurs twice begins the day the first time.
    let begin = |date: NaiveDate| {
        let midnight = date.and_time(NaiveTime::MIN);
        let first = moments(midnight, zone).first().copied();
        first.or_else(|| at(midnight, zone))
    };
    Some(TimeSpan {
        begin: begin(date)?,
        until: begin(date.succ_opt()?)?,
        is_day: true,
        is_local: true,
    })
}

/// Returns the moment at which clocks in `zone` show `local`: the last one of two. A local time
/// that the clocks skip is read as if they had not been changed.
fn at<Z: TimeZone>(local: NaiveDateTime, zone: &Z) -> Option<DateTime<Utc>> {
    if let Some(last) = moments(local, zone).last() {
        return Some(*last);
    }
    let before = local.checked_sub_days(Days::new(1))?;
    let offset = zone.offset_from_local_datetime(&before).latest()?;
    let utc = local.checked_sub_offset(offset.fix())?;
    Some(utc.and_utc())
}

/// Returns the moments at which clocks in `zone` show `local`, in order. A zone of the system may
/// report two candidates in any order, and one at which the clocks show another time.
fn moments<Z: TimeZone>(local: NaiveDateTime, zone: &Z) -> Vec<DateTime<Utc>> {
    let candidates = match zone.from_local_datetime(&local) {
        MappedLocalTime::None => vec![],
        MappedLocalTime::Single(only) => vec![only],
        MappedLocalTime::Ambiguous(one, other) => vec![one, other],
    };
    let candidates = candidates.into_iter().map(|time| time.to_utc());
    let shows_it = |time: &DateTime<Utc>| time.with_timezone(zone).naive_local() == local;
    let mut moments: Vec<_> = candidates.filter(shows_it).collect();
    moments.sort_unstable();
    moments
}

#[cfg(test)]
mod tests;
