//! Acknowledges a finding: the operator says that it is as it should be.
//!
//! This acknowledges the present finding, not its code: the next time it is true it is reported
//! again.

use serde::Serialize;

use super::context::{FrontEnd, open_state};
use super::error::JobError;
use super::shrunk::CODE;
use crate::base::clock;
use crate::config::Config;
use crate::state::figures::{self, Memory, OpenAlarm};

/// Codes of findings that can be acknowledged.
const CODES: &[&str] = &[CODE];

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
    pub(crate) acknowledged: Vec<OpenAlarm>,
    pub(crate) note: Option<String>,
    /// Findings that are not acknowledged yet.
    pub(crate) still_open: Vec<OpenAlarm>,
}

impl AckRequest<'_> {
    /// Refuses a code that no finding has, and a target for findings about sources.
    pub(crate) fn check(&self) -> Result<(), JobError> {
        if !CODES.contains(&self.code) {
            let text = format!("no finding {:?} can be acknowledged", self.code);
            let known = CODES.join(", ");
            return Err(JobError::request(text).with_next(format!("the codes are: {known}")));
        }
        if let Some(target) = self.target {
            let text =
                format!("{CODE} is about a source, and never about a target such as {target:?}");
            let next = "name a source with --source, or omit --target";
            return Err(JobError::request(text).with_next(next));
        }
        Ok(())
    }
}

/// Acknowledges what `request` names.
pub(crate) fn run(
    config: &Config,
    request: &AckRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<AckReport, JobError> {
    request.check()?;
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
        note: request.note.map(str::to_owned),
        still_open: memory.open().to_vec(),
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
