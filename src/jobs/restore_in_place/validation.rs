//! Validates the content of a restore in place before anything is done with it.

use super::because::{Because, code};
use crate::config::Source;
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::InPlaceContent;
use crate::producer;

/// Returns the reasons against restoring `chosen` from `content`. Content with a record was
/// compared with it already, and each file is again when it is copied.
pub(super) fn refusals(
    content: &InPlaceContent,
    chosen: &[&Source],
) -> Result<Vec<Because>, JobError> {
    if content.record.is_some() {
        return Ok(Vec::new());
    }
    let validation = producer::validate(&content.dir);
    let concerns = |error: &&String| {
        let of_source = chosen.iter().any(|source| {
            let rest = error.strip_prefix(source.name.as_str());
            rest.is_some_and(|rest| rest.starts_with('_'))
        });
        of_source || matches!(error.as_str(), "snapshot_missing" | "metadata_invalid")
    };
    let refusals = validation.errors.iter().filter(concerns).map(|error| {
        let name = error.strip_suffix("_integrity_check_failed");
        let name = name.or_else(|| error.strip_suffix("_invalid_json"));
        let name = name.or_else(|| error.strip_suffix("_snapshot_missing"));
        let source = name.and_then(|name| chosen.iter().find(|source| source.name == name));
        let details = validation.details.iter();
        let details: Vec<&str> = details
            .filter(|detail| source.is_none_or(|source| detail.starts_with(&source.to)))
            .map(String::as_str)
            .collect();
        let text = format!("{error}: {}", details.join("; "));
        Because::new(error, text, next(error))
    });
    Ok(refusals.collect())
}

/// Returns the next step for a code of `validate`.
fn next(error: &str) -> &'static str {
    match error {
        code::CHROMA_MISSING => {
            "restore without it (--only db --only registry) and ingest the documents again, or restore a snapshot \
             that has it"
        }
        _ if error.ends_with("_integrity_check_failed") => {
            "restore an older snapshot (`sealift list`), or the same one from a target; if new backups fail too, \
             suspect the disk"
        }
        _ if error.ends_with("_invalid_json") => {
            "restore an older snapshot (`sealift list`), or leave it out with --only"
        }
        _ => "restore another snapshot (`sealift list`), or the same one from a target",
    }
}
