//! Sends a message or a ping to one channel of the configuration, once.
//!
//! What is sent has no path and no table in it: the caller sees to that. Nothing here decides what
//! is sent, or keeps state. An error never contains a secret: no URL, no token, and no answer of a
//! server that repeats one.

mod command;
mod email;
mod item;
mod post;
mod secret;
mod text;

use std::time::Duration;

use crate::config::{ChannelKind, NotifyChannel};

pub(crate) use item::{
    HealthPing, MessageRun, NotifyItem, NotifyMessage, PingKind, ReportedFinding, ReportedVerdict,
};

use self::secret::Redaction;

/// How long a request, or a dialogue with a mail server, may take.
pub(crate) const NETWORK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command may take.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// What a channel answered when it accepted something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelAnswer {
    /// In a few words, such as `200` or `250 queued`.
    pub(crate) status: String,
    /// The id that the service gave to it; `None`: it has none.
    pub(crate) id: Option<String>,
}

/// Why a channel did not accept something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ChannelError(String);

/// Reads the secrets of `channel`, and returns what is wrong with them.
pub(crate) fn check_secrets(channel: &NotifyChannel) -> Result<(), ChannelError> {
    let mut redaction = Redaction::default();
    let read = match &channel.kind {
        ChannelKind::Ntfy { url, token } => redaction
            .url(url)
            .and_then(|_| redaction.word(token.as_ref()).map(drop)),
        ChannelKind::Webhook { url, token, secret } => redaction
            .url(url)
            .and_then(|_| redaction.word(token.as_ref()))
            .and_then(|_| redaction.word(secret.as_ref()).map(drop)),
        ChannelKind::Email(settings) => redaction.mail_server(settings).map(drop),
        ChannelKind::Healthchecks { url, .. } => redaction.ping_url(url).map(drop),
        ChannelKind::Command(_) => Ok(()),
    };
    read.map_err(|error| ChannelError(redaction.apply(&error)))
}

/// Sends `item` to `channel` within `most`, or less if the channel is quicker to give up.
pub(crate) fn send(
    channel: &NotifyChannel,
    item: &NotifyItem,
    most: Duration,
) -> Result<ChannelAnswer, ChannelError> {
    let mut redaction = Redaction::default();
    let sent = dispatch(channel, item, most, &mut redaction);
    sent.map_err(|error| ChannelError(redaction.apply(&error)))
        .map(|answer| ChannelAnswer {
            status: redaction.apply(&answer.status),
            id: answer.id.map(|id| redaction.apply(&id)),
        })
}

fn dispatch(
    channel: &NotifyChannel,
    item: &NotifyItem,
    most: Duration,
    redaction: &mut Redaction,
) -> Result<ChannelAnswer, String> {
    let network = most.min(NETWORK_TIMEOUT);
    match (&channel.kind, item) {
        (ChannelKind::Ntfy { url, token }, NotifyItem::Message(message)) => {
            let (url, token) = (redaction.url(url)?, redaction.word(token.as_ref())?);
            post::ntfy(&url, token.as_deref(), message, network)
        }
        (ChannelKind::Webhook { url, token, secret }, NotifyItem::Message(message)) => {
            let (url, token) = (redaction.url(url)?, redaction.word(token.as_ref())?);
            let secret = redaction.word(secret.as_ref())?;
            let keys = post::WebhookKeys {
                token: token.as_deref(),
                secret: secret.as_deref(),
            };
            post::webhook(&url, &keys, message, network)
        }
        (ChannelKind::Email(settings), NotifyItem::Message(message)) => {
            let server = redaction.mail_server(settings)?;
            email::send(&server, settings, message, network)
        }
        (ChannelKind::Command(line), NotifyItem::Message(message)) => {
            command::run(line, message, most.min(COMMAND_TIMEOUT))
        }
        (ChannelKind::Healthchecks { url, .. }, NotifyItem::Ping(ping)) => {
            let url = redaction.ping_url(url)?;
            post::healthchecks(&url, ping, network)
        }
        // The channel had another kind when the item was written.
        (kind, _) => Err(format!("{} does not take what was to be sent", kind.name())),
    }
}
