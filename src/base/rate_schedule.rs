//! Limits of bytes per second by the time of day.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Timelike as _, Utc};

const MINUTES_A_DAY: u32 = 24 * 60;

/// A limit of the transfer rate by the time of day in UTC: `2MB` at all times, or
/// `08:00 2MB, 18:30 off`, of which each entry holds from its time to the next one, the last
/// through midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// Minute of the day and bytes per second from then on (`None`: no limit); ordered by minute,
    /// at least one entry.
    rates: Vec<(u32, Option<u64>)>,
}

impl Timetable {
    /// Returns the timetable with this limit at all times.
    pub fn constant(bytes_per_second: u64) -> Self {
        Self {
            rates: vec![(0, Some(bytes_per_second))],
        }
    }

    /// Returns this timetable with every limit lowered to at most `bytes_per_second`.
    pub fn capped(&self, bytes_per_second: u64) -> Self {
        let lower = |rate: Option<u64>| rate.map_or(bytes_per_second, |r| r.min(bytes_per_second));
        let rates = self.rates.iter();
        Self {
            rates: rates
                .map(|(from, rate)| (*from, Some(lower(*rate))))
                .collect(),
        }
    }

    /// Returns the limit at `time` in bytes per second; `None`: no limit.
    pub fn at(&self, time: DateTime<Utc>) -> Option<u64> {
        let minute = time.hour() * 60 + time.minute();
        let begun = self.rates.iter().rev().find(|(from, _)| *from <= minute);
        // Before the first entry of the day the last one of the day before holds.
        begun.or(self.rates.last()).and_then(|(_, rate)| *rate)
    }

    /// Parses a timetable; `parse_size` parses the sizes in it. The error is one line for the
    /// operator.
    pub fn parse(
        text: &str,
        parse_size: impl Fn(&str) -> Result<u64, String>,
    ) -> Result<Self, String> {
        let rate = |text: &str| match text {
            "off" | "unlimited" => Ok(None),
            size => match parse_size(size)? {
                0 => Err(format!(
                    "a rate of {text:?} would transfer nothing; \"off\" means no limit"
                )),
                bytes => Ok(Some(bytes)),
            },
        };
        let entries: Vec<&str> = text.split(',').map(str::trim).collect();
        if let [only] = entries.as_slice()
            && !only.contains(':')
        {
            let rates = vec![(0, rate(only)?)];
            return Ok(Self { rates });
        }
        let mut rates = Vec::new();
        for entry in entries {
            let (time, size) = entry.split_once(char::is_whitespace).ok_or_else(|| {
                format!("{entry:?} is not a time and a rate like \"08:00 2MB\" (UTC)")
            })?;
            rates.push((minute_of_day(time)?, rate(size.trim())?));
        }
        rates.sort_by_key(|(from, _)| *from);
        match rates.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(format!("{} is given twice", hours(pair[0].0))),
            None => Ok(Self { rates }),
        }
    }
}

fn minute_of_day(text: &str) -> Result<u32, String> {
    let parsed = text.split_once(':').and_then(|(hours, minutes)| {
        let two_digits = |text: &str| (text.len() == 2).then(|| u32::from_str(text).ok())?;
        Some(two_digits(hours)? * 60 + two_digits(minutes).filter(|minutes| *minutes < 60)?)
    });
    parsed
        .filter(|minute| *minute < MINUTES_A_DAY)
        .ok_or_else(|| format!("{text:?} is not a time of day like \"08:00\" (UTC)"))
}

fn hours(minute: u32) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, rate)) in self.rates.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let rate = rate.map_or("off".to_owned(), |bytes| bytes.to_string());
            write!(f, "{comma}{} {rate}", hours(*from))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Timetable, String> {
        Timetable::parse(text, |size| {
            let bytes = size.strip_suffix("MB").and_then(|n| n.parse::<u64>().ok());
            bytes.map(|n| n * 1_000_000).ok_or("no size".to_owned())
        })
    }

    fn at(table: &Timetable, time: &str) -> Option<u64> {
        table.at(format!("2026-04-07T{time}:59Z").parse().unwrap())
    }

    #[test]
    fn a_rate_holds_from_its_time_through_midnight_to_the_next() {
        let always = parse("2MB").unwrap();
        assert_eq!(at(&always, "00:00"), Some(2_000_000));
        assert_eq!(always, Timetable::constant(2_000_000));
        let table = parse("18:30 off, 08:00 2MB,12:00 3MB").unwrap();
        for (time, rate) in [
            ("00:00", None),
            ("07:59", None),
            ("08:00", Some(2_000_000)),
            ("11:59", Some(2_000_000)),
            ("12:00", Some(3_000_000)),
            ("18:29", Some(3_000_000)),
            ("18:30", None),
            ("23:59", None),
        ] {
            assert_eq!(at(&table, time), rate, "{time}");
        }
        assert_eq!(table.to_string(), "08:00 2000000, 12:00 3000000, 18:30 off");
    }

    #[test]
    fn a_cap_only_lowers() {
        let capped = parse("08:00 2MB, 12:00 4MB, 18:30 off").unwrap();
        let capped = capped.capped(3_000_000);
        for (time, rate) in [
            ("09:00", 2_000_000),
            ("13:00", 3_000_000),
            ("20:00", 3_000_000),
        ] {
            assert_eq!(at(&capped, time), Some(rate), "{time}");
        }
    }

    #[test]
    fn a_malformed_timetable_is_refused() {
        for text in [
            "",
            "fast",
            "0MB",
            "8:00 2MB",
            "24:00 2MB",
            "08:60 2MB",
            "08:00",
            "08:00 x",
            "08:00 2MB, 08:00 3MB",
            "08:00 2MB,",
            "2MB, 3MB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
