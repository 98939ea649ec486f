//! The admin API of AtoCore, so that the commands of its procedure work on this agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer;
use super::call::HttpCall;
use super::problem::HttpProblem;
use super::views::runs::row;
use super::{HttpParts, is_over};
use crate::base::ids::Stamp;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::run_report::Trigger;
use crate::producer::{self, LocalSnapshot};
use crate::serve::handle::{RunKind, RunRequest};
use crate::state::history::EndedRun;

/// How often the history is read while a run does not show itself.
const LOOK: Duration = Duration::from_millis(500);
/// How long a run may be missing from both the agent's state and the history.
const MISSING: Duration = Duration::from_secs(30);
/// Endings of the codes that a validation reports.
const CODES: &[&str] = &[
    "_missing",
    "_integrity_check_failed",
    "_invalid_json",
    "metadata_invalid",
];

/// Until when the caller waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BackupWait {
    /// Until the snapshot is validated.
    #[default]
    Snapshot,
    /// Until the targets have it.
    Push,
}

/// What to back up. Unknown members are no error, as with AtoCore.
#[derive(Deserialize)]
struct AdminBackupBody {
    #[serde(default)]
    include_chroma: bool,
    #[serde(default)]
    wait: BackupWait,
}

/// What became of the run.
struct AdminOutcome {
    id: String,
    /// `backup-metadata.json` of the validated snapshot; `None`: there is none.
    metadata: Option<Value>,
    /// `None`: the run goes on.
    end: Option<EndedRun>,
}

/// Backs up, and answers once the snapshot is validated or pushed. The run goes on if the caller
/// goes away.
pub(super) async fn start(
    http: &Arc<HttpParts>,
    call: HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: AdminBackupBody = call.read()?;
    let config = http.state().config;
    let request = RunRequest {
        kind: RunKind::Backup,
        trigger: Trigger::Api,
        include: included(&config, body.include_chroma)?,
        target: None,
        note: None,
    };
    let id = http.handle.start(request).await?;
    let mut shutdown = call.shutdown.clone();
    let outcome = tokio::select! {
        outcome = wait(http, id, body.wait) => outcome?,
        () = is_over(&mut shutdown) => return Err(HttpProblem::stopping()),
    };
    answer::ok(&http.disk.run(move || reply(&config, outcome)).await?)
}

/// Returns the names of the sources that the run takes on request.
fn included(config: &Config, include_chroma: bool) -> Result<Vec<String>, HttpProblem> {
    let mut sources = config.sources.iter();
    let store = sources.find(|source| source.is_vector_store());
    match (include_chroma, store) {
        (true, Some(source)) if source.on_request => Ok(vec![source.name.clone()]),
        (true, None) => {
            let detail = "this host has no vector store to include";
            Err(HttpProblem::conflict("no_chroma", detail)
                .with_next("send include_chroma: false, or add the source to the configuration"))
        }
        _ => Ok(Vec::new()),
    }
}

/// Follows the run `id`.
async fn wait(
    http: &Arc<HttpParts>,
    id: String,
    until: BackupWait,
) -> Result<AdminOutcome, HttpProblem> {
    let mut state = http.handle.state.clone();
    let mut outcome = AdminOutcome {
        id,
        metadata: None,
        end: None,
    };
    let mut seen = Instant::now();
    loop {
        let is_running = {
            let now = state.borrow_and_update();
            let run = now.running.as_ref().filter(|run| run.id == outcome.id);
            let snapshot = run.and_then(|run| run.snapshot.clone());
            outcome.metadata = snapshot.or(outcome.metadata);
            run.is_some()
        };
        if outcome.metadata.is_some() && until == BackupWait::Snapshot {
            return Ok(outcome);
        }
        if is_running {
            seen = Instant::now();
        } else {
            outcome.end = ended(http, &outcome.id).await?;
            if outcome.end.is_some() {
                return Ok(outcome);
            }
            if seen.elapsed() > MISSING {
                let detail = format!("run {} ended, and the history does not say how", outcome.id);
                return Err(HttpProblem::failed(detail).with("run", outcome.id));
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, state.changed()).await {
            return Err(HttpProblem::stopping());
        }
    }
}

async fn ended(http: &Arc<HttpParts>, id: &str) -> Result<Option<EndedRun>, HttpProblem> {
    let (config, id) = (http.state().config, id.to_owned());
    let found = http.disk.run(move || row(&config, &id)).await?;
    Ok(found.and_then(|row| row.end))
}

/// Returns the answer about a run.
fn reply(config: &Config, outcome: AdminOutcome) -> Result<Value, HttpProblem> {
    let report = outcome.end.as_ref().and_then(|end| end.report.as_deref());
    let report: Value = report
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let stamp = outcome.end.as_ref().and_then(|end| end.stamp.as_deref());
    let stamp = stamp.and_then(|stamp| stamp.parse::<Stamp>().ok());
    let metadata = match (outcome.metadata, stamp) {
        (None, Some(stamp)) => local(config)?
            .into_iter()
            .find(|one| one.stamp == stamp)
            .and_then(|one| one.metadata),
        (metadata, _) => metadata,
    };
    let has_failed = outcome
        .end
        .as_ref()
        .is_some_and(|end| !["complete", "partial"].contains(&end.outcome.as_str()));
    if has_failed || metadata.is_none() {
        let message = outcome.end.as_ref().map_or("", |end| end.message.as_str());
        let problem = failure(message, &report, metadata.is_some());
        return Err(problem.with("run", outcome.id));
    }
    let mut document = metadata.and_then(|metadata| match metadata {
        Value::Object(members) => Some(members),
        _ => None,
    });
    let document = document.get_or_insert_default();
    document.insert("valid".to_owned(), json!(true));
    document.insert("run".to_owned(), json!(outcome.id));
    let targets = targets(config, &report);
    document.insert("targets".to_owned(), json!(targets));
    Ok(Value::Object(std::mem::take(document)))
}

/// Returns the answer about a run that failed.
fn failure(message: &str, report: &Value, is_valid: bool) -> HttpProblem {
    let errors = report["errors"].as_array().into_iter().flatten();
    let texts = errors.flat_map(|error| {
        let causes = error["causes"].as_array().into_iter().flatten();
        std::iter::once(&error["text"]).chain(causes)
    });
    let texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
    let detail = match (message, texts.first()) {
        ("", Some(text)) => text,
        ("", None) => "the backup failed",
        (message, _) => message,
    };
    let next = report["errors"][0]["next"].as_str();
    let mut codes: Vec<&str> = texts
        .iter()
        .chain([&message])
        .flat_map(|text| codes(text))
        .collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() && !is_valid {
        codes.push("backup_failed");
    }
    let problem = HttpProblem::failed(detail)
        .with("valid", is_valid)
        .with("errors", codes);
    match next {
        Some(next) => problem.with_next(next),
        None => problem,
    }
}

/// Returns the words of `text` that are codes of a validation.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(move |c| !is_part(c));
    words.filter(|word| {
        CODES
            .iter()
            .any(|ending| word.ends_with(ending) && word.contains('_'))
    })
}

/// Returns what became of the snapshot on each target.
fn targets(config: &Config, report: &Value) -> BTreeMap<String, String> {
    let reported = report["targets"].as_array();
    let state = |name: &str| {
        let mut all = reported.into_iter().flatten();
        let Some(target) = all.find(|target| target["name"] == name) else {
            return "pending".to_owned();
        };
        match (target["state"].as_str(), target["error"].as_str()) {
            (Some("behind"), Some(error)) => format!("behind: {error}"),
            (Some(state), _) => state.to_owned(),
            (None, _) => "pending".to_owned(),
        }
    };
    let names = config.targets.iter().map(|target| target.name.clone());
    names.map(|name| (name.clone(), state(&name))).collect()
}

fn local(config: &Config) -> Result<Vec<LocalSnapshot>, HttpProblem> {
    Ok(producer::list(&config.snapshots_dir).map_err(JobError::from)?)
}

/// The snapshots on this host, oldest first.
pub(super) async fn list(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let config = http.state().config;
    let document = http.disk.run(move || {
        let complete = local(&config)?.into_iter().filter_map(|one| {
            let Some(Value::Object(metadata)) = one.metadata else {
                return None;
            };
            let mut listed = Map::new();
            listed.insert("stamp".to_owned(), json!(one.stamp));
            listed.insert(
                "backup_root".to_owned(),
                json!(one.path.display().to_string()),
            );
            listed.insert("has_metadata".to_owned(), json!(true));
            // The directory knows better where it is.
            for (name, value) in metadata {
                listed.entry(name).or_insert(value);
            }
            Some(Value::Object(listed))
        });
        let complete: Vec<Value> = complete.collect();
        let dir = config.snapshots_dir.display().to_string();
        Ok(json!({ "backup_dir": dir, "backups": complete }))
    });
    answer::ok(&document.await?)
}

/// Checks a snapshot on this host.
pub(super) async fn validate(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let stamp = call.text().to_owned();
    // Only this form is a name in the directory, whether or not it is a time.
    if !has_form_of_stamp(&stamp) {
        let detail = "this is not a stamp like 20260407T060000Z";
        let status = StatusCode::BAD_REQUEST;
        return Err(HttpProblem::new(status, "not_a_stamp", detail));
    }
    let path = http.state().config.snapshots_dir.join(&stamp);
    let document = http.validations.run(move || {
        let validation = producer::validate(&path);
        Ok(json!({
            "stamp": stamp,
            "path": path.display().to_string(),
            "exists": path.exists(),
            "valid": validation.valid,
            "errors": validation.errors,
        }))
    });
    answer::ok(&document.await?)
}

/// Whether `text` is `YYYYMMDDTHHMMSSZ`, with any digits.
fn has_form_of_stamp(text: &str) -> bool {
    let form = "00000000T000000Z";
    let is_like = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_like)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_a_validation_are_found_in_its_texts() {
        let report = json!({"errors": [{
            "text": "the snapshot is not valid: db_integrity_check_failed, registry_invalid_json",
            "causes": ["file_missing: it is missing", "metadata_invalid"],
            "next": "take a fresh one",
        }]});
        let document = failure("the snapshot is not valid", &report, false).document();
        let codes = [
            "db_integrity_check_failed",
            "file_missing",
            "metadata_invalid",
            "registry_invalid_json",
        ];
        assert_eq!(document["errors"], json!(codes));
        assert_eq!(document["next"], "take a fresh one");
        let document = failure("", &Value::Null, false).document();
        assert_eq!(document["errors"], json!(["backup_failed"]));
        assert_eq!(document["detail"], "the backup failed");
    }
}
