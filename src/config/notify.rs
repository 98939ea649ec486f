//! The `[[notify]]` tables: whom this host notifies, of what, and when.

mod mail_server;
mod ping_url;
mod raw;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use super::CommandLine;

pub use mail_server::{MailServer, MailTransport};
pub use ping_url::{check_channel_url, check_ping_url};
pub(super) use raw::{RawNotify, collect_channels};

/// The longest URL, token or password, in bytes.
pub const SECRET_BYTES: u64 = 16 << 10;

/// What a message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyEvent {
    /// The backups are not safe: a red finding began, got worse, or lasts.
    Red,
    /// An amber finding began.
    Amber,
    /// A finding that was reported has ended.
    Recovered,
    /// A run began.
    Started,
    /// A run ended complete.
    Complete,
    /// A snapshot was restored for proof.
    Proof,
    /// The report of each Monday.
    Weekly,
    /// The message of `notify test`. No channel asks for it.
    Test,
}

impl NotifyEvent {
    /// The events that a channel can ask for, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Red,
        Self::Amber,
        Self::Recovered,
        Self::Started,
        Self::Complete,
        Self::Proof,
        Self::Weekly,
    ];

    /// Returns the event as the configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Amber => "amber",
            Self::Recovered => "recovered",
            Self::Started => "started",
            Self::Complete => "complete",
            Self::Proof => "proof",
            Self::Weekly => "weekly",
            Self::Test => "test",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

/// A `[[notify]]` table.
#[derive(Debug, Clone)]
pub struct NotifyChannel {
    /// Unique and not empty.
    pub name: String,
    /// How messages are sent.
    pub kind: ChannelKind,
    /// What is reported. Empty for healthchecks, which gets pings.
    pub events: BTreeSet<NotifyEvent>,
    /// Least time between two reports of one finding.
    pub min_interval: Duration,
    /// Time after which a red finding that lasts is reported again; `None`: never.
    pub repeat: Option<Duration>,
    /// How long a finding must last before it is reported; `None`: nothing for the result of a run,
    /// and 5 minutes for all others.
    pub hold: Option<Duration>,
    /// When only red is sent; `None`: never.
    pub quiet: Option<QuietHours>,
    /// The zone of the quiet hours and of the weekly report; `None`: that of the schedule.
    pub zone: Option<chrono_tz::Tz>,
}

/// How a channel's messages are sent.
#[derive(Debug, Clone)]
pub enum ChannelKind {
    /// A topic of an ntfy server.
    Ntfy {
        /// The topic's URL.
        url: SecretText,
        /// The access token; `None`: none is sent.
        token: Option<SecretText>,
    },
    /// A POST of JSON.
    Webhook {
        /// Where to.
        url: SecretText,
        /// The bearer token; `None`: none is sent.
        token: Option<SecretText>,
        /// The key of the signature over the body; `None`: it is not signed.
        secret: Option<SecretText>,
    },
    /// Mail.
    Email(Box<EmailSettings>),
    /// Pings of a service that notices when they stop.
    Healthchecks {
        /// The URL of the check.
        url: SecretText,
        /// What is reported.
        job: PingJob,
        /// What a partial run is.
        partial: PartialPing,
    },
    /// A command, with the event on its standard input.
    Command(CommandLine),
}

impl ChannelKind {
    /// Returns the secrets of the channel.
    pub fn secrets(&self) -> Vec<&SecretText> {
        match self {
            Self::Ntfy { url, token } => std::iter::once(url).chain(token).collect(),
            Self::Webhook { url, token, secret } => {
                std::iter::once(url).chain(token).chain(secret).collect()
            }
            Self::Email(mail) => std::iter::once(&mail.smtp).chain(&mail.password).collect(),
            Self::Healthchecks { url, .. } => vec![url],
            Self::Command(_) => Vec::new(),
        }
    }

    /// Returns the kind as the configuration names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ntfy { .. } => "ntfy",
            Self::Webhook { .. } => "webhook",
            Self::Email(_) => "email",
            Self::Healthchecks { .. } => "healthchecks",
            Self::Command(_) => "command",
        }
    }
}

/// How mail is sent.
#[derive(Debug, Clone)]
pub struct EmailSettings {
    /// The URL of the mail server.
    pub smtp: SecretText,
    /// The password of the user in that URL; `None`: the URL has it, or there is none.
    pub password: Option<SecretText>,
    /// The sender.
    pub from: String,
    /// The receivers, at least one.
    pub to: Vec<String>,
}

/// What a check of healthchecks watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingJob {
    /// Runs of `backup`.
    Backup,
    /// Runs of `verify`.
    Verify,
    /// Runs of `drill`.
    Drill,
    /// The verdict, each hour.
    Verdict,
}

impl PingJob {
    const ALL: [(&'static str, Self); 4] = [
        ("backup", Self::Backup),
        ("verify", Self::Verify),
        ("drill", Self::Drill),
        ("verdict", Self::Verdict),
    ];

    /// Returns the job as the configuration names it, which is the kind of its runs.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, job)| *job == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The ping after a run that ended partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialPing {
    /// A failure.
    Fail,
    /// An entry in the log of the check, which changes nothing.
    Log,
}

/// A text that may be secret, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretText {
    /// In the configuration.
    Inline(String),
    /// The content of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Environment(String),
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Environment(name) => write!(f, "Environment({name:?})"),
        }
    }
}

/// Hours of each day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    /// Their first minute.
    pub from: NaiveTime,
    /// The minute after them. Before `from`: it is on the next day.
    pub until: NaiveTime,
}

impl QuietHours {
    /// Returns whether `now` is within them in `zone`.
    pub fn contain(&self, now: DateTime<Utc>, zone: chrono_tz::Tz) -> bool {
        let time = now.with_timezone(&zone).time();
        match self.from <= self.until {
            true => self.from <= time && time < self.until,
            false => self.from <= time || time < self.until,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let hours = Self {
            from: time(from)?,
            until: time(until)?,
        };
        (hours.from != hours.until).then_some(hours)
    }
}

/// Returns the value of a key of `[[notify]]` as it may be shown: of a URL, whose path is often a
/// secret, the server alone.
pub(super) fn without_secret(key: &str, text: &str) -> String {
    let is_url = matches!(key, "url" | "smtp") && !text.starts_with("env:");
    match (is_url, key, text.split_once("://")) {
        (false, ..) => text.to_owned(),
        (true, "smtp", _) => match MailServer::parse(text) {
            Ok(server) => {
                let scheme = text.split(':').next().unwrap_or_default();
                let user = server
                    .user
                    .map_or_else(String::new, |user| format!("{user}@"));
                format!("{}://{user}{}:{}", scheme.trim(), server.host, server.port)
            }
            Err(_) => "...".to_owned(),
        },
        (true, _, Some((scheme, rest))) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{}://{host}/...", scheme.trim())
        }
        (true, _, None) => "...".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_may_pass_midnight_and_follow_the_zone() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let night = QuietHours::parse("22:00-07:00").unwrap();
        let berlin = chrono_tz::Europe::Berlin;
        for (time, is_quiet) in [
            ("2026-04-07T19:59:00Z", false),
            ("2026-04-07T20:00:00Z", true),
            ("2026-04-08T04:59:00Z", true),
            ("2026-04-08T05:00:00Z", false),
            // In winter.
            ("2026-12-07T20:30:00Z", false),
        ] {
            assert_eq!(night.contain(at(time), berlin), is_quiet, "{time}");
        }
        let noon = QuietHours::parse("12:00 - 13:00").unwrap();
        assert!(noon.contain(at("2026-04-07T12:30:00Z"), chrono_tz::UTC));
        assert!(!noon.contain(at("2026-04-07T13:00:00Z"), chrono_tz::UTC));
        for wrong in ["22-7", "22:00", "25:00-07:00", "22:00-22:00", ""] {
            assert_eq!(QuietHours::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_server_of_a_url_is_shown() {
        for (key, text, shown) in [
            ("url", "https://ntfy.sh/hunter2", "https://ntfy.sh/..."),
            (
                "url",
                "https://a@ntfy.sh:1?hunter2",
                "https://ntfy.sh:1/...",
            ),
            ("url", "hunter2", "..."),
            ("url", "env:URL", "env:URL"),
            ("smtp", "smtps://me:hunter2@mail", "smtps://me@mail:465"),
            ("smtp", "smtps://me:hunter2@", "..."),
            ("url_file", "/etc/hc", "/etc/hc"),
        ] {
            assert_eq!(without_secret(key, text), shown);
        }
    }

    #[test]
    fn a_secret_is_not_in_a_debug_text() {
        let text = SecretText::Inline("hunter2".to_owned());
        assert_eq!(format!("{text:?}"), "Inline(..)");
    }
}
