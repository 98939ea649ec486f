//! The verdict from what this host remembers: the catalog, the history, the state directory and the
//! configuration. It asks no target.

use chrono::{DateTime, Utc};

use super::facts::{self, FactSources};
use super::open_records;
use crate::config::Config;
use crate::jobs::context::open_catalog;
use crate::jobs::error::JobError;
use crate::jobs::shrunk;
use crate::jobs::signer_change::present_signer;
use crate::jobs::verdict::{Judged, Verdict, judge};

/// Returns the verdict from what this host remembers.
pub(crate) fn remembered_verdict(config: &Config, now: DateTime<Utc>) -> Result<Verdict, JobError> {
    remembered_judgement(config, now).map(|judged| judged.verdict)
}

/// Returns the verdict from what this host remembers, with the findings that were acknowledged.
/// Records in the history since when findings are open.
pub(crate) fn remembered_judgement(
    config: &Config,
    now: DateTime<Utc>,
) -> Result<Judged, JobError> {
    let (catalog, unreadable) = match open_catalog(config) {
        Ok(catalog) => (catalog, None),
        Err(error) => (None, Some(error.with_causes())),
    };
    let (history, looks) = open_records(config)?;
    // Warnings about the host's files are those of `status` and `backup`.
    let signer = present_signer(config, &|_| ());
    let last_run = facts::read_last_run(config, catalog.as_ref())?;
    let shrunk = shrunk::read(config, catalog.as_ref(), now);
    let observed = facts::gather(&FactSources {
        config,
        now,
        catalog: catalog.as_ref(),
        history: history.as_ref(),
        looks: &looks,
        last_run: last_run.as_ref(),
        refusal: unreadable.or_else(|| facts::refusal(config, &signer, catalog.as_ref())),
        shrunk: &shrunk,
    })?;
    let judged = judge(&observed);
    if let Some(history) = &history {
        facts::remember(history, &observed, &judged.first_seen)?;
    }
    Ok(judged)
}
