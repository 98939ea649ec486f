//! Validated names: hashes, stamps, hosts, archive ids, object keys.
//!
//! Syntax becomes one of these once, at the edge; inside, a stamp is a [`Stamp`] and never a `String`.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not what it should be: `what` names the kind, `text` the offender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidId {
    pub what: &'static str,
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
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(Text)
            }
        }
    };
}

/// A 32-byte digest (BLAKE3 or SHA-256, as the field says), written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub fn blake3(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub fn sha256(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first 16 hex digits, as names carry them.
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

/// Without a formatter, which takes most of the time: pages of earlier snapshots are full of hashes and stamps.
impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = hex_text(&self.0);
        let text = std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?;
        s.serialize_str(text)
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex_digits(*byte)).collect()
}

fn hex_digits(byte: u8) -> [char; 2] {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    [digit(byte >> 4), digit(byte & 15)]
}

/// Lower-case hex of at most 32 bytes, and zeros after it.
fn hex_text(bytes: &[u8]) -> [u8; 64] {
    let mut text = [0; 64];
    for (two, byte) in text.chunks_exact_mut(2).zip(bytes) {
        two.copy_from_slice(&hex_digits(*byte).map(|digit| digit as u8));
    }
    text
}

/// Lower-case hex of at most 32 bytes, at once: an index is full of it.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let text = hex_text(bytes);
    let text = std::str::from_utf8(&text[..2 * bytes.len()]);
    f.write_str(text.map_err(|_| fmt::Error)?)
}

/// The bytes of an even number of lower-case hex digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(unhex_pair).collect()
}

/// The bytes of exactly twice as many lower-case hex digits.
fn unhex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = unhex_pair(pair)?;
    }
    Some(bytes)
}

fn unhex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// A snapshot's UTC second, `YYYYMMDDTHHMMSSZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(DateTime<Utc>);

impl Stamp {
    /// Returns the stamp of `time`, cut to the second. A leap second counts as the second before it,
    /// which every reader takes. A time before 1970 or after 9999 has no stamp: four digits of a year
    /// cannot write the latter, and no clock that was ever set says the former.
    pub fn at(time: DateTime<Utc>) -> Result<Self, InvalidId> {
        let second = DateTime::from_timestamp(time.timestamp(), 0);
        let stamp = second.filter(|time| (1970..=9999).contains(&time.year()));
        stamp.map(Self).ok_or_else(|| {
            let text = time.to_rfc3339();
            invalid("a time from 1970 to 9999, as stamps have them", &text)
        })
    }

    pub fn time(&self) -> DateTime<Utc> {
        self.0
    }

    /// Returns the stamp one second later; the last second of 9999 has none after it and returns itself.
    pub fn next(&self) -> Self {
        Self::at(self.0 + chrono::Duration::seconds(1)).unwrap_or(*self)
    }
}

impl Stamp {
    /// By hand, as it is read: see [`Hash`]'s.
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
        // By hand: a push reads thousands of stamps, and a format that is read each time takes longest of all.
        parse_stamp(text).ok_or_else(|| invalid("a stamp like 20260407T060000Z", text))
    }
}

/// Exactly what we would write.
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

/// The random id of one state directory's life; archives are numbered within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub [u8; 8]);

impl WriterId {
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

/// `<writer>.<counter>`: names one archive for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveId {
    pub writer: WriterId,
    /// From 1.
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
        // From 1, without a sign or zeros in front.
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

/// Where an object stands below its host's folder, such as `archives/ab/ab12….tar.zst.age`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

pub const ARCHIVES: &str = "archives";
pub const TABLES: &str = "tables";
pub const MANIFESTS: &str = "manifests";
pub const RECEIPTS: &str = "receipts";
pub const TOMBSTONES: &str = "tombstones";
pub const MARKS: &str = "marks";
const ARCHIVE_ENDING: &str = ".tar.zst.age";

impl ObjectKey {
    pub fn archive(blake3: &Hash) -> Self {
        let name = blake3.to_string();
        Self(format!("{ARCHIVES}/{}/{name}{ARCHIVE_ENDING}", &name[..2]))
    }

    pub fn table(sha256: &Hash) -> Self {
        Self(format!("{TABLES}/{sha256}.json"))
    }

    pub fn manifest(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json"))
    }

    pub fn signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json.sig"))
    }

    pub fn tombstone(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json"))
    }

    pub fn tombstone_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json.sig"))
    }

    pub fn mark(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json"))
    }

    pub fn mark_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json.sig"))
    }

    /// A fixed, well-known object such as `RECOVER.md`.
    pub fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The BLAKE3 that an archive's key promises, if this is an archive's key.
    pub fn archive_hash(key: &str) -> Option<Hash> {
        let rest = key.strip_prefix(ARCHIVES)?.strip_prefix('/')?;
        let (folder, file) = rest.split_once('/')?;
        let hash: Hash = file.strip_suffix(ARCHIVE_ENDING)?.parse().ok()?;
        (folder == &file[..2]).then_some(hash)
    }

    /// The BLAKE3 that a file's name promises, if it is named like an archive.
    pub fn archive_file_hash(file_name: &str) -> Option<Hash> {
        file_name.strip_suffix(ARCHIVE_ENDING)?.parse().ok()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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

    #[test]
    fn archive_keys_give_back_their_hash() {
        let hash = Hash::blake3(b"x");
        let key = ObjectKey::archive(&hash);
        assert_eq!(ObjectKey::archive_hash(key.as_str()), Some(hash));
        assert_eq!(
            ObjectKey::archive_hash(&key.as_str().replace("archives/", "archives/0")),
            None
        );
    }
}
