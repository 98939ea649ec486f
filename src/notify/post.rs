//! The channels over HTTP: ntfy, webhooks, healthchecks.

use std::time::Duration;

use super::item::{HealthPing, NotifyMessage, PingKind};
use super::{ChannelAnswer, text};
use crate::base::ids::hex;
use crate::config::NotifyEvent;
use crate::storage::{RequestContent, ServiceAnswer, ServiceError, ServiceRequest};

/// Longest body of a ping, in bytes: healthchecks keeps no more.
const PING_BYTES: usize = 100_000;
/// Longest text that an ntfy server takes as a message, in bytes.
const NTFY_BYTES: usize = 4_000;
/// Longest part of an answer in an error, in characters.
const SHOWN_CHARS: usize = 120;
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// What authenticates a webhook's request.
pub(super) struct WebhookKeys<'a> {
    pub(super) token: Option<&'a str>,
    pub(super) secret: Option<&'a str>,
}

/// Publishes the message under a topic.
pub(super) fn ntfy(
    url: &str,
    token: Option<&str>,
    message: &NotifyMessage,
    timeout: Duration,
) -> Result<ChannelAnswer, String> {
    let title = text::title(message);
    let (priority, tags) = match message.event {
        NotifyEvent::Red => ("5", "rotating_light"),
        NotifyEvent::Amber => ("3", "warning"),
        NotifyEvent::Recovered => ("2", "white_check_mark"),
        _ => ("2", "floppy_disk"),
    };
    let headers = [
        TEXT,
        ("Title", title.as_str()),
        ("Priority", priority),
        ("Tags", tags),
    ];
    let body = text::body(message);
    let content = RequestContent {
        headers: &headers,
        body: shortened(&body, NTFY_BYTES).as_bytes(),
    };
    let answer = accepted("ntfy", post(url, token, content, timeout))?;
    let value = serde_json::from_slice::<serde_json::Value>(&answer.body);
    let id = value
        .ok()
        .and_then(|value| Some(value.get("id")?.as_str()?.to_owned()));
    Ok(ChannelAnswer {
        status: answer.status.to_string(),
        id,
    })
}

/// Posts the message as JSON.
pub(super) fn webhook(
    url: &str,
    keys: &WebhookKeys<'_>,
    message: &NotifyMessage,
    timeout: Duration,
) -> Result<ChannelAnswer, String> {
    // A struct of numbers and texts can always be written.
    let body = serde_json::to_vec(message).unwrap_or_default();
    let signature = keys.secret.map(|secret| signature(secret, &body));
    let mut headers = vec![JSON, ("X-Sealift-Event", message.event.as_str())];
    if let Some(signature) = &signature {
        headers.push(("X-Sealift-Signature", signature));
    }
    let content = RequestContent {
        headers: &headers,
        body: &body,
    };
    let answer = accepted("the webhook", post(url, keys.token, content, timeout))?;
    Ok(ChannelAnswer {
        status: answer.status.to_string(),
        id: None,
    })
}

/// Returns `sha256=` and the HMAC of `body`.
fn signature(secret: &str, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex(ring::hmac::sign(&key, body).as_ref()))
}

/// Sends a ping. `url` has no slash at its end.
pub(super) fn healthchecks(
    url: &str,
    ping: &HealthPing,
    timeout: Duration,
) -> Result<ChannelAnswer, String> {
    let path = match ping.kind {
        PingKind::Start => "/start",
        PingKind::Success => "",
        PingKind::Fail => "/fail",
        PingKind::Log => "/log",
    };
    let query = ping.rid.as_ref().map(|rid| format!("?rid={rid}"));
    let url = format!("{url}{path}{}", query.unwrap_or_default());
    let body = shortened(&ping.body, PING_BYTES);
    let content = RequestContent {
        headers: &[TEXT],
        body: body.as_bytes(),
    };
    let answer = accepted("healthchecks", post(&url, None, content, timeout))?;
    // Some pings are dropped with a 200.
    let said = printable(&answer.body);
    match said.contains("not found") || said.contains("rate limited") {
        true => Err(format!("healthchecks dropped the ping: {said}")),
        false => Ok(ChannelAnswer {
            status: answer.status.to_string(),
            id: None,
        }),
    }
}

fn post(
    url: &str,
    token: Option<&str>,
    content: RequestContent<'_>,
    timeout: Duration,
) -> Result<ServiceAnswer, ServiceError> {
    let request = ServiceRequest {
        method: "POST",
        url,
        body: None,
        token,
        insecure: false,
        timeout,
    };
    request.send_content(content)
}

/// Returns the answer if it is a success.
fn accepted(
    who: &str,
    answer: Result<ServiceAnswer, ServiceError>,
) -> Result<ServiceAnswer, String> {
    let answer = match answer {
        Ok(answer) => answer,
        // Its text has the URL.
        Err(ServiceError::Malformed(_)) => return Err(format!("{who} has no valid URL")),
        Err(error) => return Err(format!("{who}: {error}")),
    };
    match answer.status {
        200..300 => Ok(answer),
        300..400 => Err(format!(
            "{who} answers {}, a redirect, which is not followed: write the final URL",
            answer.status
        )),
        status => {
            let said = printable(&answer.body);
            let said = match said.is_empty() {
                true => said,
                false => format!(": {said}"),
            };
            Err(format!("{who} answers {status}{said}"))
        }
    }
}

/// Returns the begin of an answer, in one line.
fn printable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text = text.trim().chars().take(SHOWN_CHARS);
    text.map(plain).collect()
}

/// Returns the begin of `text`, in at most `most` bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        let signature = signature("Jefe", b"what do ya want for nothing?");
        assert_eq!(
            signature,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("a\u{e9}", 2), "a");
        assert_eq!(shortened("abc", 9), "abc");
    }
}
