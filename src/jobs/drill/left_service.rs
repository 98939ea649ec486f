//! The record of a service that a drill starts, and what the next drill does with one whose drill
//! was killed.
//!
//! The record is written into the drill's own directory before `start` runs, and removed after
//! `stop` ran. Anyone may make a directory with such a name in `/tmp`: only one of this user's is
//! read, and no command in it is ever run. What runs is the `stop` of this drill's own request, if
//! it is the one that belongs to the service.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::DrillService;
use super::service::DrillEnvironment;
use crate::base::error_chain::with_causes;
use crate::base::openat::{Dir, Meta, PrivateDir};
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::{DRILL_DIRS, TREE};
use crate::producer::RunHook;

/// The record's name in the drill's directory.
const RECORD: &str = "service.json";
/// A longer record is not read.
const MOST_BYTES: u64 = 64 << 10;

/// A service that was started, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceRecord {
    /// The command that stops it, for comparison.
    stop: String,
    environment: DrillEnvironment,
}

fn text_of(service: &DrillService) -> String {
    format!("{:?}", service.stop)
}

/// Writes the record into `dir`, before the service is started.
pub(super) fn record(
    dir: &Dir,
    service: &DrillService,
    environment: &DrillEnvironment,
) -> io::Result<()> {
    let record = ServiceRecord {
        stop: text_of(service),
        environment: environment.clone(),
    };
    let mut file = dir.create_file(RECORD, 0o600)?;
    file.write_all(&serde_json::to_vec(&record)?)
}

/// Removes the record, after the service was stopped.
pub(super) fn forget(dir: &Dir) {
    // One that stays makes the next drill stop the service again, which is harmless.
    let _ = dir.remove_file(RECORD);
}

/// Stops the services that killed drills left, whose directories are in `scratch` [default: the
/// system's directory for temporary files]. `service`: that of the drill that begins.
pub(super) fn stop_left(
    scratch: Option<&Path>,
    service: Option<&DrillService>,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    let temporary = std::env::temp_dir();
    // A directory that cannot be read is refused where the drill makes its own.
    let Ok(parent) = Dir::open(scratch.unwrap_or(&temporary)) else {
        return Ok(());
    };
    for entry in parent.entries().unwrap_or_default() {
        let mut prefixes = DRILL_DIRS.iter();
        if prefixes.any(|prefix| PrivateDir::is_named(&entry.name, OsStr::new(prefix)))
            && let Some((dir, record)) = left(&parent, &entry.name)
        {
            stop(&dir, record, service, front)?;
        }
    }
    Ok(())
}

/// Returns the directory `name` and its record, if its drill has ended and was this user's.
fn left(parent: &Dir, name: &OsStr) -> Option<(Dir, ServiceRecord)> {
    let dir = parent.sub(name).ok()?;
    let meta = Meta::of_fd(&dir).ok()?;
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || meta.permissions() & 0o077 != 0 {
        return None;
    }
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    let (file, _) = dir.open_file(RECORD).ok()?;
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    Some((dir, serde_json::from_slice(&text).ok()?))
}

fn stop(
    dir: &Dir,
    record: ServiceRecord,
    service: Option<&DrillService>,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    let Some(service) = service.filter(|service| text_of(service) == record.stop) else {
        front.warn(&format!(
            "a drill that was killed left a service, and this drill does not have its `stop`, {}: stop it",
            record.stop
        ));
        forget(dir);
        return Ok(());
    };
    let environment = DrillEnvironment {
        // What the record says of this is not trusted.
        restored: dir.path().join(TREE).display().to_string(),
        ..record.environment
    };
    let hook = RunHook {
        line: &service.stop,
        input: &[],
        environment: &environment.pairs(),
        timeout: service.timeout,
    };
    match hook.run() {
        Ok(_) => {
            front.note("stopped the service that a killed drill left");
            forget(dir);
            Ok(())
        }
        Err(error) => {
            // The record stays: the next drill tries again. The decrypted files do not.
            if let Ok(tree) = dir.sub(TREE) {
                let _ = tree.clear();
            }
            let text = format!(
                "a drill that was killed left a service, and its `stop` failed: {}",
                with_causes(&error)
            );
            Err(JobError::work(text).with_next(format!(
                "stop the service, remove {}, and drill again",
                dir.path().display()
            )))
        }
    }
}
