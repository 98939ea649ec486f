//! The signers that the key holder's machine remembers, as ssh remembers machines in `known_hosts`.
//!
//! A line of the file names a place, a host, the signer's public key and fingerprint, the time, and
//! how the signer became known. It holds nothing secret. A place and a host may have several lines:
//! after a rotation, the old signer's snapshots still count.
//!
//! A line that is not exactly of that form trusts nothing. It might have named another signer, so a
//! caller must not accept a new one unasked while there is such a line ([`KnownSigners::damaged`]).

pub mod file;

use std::fmt;

use chrono::{DateTime, NaiveDateTime, Utc};
use ssh_key::PublicKey;

use crate::base::ids::HostName;
use crate::format::allowed_signers::AllowedSigner;
use crate::format::signature::{Trust, fingerprint};

/// How a signer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignerOrigin {
    /// The key holder compared the fingerprint and said yes.
    Confirmed,
    /// It was the first one seen there, and the key holder did not ask to compare.
    Accepted,
    /// A manifest of a known signer introduced it.
    Introduced,
    /// It was known for the same host at another place.
    Moved,
}

const ORIGINS: [(SignerOrigin, &str); 4] = [
    (SignerOrigin::Confirmed, "confirmed"),
    (SignerOrigin::Accepted, "accepted"),
    (SignerOrigin::Introduced, "introduced"),
    (SignerOrigin::Moved, "moved"),
];

/// A signer of one host at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSigner {
    /// The place's name ([`crate::storage::place`]).
    pub place: String,
    /// The host.
    pub host: HostName,
    /// The public key; its comment does not count.
    pub key: PublicKey,
    /// When it became known, to the second.
    pub since: DateTime<Utc>,
    /// How it became known.
    pub origin: SignerOrigin,
}

impl KnownSigner {
    /// Returns a signer without the comment of its key, and the time without parts of a second.
    pub fn new(
        place: &str,
        host: &HostName,
        key: &PublicKey,
        since: DateTime<Utc>,
        origin: SignerOrigin,
    ) -> Self {
        let seconds = DateTime::from_timestamp(since.timestamp(), 0);
        Self {
            place: place.to_owned(),
            host: host.clone(),
            key: PublicKey::from(key.key_data().clone()),
            since: seconds.unwrap_or(since),
            origin,
        }
    }

    /// Returns the fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }

    fn is_of(&self, place: &str, host: &HostName) -> bool {
        self.place == place && self.host == *host
    }

    /// Parses a line without its end.
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [place, host, kind, base64, print, since, origin] = words[..] else {
            return Err(format!("it has {} words, not seven", words.len()));
        };
        let place = unescape(place).ok_or("its place is malformed")?;
        let host: HostName = host.parse().map_err(|_| "its host is malformed")?;
        let key = PublicKey::from_openssh(&format!("{kind} {base64}"));
        let key = key.map_err(|_| "its key is malformed")?;
        if fingerprint(&key) != print {
            return Err("its fingerprint is not that of its key".to_owned());
        }
        let since =
            NaiveDateTime::parse_from_str(since, TIME).map_err(|_| "its time is malformed")?;
        let origin = ORIGINS.iter().find(|(_, word)| *word == origin);
        let (origin, _) = origin.ok_or("its last word is unknown")?;
        Ok(Self::new(&place, &host, &key, since.and_utc(), *origin))
    }
}

const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";

impl fmt::Display for KnownSigner {
    /// Writes the line of the file, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = ORIGINS.iter().find(|(origin, _)| *origin == self.origin);
        write!(
            f,
            "{} {} {} {} {} {}",
            escape(&self.place),
            self.host,
            self.key.to_openssh().map_err(|_| fmt::Error)?.trim(),
            self.fingerprint(),
            self.since.format(TIME),
            word.map_or("", |(_, word)| word),
        )
    }
}

/// Replaces in a place what would end a word, begin a comment, or not be visible.
fn escape(place: &str) -> String {
    let mut text = String::with_capacity(place.len());
    for c in place.chars() {
        match c.is_whitespace() || c.is_control() || matches!(c, '%' | '#') {
            true => c
                .to_string()
                .bytes()
                .for_each(|byte| text += &format!("%{byte:02X}")),
            false => text.push(c),
        }
    }
    text
}

fn unescape(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// A line that trusts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedLine {
    /// Its number, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The content of a file of known signers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSigners {
    /// The number of each signer's line, from 1, and the signer.
    pub lines: Vec<(usize, KnownSigner)>,
    /// The lines that cannot be read.
    pub damaged: Vec<DamagedLine>,
}

impl KnownSigners {
    /// Parses a file. Blank lines, and lines that begin with `#`, have no meaning.
    pub fn parse(content: &[u8]) -> Self {
        let mut all = Self::default();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let parsed = match std::str::from_utf8(line) {
                Ok(text) if is_blank(text) => continue,
                Ok(text) => KnownSigner::parse(text),
                Err(_) => Err("it is not text".to_owned()),
            };
            match parsed {
                Ok(signer) => all.lines.push((number, signer)),
                Err(reason) => all.damaged.push(DamagedLine { number, reason }),
            }
        }
        all
    }

    /// Returns the signers of `host` at `place`, oldest line first, with the numbers of the lines.
    pub fn of(&self, place: &str, host: &HostName) -> Vec<&(usize, KnownSigner)> {
        let lines = self.lines.iter();
        lines.filter(|(_, one)| one.is_of(place, host)).collect()
    }

    /// Returns the signers of hosts that have the same name at other places.
    pub fn elsewhere(&self, place: &str, host: &HostName) -> Vec<&(usize, KnownSigner)> {
        let lines = self.lines.iter();
        lines
            .filter(|(_, one)| one.host == *host && one.place != place)
            .collect()
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Returns the trust in the signers of `lines`, as signers of the host that each line names.
pub fn trust_in(lines: &[&(usize, KnownSigner)]) -> Trust {
    let signers = lines.iter();
    let signers = signers.map(|(_, one)| AllowedSigner::for_host(&one.host, one.key.clone()));
    Trust::AllowedSigners(signers.collect())
}

#[cfg(test)]
mod tests;
