//! Asks AtoCore for a snapshot.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::atocore_error::AtoCoreError;
use crate::config::AtoCoreSource;
use crate::storage::{ServiceAnswer, ServiceRequest, read_token};

/// Time between two requests while AtoCore ingests.
const PAUSE: Duration = Duration::from_secs(2);
/// The least time that a request has, however little is left.
const LEAST: Duration = Duration::from_secs(1);
/// Longest part of an answer in a message, in characters.
const SHOWN_CHARS: usize = 200;

/// Asks for a snapshot, again and again while AtoCore ingests. Returns the `backup_root` of the
/// answer.
pub(super) fn ask(source: &AtoCoreSource, with_chroma: bool) -> Result<String, AtoCoreError> {
    let url = format!("{}/admin/backup", source.url);
    let unanswered = |source| AtoCoreError::NoAnswer {
        url: url.clone(),
        source,
    };
    let token = source.token_file.as_deref().map(read_token).transpose();
    let token = token.map_err(unanswered)?;
    let started = Instant::now();
    loop {
        let left = source.timeout.saturating_sub(started.elapsed());
        let request = ServiceRequest {
            method: "POST",
            url: &url,
            body: Some(&json!({ "include_chroma": with_chroma })),
            token: token.as_deref(),
            insecure: source.insecure,
            timeout: left.max(LEAST),
        };
        let answer = request.send().map_err(unanswered)?;
        if answer.status != 409 {
            return backup_root(url.clone(), &answer);
        }
        if started.elapsed() + PAUSE >= source.timeout {
            return Err(AtoCoreError::Busy {
                waited: started.elapsed(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

fn backup_root(url: String, answer: &ServiceAnswer) -> Result<String, AtoCoreError> {
    let body = serde_json::from_slice::<Value>(&answer.body);
    if !(200..300).contains(&answer.status) {
        return Err(AtoCoreError::Refused {
            url,
            status: answer.status,
            said: said(answer, body.ok().as_ref()),
        });
    }
    let Ok(body) = body else {
        let what = "is not JSON".to_owned();
        return Err(AtoCoreError::Unreadable { url, what });
    };
    match body.get("backup_root").and_then(Value::as_str) {
        Some(root) if !root.is_empty() => Ok(root.to_owned()),
        _ => {
            let what = "names no backup_root".to_owned();
            Err(AtoCoreError::Unreadable { url, what })
        }
    }
}

/// Returns the reason that an answer has, for the end of a message.
fn said(answer: &ServiceAnswer, body: Option<&Value>) -> String {
    if let Some(location) = &answer.location {
        return format!(", a redirect to {}", printable(location));
    }
    let detail = ["detail", "error", "message"].iter().find_map(|key| {
        let value = body?.get(*key)?;
        Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    });
    let text = detail.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", printable(text)),
    }
}

/// Returns the begin of another program's `text` in one line, without characters that a terminal
/// would obey.
pub(super) fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(SHOWN_CHARS).map(plain).collect()
}
