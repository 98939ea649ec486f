//! Writes the metrics into a file for the textfile collector of the node exporter.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::render_for_textfile;
use crate::base::fs::{TEMPORARY, clear_abandoned};
use crate::jobs::error::JobError;
use crate::jobs::metric_facts::MetricFacts;
use crate::jobs::verdict::Verdict;

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the metrics to {path}")]
struct TextfileError {
    path: String,
    #[source]
    source: io::Error,
}

/// Replaces the file `path` by the metrics, in one step, readable for every user: the exporter has
/// one of its own. It has no metrics of a process, since the exporter has those under the same
/// names, and refuses doubles.
pub(crate) fn write_textfile(
    path: &Path,
    facts: &MetricFacts,
    verdict: &Verdict,
) -> Result<(), JobError> {
    let text = render_for_textfile(facts, verdict);
    replace(path, text.as_bytes()).map_err(|source| {
        let path = path.display().to_string();
        JobError::work(TextfileError { path, source }).with_next(
            "make its directory, which this user must be able to write, or change `textfile` in [serve]",
        )
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    clear_abandoned(dir);
    // The exporter reads every file that ends in `.prom`, and this one does not.
    let mut temp = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)?;
    temp.write_all(bytes)?;
    // Not when the file is made, where the umask would count.
    let readable = Permissions::from_mode(0o644);
    temp.as_file().set_permissions(readable)?;
    temp.persist(path).map_err(|error| error.error)?;
    Ok(())
}
