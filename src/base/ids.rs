//! Validated names: hashes, stamps, hosts, archive ids, object keys.
//!
//! Syntax becomes one of these once, at the edge; inside, a stamp is a [`Stamp`] and never a
//! `String`.

mod hex;
mod object_key;
mod ulid;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::hex::{hex_text, unhex_array, write_hex};

pub use self::hex::{hex, unhex};
pub use object_key::{ARCHIVES, MANIFESTS, MARKS, ObjectKey, RECEIPTS, TABLES, TOMBSTONES};
pub use ulid::{is_ulid, ulid, ulid_as_uuid, ulid_time};

/// A text that is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidId {
    /// The kind that was expected, with its article: `a stamp like 20260407T060000Z`.
    pub what: &'static str,
    /// The first 120 characters of the text.
    pub text: String,
}

fn invalid(what: &'static str, text: &str) -> InvalidId {
    InvalidId {
        what,
        text: text.chars().take(120).collect(),
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        deserialize_as_text!($type);
    };
}

macro_rules! deserialize_as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct TextVisitor;
                impl serde::de::Visitor<'_> for TextVisitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(TextVisitor)
            }
        }
    };
}

/// A 32-byte digest (BLAKE3 or SHA-256, as the field says), written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Returns the BLAKE3 of `bytes`.
    pub fn blake3(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the first 16 hex digits, as names carry them.
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        unhex_array(text)
            .map(Self)
            .ok_or_else(|| invalid("a hash of 64 lower-case hex digits", text))
    }
}

deserialize_as_text!(Hash);

/// Serializes without a formatter, which takes most of the time: a page of earlier snapshots holds
/// many hashes and stamps.
impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = hex_text(&self.0);
        let text = std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?;
        s.serialize_str(text)
    }
}

/// The second in which a snapshot was made, in UTC, written as `YYYYMMDDTHHMMSSZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(DateTime<Utc>);

impl Stamp {
    /// Returns the stamp of `time`, cut to the second. A leap second becomes the second before it,
    /// which every reader accepts. Fails for a time before 1970, which only a clock that was never
    /// set shows, and for one after 9999, whose year does not fit into four digits.
    pub fn at(time: DateTime<Utc>) -> Result<Self, InvalidId> {
        let second = DateTime::from_timestamp(time.timestamp(), 0);
        let stamp = second.filter(|time| (1970..=9999).contains(&time.year()));
        stamp.map(Self).ok_or_else(|| {
            let text = time.to_rfc3339();
            invalid("a time from 1970 to 9999, as stamps have them", &text)
        })
    }

    /// Returns the begin of the second.
    pub fn time(&self) -> DateTime<Utc> {
        self.0
    }

    /// Returns the stamp one second later; the last second of 9999, which has none after it,
    /// returns itself.
    pub fn next(&self) -> Self {
        Self::at(self.0 + chrono::Duration::seconds(1)).unwrap_or(*self)
    }

    /// Writes the text by hand, for the reason for which it is parsed by hand.
    fn text(&self) -> [u8; 16] {
        let mut text = *b"00000000T000000Z";
        let mut write = |at: usize, digits: usize, mut number: u32| {
            for place in text[at..at + digits].iter_mut().rev() {
                *place += (number % 10) as u8;
                number /= 10;
            }
        };
        write(0, 4, self.0.year().unsigned_abs());
        write(4, 2, self.0.month());
        write(6, 2, self.0.day());
        write(9, 2, self.0.hour());
        write(11, 2, self.0.minute());
        write(13, 2, self.0.second());
        text
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        let text = std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?;
        s.serialize_str(text)
    }
}

impl FromStr for Stamp {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // Parsed by hand: a push reads thousands of stamps, and chrono would parse its format
        // string for each.
        parse_stamp(text).ok_or_else(|| invalid("a stamp like 20260407T060000Z", text))
    }
}

/// Accepts exactly the text that `Display` writes.
fn parse_stamp(text: &str) -> Option<Stamp> {
    let [date @ .., b'Z'] = text.as_bytes() else {
        return None;
    };
    if date.len() != 15 || date[8] != b'T' {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            Some(number * 10 + digit)
        })
    };
    let year = i32::try_from(number(&date[..4])?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, number(&date[4..6])?, number(&date[6..8])?)?;
    let (hour, minute) = (number(&date[9..11])?, number(&date[11..13])?);
    let time = day.and_hms_opt(hour, minute, number(&date[13..])?)?;
    Some(Stamp(time.and_utc()))
}

deserialize_as_text!(Stamp);

/// A host's name: its folder on a target, its manifests' `host`, its signature's principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let shape = (1..=64).contains(&text.len()) && text.chars().all(allowed);
        if shape && !text.starts_with(['.', '-']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid(
                "a host name (1 to 64 of A-Z a-z 0-9 . _ -, not starting with . or -)",
                text,
            ))
        }
    }
}

serde_as_text!(HostName);

/// A random id that a state directory gets when it is created or rebuilt; archives are numbered
/// within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub [u8; 8]);

impl WriterId {
    /// Draws a new id. Fails if the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for WriterId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        unhex_array(text)
            .map(Self)
            .ok_or_else(|| invalid("a writer id of 16 hex digits", text))
    }
}

serde_as_text!(WriterId);

/// `<writer>.<counter>`: names one archive and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveId {
    /// The state directory that made the archive.
    pub writer: WriterId,
    /// The number of the archive among those of its writer, from 1.
    pub counter: u64,
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.writer, self.counter)
    }
}

impl FromStr for ArchiveId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || invalid("an archive id <writer>.<counter>", text);
        let (writer, counter) = text.split_once('.').ok_or_else(wrong)?;
        // The counter begins at 1 and has neither a sign nor leading zeros.
        if !matches!(counter.as_bytes(), [b'1'..=b'9', ..]) {
            return Err(wrong());
        }
        Ok(Self {
            writer: writer.parse().map_err(|_| wrong())?,
            counter: counter.parse().map_err(|_| wrong())?,
        })
    }
}

serde_as_text!(ArchiveId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_exactly_one_shape() {
        let stamp: Stamp = "20260407T060000Z".parse().unwrap();
        assert_eq!(stamp.to_string(), "20260407T060000Z");
        assert_eq!(stamp.next().to_string(), "20260407T060001Z");
        for wrong in [
            "",
            "latest",
            "20260407T060060Z",
            "20260407T240000Z",
            "20260229T060000Z",
            "20260407t060000Z",
            "20260407T06000éZ",
            "20260407T0600000Z",
            "2026-04-07T06:00Z",
            "20260407T0600 0Z",
            "+0260407T060000Z",
        ] {
            assert!(wrong.parse::<Stamp>().is_err(), "{wrong}");
        }
    }

    /// Kind: a writer makes a stamp that its readers refuse.
    #[test]
    fn every_stamp_that_is_made_is_one_that_is_read() {
        let at = |text: &str| Stamp::at(text.parse().unwrap());
        for (time, stamp) in [
            ("1970-01-01T00:00:00Z", "19700101T000000Z"),
            ("2026-12-31T23:59:59.999Z", "20261231T235959Z"),
            ("2026-12-31T23:59:60Z", "20261231T235959Z"),
            ("2026-04-07T08:00:00+02:00", "20260407T060000Z"),
            ("9999-12-31T23:59:59Z", "99991231T235959Z"),
        ] {
            let made = at(time).unwrap();
            assert_eq!(made.to_string(), stamp);
            assert_eq!(made.to_string().parse(), Ok(made));
        }
        for time in [
            DateTime::<Utc>::MIN_UTC,
            DateTime::<Utc>::MAX_UTC,
            "1969-12-31T23:59:59Z".parse().unwrap(),
            "+10000-01-01T00:00:00Z".parse().unwrap(),
        ] {
            let error = Stamp::at(time).unwrap_err().to_string();
            assert!(error.contains("from 1970 to 9999"), "{error}");
        }
        let last = at("9999-12-31T23:59:59Z").unwrap();
        assert_eq!(last.next(), last);
    }

    #[test]
    fn hosts_cannot_walk_the_target() {
        assert!("dalidou".parse::<HostName>().is_ok());
        for wrong in ["", "..", ".x", "a/b", "-rf", "a b", "ü", &"x".repeat(65)] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn archive_ids_have_one_spelling() {
        let id: ArchiveId = "00ff00ff00ff00ff.12".parse().unwrap();
        assert_eq!(id.to_string(), "00ff00ff00ff00ff.12");
        for wrong in [
            "00ff00ff00ff00ff.0",
            "00ff00ff00ff00ff.012",
            "00FF00ff00ff00ff.1",
            "-",
            "x.1",
        ] {
            assert!(wrong.parse::<ArchiveId>().is_err(), "{wrong}");
        }
    }
}
