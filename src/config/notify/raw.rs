//! The `[[notify]]` tables as the file has them, and their validation.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::mail_server::MailServer;
use super::ping_url::{check_channel_url, check_ping_url};
use super::{
    ChannelKind, EmailSettings, NotifyChannel, NotifyEvent, PartialPing, PingJob, QuietHours,
    SecretText,
};
use crate::config::CommandLine;
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;
use crate::config::value::{self, ValueText, optional};

/// Time between two reports of a finding if the configuration does not say.
const MIN_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Time after which a lasting red is reported again if the configuration does not say.
const REPEAT: Duration = Duration::from_secs(86_400);
const KINDS: &str = "ntfy, webhook, email, healthchecks, command";

/// `[[notify]]` as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawNotify {
    name: Option<Spanned<String>>,
    kind: Spanned<String>,
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    smtp: Option<Spanned<String>>,
    from: Option<Spanned<String>>,
    to: Option<Spanned<Vec<Spanned<String>>>>,
    job: Option<Spanned<String>>,
    partial: Option<Spanned<String>>,
    command: Option<Spanned<Vec<String>>>,
    events: Option<Spanned<Vec<Spanned<String>>>>,
    min_interval: Option<Spanned<ValueText>>,
    repeat: Option<Spanned<ValueText>>,
    hold: Option<Spanned<ValueText>>,
    quiet: Option<Spanned<String>>,
    zone: Option<Spanned<String>>,
}

/// Validates the `[[notify]]` tables.
pub(in crate::config) fn collect_channels(
    document: &ConfigDocument<'_>,
    raw: &[Spanned<RawNotify>],
) -> Result<Vec<NotifyChannel>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut channels = Vec::new();
    for spanned in raw {
        let table = RawChannel {
            document,
            raw: spanned.get_ref(),
            span: spanned.span(),
        };
        let channel = table.validate()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if channel.name.is_empty() || !channel.name.chars().all(is_plain) {
            let what = format!(
                "the channel name {:?} is not made of letters, digits, - _ and .",
                channel.name
            );
            return Err(document.invalid(&table.name_span(), what));
        }
        if !names.insert(channel.name.clone()) {
            let what = format!(
                "two channels are named {:?}: give each a `name` of its own",
                channel.name
            );
            return Err(document.invalid(&table.name_span(), what));
        }
        channels.push(channel);
    }
    Ok(channels)
}

/// One table, with what its errors need.
struct RawChannel<'a> {
    document: &'a ConfigDocument<'a>,
    raw: &'a RawNotify,
    span: std::ops::Range<usize>,
}

impl RawChannel<'_> {
    fn name_span(&self) -> std::ops::Range<usize> {
        let name = self.raw.name.as_ref();
        name.map_or_else(|| self.raw.kind.span(), Spanned::span)
    }

    fn wrong(&self, span: &std::ops::Range<usize>, what: impl Into<String>) -> ConfigError {
        self.document.invalid(span, what)
    }

    fn validate(&self) -> Result<NotifyChannel, ConfigError> {
        let raw = self.raw;
        self.refuse_misplaced()?;
        let kind = self.kind()?;
        let duration = |value| optional(self.document, value, value::parse_duration);
        let repeat = |text: &str| match text {
            "off" => Ok(None),
            text => value::parse_duration(text).map(|time| Some(time).filter(|t| !t.is_zero())),
        };
        let repeat = optional(self.document, &raw.repeat, repeat)?;
        let name = raw.name.as_ref().map(|name| name.get_ref().clone());
        Ok(NotifyChannel {
            name: name.unwrap_or_else(|| kind.name().to_owned()),
            events: self.events(&kind)?,
            kind,
            min_interval: duration(&raw.min_interval)?.unwrap_or(MIN_INTERVAL),
            repeat: repeat.unwrap_or(Some(REPEAT)),
            hold: duration(&raw.hold)?,
            quiet: self.quiet()?,
            zone: self.zone()?,
        })
    }

    /// Refuses the keys that channels of this kind do not have.
    fn refuse_misplaced(&self) -> Result<(), ConfigError> {
        let raw = self.raw;
        let text = |key: &Option<Spanned<String>>| key.as_ref().map(Spanned::span);
        let age = |key: &Option<Spanned<ValueText>>| key.as_ref().map(Spanned::span);
        let posts = &["ntfy", "webhook", "healthchecks"][..];
        let messages = &["ntfy", "webhook", "email", "command"][..];
        let keys = [
            ("url", text(&raw.url), posts),
            ("url_file", text(&raw.url_file), posts),
            ("token_file", text(&raw.token_file), &["ntfy", "webhook"]),
            ("secret_file", text(&raw.secret_file), &["webhook"]),
            ("password_file", text(&raw.password_file), &["email"]),
            ("smtp", text(&raw.smtp), &["email"]),
            ("from", text(&raw.from), &["email"]),
            ("to", raw.to.as_ref().map(Spanned::span), &["email"]),
            ("job", text(&raw.job), &["healthchecks"]),
            ("partial", text(&raw.partial), &["healthchecks"]),
            (
                "command",
                raw.command.as_ref().map(Spanned::span),
                &["command"],
            ),
            ("events", raw.events.as_ref().map(Spanned::span), messages),
            ("min_interval", age(&raw.min_interval), messages),
            ("repeat", age(&raw.repeat), messages),
            ("hold", age(&raw.hold), messages),
            ("quiet", text(&raw.quiet), messages),
            ("zone", text(&raw.zone), messages),
        ];
        let kind = raw.kind.get_ref().as_str();
        for (key, span, kinds) in keys {
            if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
                if !messages.contains(&kind) && kind != "healthchecks" {
                    break;
                }
                let what = format!("{key:?} has no effect with kind = {kind:?}");
                return Err(self.wrong(&span, what));
            }
        }
        Ok(())
    }

    fn kind(&self) -> Result<ChannelKind, ConfigError> {
        let raw = self.raw;
        match raw.kind.get_ref().as_str() {
            "ntfy" => Ok(ChannelKind::Ntfy {
                url: self.url(check_channel_url)?,
                token: self.file(&raw.token_file)?,
            }),
            "webhook" => Ok(ChannelKind::Webhook {
                url: self.url(check_channel_url)?,
                token: self.file(&raw.token_file)?,
                secret: self.file(&raw.secret_file)?,
            }),
            "email" => Ok(ChannelKind::Email(Box::new(self.email()?))),
            "healthchecks" => Ok(ChannelKind::Healthchecks {
                url: self.url(check_ping_url)?,
                job: self.job()?,
                partial: self.partial()?,
            }),
            "command" => self.command(),
            other => {
                let what = format!("kind {other:?} is not known: {KINDS}");
                Err(self.wrong(&raw.kind.span(), what))
            }
        }
    }

    /// Returns the URL, of which one in the file is checked.
    fn url(&self, check: fn(&str) -> Result<(), String>) -> Result<SecretText, ConfigError> {
        match (&self.raw.url, &self.raw.url_file) {
            (Some(url), None) => match self.text(url)? {
                SecretText::Inline(text) => {
                    let trimmed = text.trim().to_owned();
                    check(&trimmed).map_err(|what| self.wrong(&url.span(), what))?;
                    Ok(SecretText::Inline(trimmed))
                }
                other => Ok(other),
            },
            (None, Some(file)) => self.named_file(file),
            (Some(_), Some(file)) => Err(self.wrong(
                &file.span(),
                "there are both `url` and `url_file`: remove one",
            )),
            (None, None) => {
                let kind = self.raw.kind.get_ref();
                let what = format!("a channel of the kind {kind:?} needs `url` or `url_file`");
                Err(self.wrong(&self.span, what))
            }
        }
    }

    /// Returns a text of the configuration, or the variable that `env:NAME` names.
    fn text(&self, value: &Spanned<String>) -> Result<SecretText, ConfigError> {
        let Some(name) = value.get_ref().strip_prefix("env:") else {
            return Ok(SecretText::Inline(value.get_ref().clone()));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match !name.is_empty() && name.chars().all(is_name) {
            true => Ok(SecretText::Environment(name.to_owned())),
            false => Err(self.wrong(
                &value.span(),
                "env: is followed by the name of an environment variable",
            )),
        }
    }

    fn named_file(&self, value: &Spanned<String>) -> Result<SecretText, ConfigError> {
        match self.text(value)? {
            SecretText::Inline(path) if path.trim().is_empty() => {
                Err(self.wrong(&value.span(), "this names no file"))
            }
            SecretText::Inline(path) => Ok(SecretText::File(self.document.resolve(&path))),
            other => Ok(other),
        }
    }

    fn file(&self, value: &Option<Spanned<String>>) -> Result<Option<SecretText>, ConfigError> {
        value.as_ref().map(|file| self.named_file(file)).transpose()
    }

    fn email(&self) -> Result<EmailSettings, ConfigError> {
        let raw = self.raw;
        let needs = |key: &str| {
            let what = format!("a channel of the kind \"email\" needs `{key}`");
            self.wrong(&self.span, what)
        };
        let smtp = raw.smtp.as_ref().ok_or_else(|| needs("smtp"))?;
        let server = self.text(smtp)?;
        let password = self.file(&raw.password_file)?;
        if let SecretText::Inline(text) = &server {
            let parsed = MailServer::parse(text);
            let parsed = parsed.map_err(|what| self.wrong(&smtp.span(), what))?;
            match (&parsed.user, &parsed.password, &password) {
                (_, Some(_), Some(_)) => {
                    let what =
                        "there are both a password in `smtp` and `password_file`: remove one";
                    return Err(self.wrong(&smtp.span(), what));
                }
                (Some(_), None, None) => {
                    let what = "`smtp` names a user without a password: add `password_file`";
                    return Err(self.wrong(&smtp.span(), what));
                }
                (None, _, Some(_)) => {
                    let what = "`password_file` has no effect: `smtp` names no user";
                    return Err(self.wrong(&smtp.span(), what));
                }
                _ => {}
            }
        }
        let from = raw.from.as_ref().ok_or_else(|| needs("from"))?;
        let to = raw.to.as_ref().ok_or_else(|| needs("to"))?;
        if to.get_ref().is_empty() {
            return Err(self.wrong(&to.span(), "`to` is empty"));
        }
        let to_texts = to.get_ref().iter().map(|one| self.mailbox(one));
        Ok(EmailSettings {
            smtp: server,
            password,
            from: self.mailbox(from)?,
            to: to_texts.collect::<Result<_, _>>()?,
        })
    }

    fn mailbox(&self, value: &Spanned<String>) -> Result<String, ConfigError> {
        let text = value.get_ref().trim();
        let parsed = text.parse::<lettre::message::Mailbox>();
        match parsed.is_ok() && !text.chars().any(char::is_control) {
            true => Ok(text.to_owned()),
            false => {
                let what = format!("{text:?} is not a mail address");
                Err(self.wrong(&value.span(), what))
            }
        }
    }

    fn job(&self) -> Result<PingJob, ConfigError> {
        let Some(job) = &self.raw.job else {
            return Ok(PingJob::Backup);
        };
        let mut all = PingJob::ALL.iter();
        let found = all.find(|(name, _)| name == job.get_ref());
        found.map(|(_, job)| *job).ok_or_else(|| {
            let what = format!(
                "job {:?} is not known: backup, verify, drill, verdict",
                job.get_ref()
            );
            self.wrong(&job.span(), what)
        })
    }

    fn partial(&self) -> Result<PartialPing, ConfigError> {
        match self
            .raw
            .partial
            .as_ref()
            .map(|text| (text, text.get_ref().as_str()))
        {
            None | Some((_, "fail")) => Ok(PartialPing::Fail),
            Some((_, "log")) => Ok(PartialPing::Log),
            Some((text, other)) => {
                let what = format!("partial is \"fail\" or \"log\", not {other:?}");
                Err(self.wrong(&text.span(), what))
            }
        }
    }

    fn command(&self) -> Result<ChannelKind, ConfigError> {
        let needed = || {
            self.wrong(
                &self.span,
                "a channel of the kind \"command\" needs `command`",
            )
        };
        let words = self.raw.command.as_ref().ok_or_else(needed)?;
        let program = words.get_ref().first();
        match program.is_none_or(|program| program.trim().is_empty()) {
            true => Err(self.wrong(&words.span(), "`command` names no program")),
            false => Ok(ChannelKind::Command(CommandLine::Words(
                words.get_ref().clone(),
            ))),
        }
    }

    fn events(&self, kind: &ChannelKind) -> Result<BTreeSet<NotifyEvent>, ConfigError> {
        if matches!(kind, ChannelKind::Healthchecks { .. }) {
            return Ok(BTreeSet::new());
        }
        let Some(named) = &self.raw.events else {
            let usual = [NotifyEvent::Red, NotifyEvent::Amber, NotifyEvent::Recovered];
            return Ok(BTreeSet::from(usual));
        };
        let mut events = BTreeSet::new();
        for name in named.get_ref() {
            match (name.get_ref().as_str(), NotifyEvent::named(name.get_ref())) {
                ("all", _) => events.extend(NotifyEvent::ALL),
                (_, Some(event)) => {
                    events.insert(event);
                }
                (other, None) => {
                    let known = NotifyEvent::ALL.map(NotifyEvent::as_str).join(", ");
                    let what = format!("event {other:?} is not known: {known}, all");
                    return Err(self.wrong(&name.span(), what));
                }
            }
        }
        let begins = [NotifyEvent::Red, NotifyEvent::Amber];
        let has_begin = begins.iter().any(|event| events.contains(event));
        if events.is_empty() || events.contains(&NotifyEvent::Recovered) && !has_begin {
            let what = "events: name one at least; `recovered` needs `red` or `amber`";
            return Err(self.wrong(&named.span(), what));
        }
        Ok(events)
    }

    fn quiet(&self) -> Result<Option<QuietHours>, ConfigError> {
        let Some(text) = &self.raw.quiet else {
            return Ok(None);
        };
        let hours = QuietHours::parse(text.get_ref());
        hours.map(Some).ok_or_else(|| {
            let what = format!(
                "quiet is {:?}, not hours like \"22:00-07:00\"",
                text.get_ref()
            );
            self.wrong(&text.span(), what)
        })
    }

    fn zone(&self) -> Result<Option<chrono_tz::Tz>, ConfigError> {
        let Some(text) = &self.raw.zone else {
            return Ok(None);
        };
        text.get_ref().parse().map(Some).map_err(|_| {
            let what = format!(
                "{:?} is not a time zone like \"Europe/Berlin\"",
                text.get_ref()
            );
            self.wrong(&text.span(), what)
        })
    }
}
