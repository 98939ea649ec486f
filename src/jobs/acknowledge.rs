//! Acknowledges a finding: the operator says that it is as it should be.
//!
//! This acknowledges the present finding, not its code: the next time it is true, or if it gets
//! worse, it is reported again. That a source shrank is acknowledged in its figures, so that later
//! runs compare with the present ones; every other finding in the history.

use serde::Serialize;

use super::context::{FrontEnd, open_state};
use super::error::JobError;
use super::status::remembered_judgement;
use super::status::shown::open_history;
use super::targets::no_such_target;
use super::verdict::{FindingCode, VerdictFinding};
use crate::base::clock;
use crate::config::Config;
use crate::state::figures::{self, Memory, OpenAlarm};
use crate::state::history::Acknowledgement;

/// Which findings to acknowledge.
pub(crate) struct AckRequest<'a> {
    pub(crate) code: &'a str,
    /// Only findings about this target. `None`: all.
    pub(crate) target: Option<&'a str>,
    /// Only findings about this source. `None`: all.
    pub(crate) source: Option<&'a str>,
    /// The operator's reason.
    pub(crate) note: Option<&'a str>,
}

/// Findings before and after an acknowledgement.
#[derive(Debug, Serialize)]
pub(crate) struct AckReport {
    pub(crate) code: String,
    /// Figures of sources that shrank.
    pub(crate) acknowledged: Vec<OpenAlarm>,
    /// Findings with other codes.
    pub(crate) findings: Vec<VerdictFinding>,
    pub(crate) note: Option<String>,
    /// Figures of sources that shrank which are not acknowledged yet.
    pub(crate) still_open: Vec<OpenAlarm>,
}

impl AckRequest<'_> {
    /// Refuses a code that no finding has, and a target for findings about sources.
    pub(crate) fn check(&self) -> Result<FindingCode, JobError> {
        let Some(code) = FindingCode::parse(self.code) else {
            let text = format!("no finding {:?} can be acknowledged", self.code);
            let known: Vec<&str> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
            let known = known.join(", ");
            return Err(JobError::request(text).with_next(format!("the codes are: {known}")));
        };
        match (code, self.target, self.source) {
            (FindingCode::Shrunk, Some(target), _) => {
                let text = format!(
                    "{code} is about a source, and never about a target such as {target:?}"
                );
                let next = "name a source with --source, or omit --target";
                Err(JobError::request(text).with_next(next))
            }
            (code, _, Some(source)) if code != FindingCode::Shrunk => {
                let text = format!("{code} is never about a source such as {source:?}");
                let next = "name a target with --target, or omit --source";
                Err(JobError::request(text).with_next(next))
            }
            _ => Ok(code),
        }
    }
}

/// Acknowledges what `request` names.
pub(crate) fn run(
    config: &Config,
    request: &AckRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<AckReport, JobError> {
    match request.check()? {
        FindingCode::Shrunk => shrunk(config, request, front),
        code => finding(config, request, code),
    }
}

fn shrunk(
    config: &Config,
    request: &AckRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<AckReport, JobError> {
    // Locked meanwhile, since a running backup writes the same file.
    let state = open_state(config, front)?;
    let mut memory = figures::load(&state.dir)?.unwrap_or_default();
    if let Some(source) = request.source {
        check_source(config, &memory, source)?;
    }
    let acknowledged = memory.acknowledge(
        request.source,
        request.note,
        clock::in_seconds(clock::now()),
    );
    if !acknowledged.is_empty() {
        figures::save(&state.dir, &memory)?;
    }
    Ok(AckReport {
        code: request.code.to_owned(),
        acknowledged,
        findings: Vec::new(),
        note: request.note.map(str::to_owned),
        still_open: memory.open().to_vec(),
    })
}

/// Acknowledges findings as the last looks at the targets show them.
fn finding(
    config: &Config,
    request: &AckRequest<'_>,
    code: FindingCode,
) -> Result<AckReport, JobError> {
    if let Some(name) = request.target.filter(|name| config.target(name).is_none()) {
        return Err(no_such_target(config, name));
    }
    let now = clock::in_seconds(clock::now());
    let findings = remembered_judgement(config, now)?
        .verdict
        .findings
        .into_iter();
    let findings = findings.filter(|finding| {
        let is_about = |target| finding.target.as_deref() == Some(target);
        finding.code == code && request.target.is_none_or(is_about)
    });
    let findings: Vec<VerdictFinding> = findings.collect();
    let Some(history) = open_history(config)? else {
        let text = format!("there is no state directory {} yet", config.state.display());
        return Err(JobError::work(text).with_next("sealift backup"));
    };
    for finding in &findings {
        history.acknowledge(&Acknowledgement {
            code: code.as_str().to_owned(),
            target: finding.about().to_owned(),
            since: finding.since.unwrap_or(now),
            made_at: now,
            note: request.note.map(str::to_owned),
        })?;
    }
    Ok(AckReport {
        code: request.code.to_owned(),
        acknowledged: Vec::new(),
        findings,
        note: request.note.map(str::to_owned),
        still_open: Vec::new(),
    })
}

fn check_source(config: &Config, memory: &Memory, name: &str) -> Result<(), JobError> {
    let mut sources = config.sources.iter();
    let is_configured = sources.any(|source| source.name == name || source.to == name);
    if is_configured || memory.knows(name) {
        return Ok(());
    }
    let names = config.sources.iter().map(|source| source.name.as_str());
    let names: Vec<&str> = names.collect();
    let text = format!("no source is named {name:?}");
    Err(JobError::request(text).with_next(format!("there is {}", names.join(", "))))
}
