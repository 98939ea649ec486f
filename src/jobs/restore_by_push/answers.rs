//! The answers of the other side: events, one JSON object a line.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::RemoteError;
use crate::base::progress::Stage;
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::EXCHANGE;
use crate::storage::{ViaEnd, ViaOutput, ViaProcess};

/// The answer that is awaited, and for how long the other side may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// It is ready; within this time in all.
    Ready(Duration),
    /// It has received everything.
    Received(Duration),
    /// It has ended.
    End(Duration),
}

/// The awaited answer, or the end of all answers.
#[derive(Debug)]
pub(super) enum Answered {
    /// It is ready, and its configuration names the host so.
    Ready(String),
    /// It has received and verified everything.
    Received,
    /// It says nothing more.
    Ended(Ended),
}

/// The last answers.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The result of the restore in place.
    pub(super) verdict: Option<Value>,
    /// The report of the run. `None`: the connection broke.
    pub(super) report: Option<Value>,
}

impl Until {
    /// Returns how long the next line may take.
    fn patience(self, since: Instant) -> Duration {
        match self {
            Self::Ready(all) => all.saturating_sub(since.elapsed()),
            Self::Received(silence) | Self::End(silence) => silence,
        }
    }
}

/// Reads answers up to the awaited one, and passes on what is for the operator. `there` names the
/// other side.
pub(super) fn until(
    process: &ViaProcess,
    until: Until,
    there: &str,
    front: &dyn FrontEnd,
) -> Result<Answered, JobError> {
    let began = Instant::now();
    let mut ended = Ended::default();
    loop {
        let line = match process.next(until.patience(began))? {
            Some(ViaOutput::Printed(line)) => line,
            Some(ViaOutput::Said(line)) => {
                if let Some(text) = line.strip_prefix("warning: ") {
                    front.warn(&format!("{there}: {text}"));
                }
                continue;
            }
            None => return Ok(Answered::Ended(ended)),
        };
        // The login shell may print lines of its own.
        let Ok(mut event) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        match (event["event"].as_str().unwrap_or_default(), until) {
            ("ready", Until::Ready(_)) => return ready(&event, there),
            ("received", Until::Received(_)) => return Ok(Answered::Received),
            ("verdict", _) => ended.verdict = Some(event["verdict"].take()),
            ("report", _) => ended.report = Some(event["report"].take()),
            _ => show(&event, there, front),
        }
    }
}

fn ready(event: &Value, there: &str) -> Result<Answered, JobError> {
    if event["exchange"].as_u64() == Some(EXCHANGE) {
        let host = event["host"].as_str().unwrap_or(there);
        return Ok(Answered::Ready(host.to_owned()));
    }
    let version = event["version"].as_str().unwrap_or("unknown");
    let text = format!("the sealift there ({there}) has version {version}, which speaks otherwise");
    Err(JobError::work(text).with_next(SAME_VERSION))
}

const SAME_VERSION: &str = concat!(
    "install sealift ",
    env!("CARGO_PKG_VERSION"),
    " on both machines"
);

/// Shows an event to the operator of this side.
fn show(event: &Value, there: &str, front: &dyn FrontEnd) {
    let text = || event["text"].as_str().unwrap_or_default();
    match event["event"].as_str() {
        Some("note") => front.note(&format!("{there}: {}", text())),
        Some("warning") => front.warn(&format!("{there}: {}", text())),
        Some("stage") => {
            if let Ok(stage) = serde_json::from_value::<Stage>(event["stage"].clone()) {
                front.stage(stage, Some(there));
            }
        }
        _ => {}
    }
}

/// Returns the errors of a report.
pub(super) fn errors(report: &Value) -> Vec<RemoteError> {
    let errors = report["errors"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    errors
        .map(|error| RemoteError {
            text: text(&error["text"]).unwrap_or_default(),
            causes: error["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text)
                .collect(),
            next: text(&error["next"]),
        })
        .collect()
}

/// Returns the error of another side that was never ready.
pub(super) fn never_ready(via: &str, ended: &Ended, end: Option<&ViaEnd>) -> JobError {
    if let Some(report) = &ended.report {
        let is_request = report["exit_code"] == 2;
        let errors = errors(report).into_iter().next();
        let error = errors.unwrap_or_else(|| RemoteError {
            text: "it names no reason".to_owned(),
            causes: Vec::new(),
            next: None,
        });
        let causes = error.causes.iter().map(|cause| format!(": {cause}"));
        let text = format!(
            "{via} refuses: {}{}",
            error.text,
            causes.collect::<String>()
        );
        let refused = match is_request {
            true => JobError::request(text),
            false => JobError::work(text),
        };
        return match error.next {
            Some(next) => refused.with_next(format!("there: {next}")),
            None => refused,
        };
    }
    let how = how_it_ended(end);
    let (code, said) = match end {
        Some(end) => (end.code, end.said.as_str()),
        None => (None, ""),
    };
    let is_missing = code == Some(127) || said.contains("sealift: not found");
    let is_old =
        code == Some(2) && (said.contains("unexpected argument") || said.contains("--in-place"));
    if is_missing {
        return JobError::work(format!("there is no sealift at {via}: {how}")).with_next(
            "install sealift there; if its directory is not in the PATH of such a command, add it: \
             --via \"ssh root@HOST env PATH=/usr/local/bin:/usr/bin:/bin\"",
        );
    }
    if is_old {
        let text = format!("the sealift at {via} is too old for a restore by push: {how}");
        return JobError::work(text).with_next(SAME_VERSION);
    }
    JobError::work(format!("cannot reach a sealift by {via}: {how}")).with_next(
        "try the command by hand, with `sealift --version` after it; it must ask nothing on its standard input",
    )
}

/// Returns how the process of the command ended, as a part of a sentence.
pub(super) fn how_it_ended(end: Option<&ViaEnd>) -> String {
    let Some(end) = end else {
        return "it does not end".to_owned();
    };
    let code = end
        .code
        .map_or("a signal".to_owned(), |code| format!("code {code}"));
    match end.said.is_empty() {
        true => format!("it ended with {code}"),
        false => format!("it ended with {code}: {}", end.said),
    }
}
