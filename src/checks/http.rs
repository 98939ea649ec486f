//! A check of a service's answer.

use std::time::Duration;

use serde_json::Value;

use super::Attempt;
use super::expect::{Outcome, printable};
use crate::config::HttpCheck;
use crate::storage::{ServiceAnswer, ServiceRequest, read_token};

/// Longest part of an unexpected answer in a message, in characters.
const SHOWN_CHARS: usize = 120;

/// Sends the request once, and compares the answer.
pub(super) fn attempt(check: &HttpCheck, base_url: Option<&str>, timeout: Duration) -> Attempt {
    let Some(base_url) = base_url else {
        return Attempt::failed("there is no `base_url`: set it in [restore], or in [drill]");
    };
    let token = check.token_file.as_deref().map(read_token).transpose();
    let token = match token {
        Ok(token) => token,
        Err(error) => return Attempt::failed(error.to_string()),
    };
    let url = format!("{base_url}{}", check.path);
    let request = ServiceRequest {
        method: &check.method,
        url: &url,
        body: check.body.as_ref(),
        token: token.as_deref(),
        insecure: false,
        timeout,
    };
    match request.send() {
        Ok(answer) => compare(check, &answer),
        // There is no value: an explanation `exists:false` applies.
        Err(error) => Attempt::wrong(format!("{url}: {error}"), vec![None]),
    }
}

fn compare(check: &HttpCheck, answer: &ServiceAnswer) -> Attempt {
    if answer.status != check.status {
        let (status, wanted) = (answer.status, check.status);
        let found = match &answer.location {
            Some(location) => format!(
                "answered {status}, a redirect to {}, which is not followed; expected {wanted}",
                printable(location, SHOWN_CHARS)
            ),
            None => format!("answered {status}, expected {wanted}{}", said(&answer.body)),
        };
        return Attempt::wrong(found, vec![Some(status.into())]);
    }
    let mut outcome = Outcome::default();
    outcome.note(true, format!("answered {}", answer.status));
    if check.json.is_empty() {
        return outcome.finish();
    }
    let Ok(value) = serde_json::from_slice::<Value>(&answer.body) else {
        return Attempt::failed(format!("the answer is not JSON{}", said(&answer.body)));
    };
    for (pointer, conditions) in &check.json {
        let what = match pointer.as_str() {
            "" => "the answer",
            pointer => pointer,
        };
        outcome.add(what, conditions, value.pointer(pointer));
    }
    outcome.finish()
}

/// Returns the begin of a body that was not expected, for the end of a message.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", printable(text, SHOWN_CHARS)),
    }
}
