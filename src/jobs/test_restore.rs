//! A test restore: decrypts a snapshot and verifies every file, in a directory that is removed
//! again.
//!
//! A file's parts come in any order from many archives, and its hash covers the whole, so the
//! decrypted files are on disk meanwhile. They are also removed if the process is terminated.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::cleanup::CleanupGuard;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::PrivateDir;
use crate::base::progress::Progress;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::index::Skipped;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{self, DatabaseCheck, ExtractError, RestoreError, RestoreRequest};
use crate::scrub::Problem;

/// The result of a test restore.
#[derive(Debug)]
pub enum TestRestore {
    /// Every file verified.
    Good {
        /// The snapshot.
        stamp: Stamp,
        /// Files that were restored.
        files: u64,
        /// Bytes of these files.
        bytes: u64,
        /// Databases that passed their checks.
        databases: u64,
        /// Entries that the snapshot was made without.
        lacks: Vec<Skipped>,
    },
    /// Archives that it needs are in cold storage.
    Frozen {
        /// The snapshot.
        stamp: Stamp,
        /// How many of them.
        archives: u64,
        /// Bytes of these archives.
        bytes: u64,
    },
    /// The restore failed.
    Wrong(Box<Problem>),
}

/// Restores the whole of `snapshot` of `chain` into a new directory in `scratch`, and removes it.
pub async fn test_restore(
    folder: &HostFolder,
    snapshot: &VerifiedSnapshot,
    identities: Arc<Identities>,
    chain: Chain,
    scratch: &Arc<PrivateDir>,
    progress: Arc<dyn Progress>,
) -> TestRestore {
    let stamp = snapshot.stamp();
    let name = OsStr::new("restored");
    let owed = {
        // A process that ends writes nothing more there.
        let all = Arc::clone(scratch);
        CleanupGuard::register(move || match all.remove() {
            Ok(()) => "removed what was restored to verify it".to_owned(),
            Err(error) => left(&all, &error),
        })
    };
    let request = RestoreRequest {
        // By its hash, which no later snapshot shares.
        snapshot: snapshot.choice(),
        to: PathBuf::from(name),
        paths: Vec::new(),
        overwrite: false,
        at_least: None,
        devices: false,
        databases: DatabaseCheck::Repeat,
    };
    let restored = async {
        let plan = restore::plan_within(scratch.dir(), folder, chain, &request, identities).await?;
        restore::execute(plan, progress).await
    };
    let restored = restored.await;
    let removed = scratch.dir().remove_tree(name);
    owed.take();
    match (restored, removed) {
        (Ok(_), Err(error)) => wrong(Problem::NotRestored {
            stamp,
            why: left(scratch, &error),
        }),
        (Ok(report), Ok(())) => TestRestore::Good {
            stamp,
            files: report.files,
            bytes: report.bytes,
            databases: report.databases.len() as u64,
            lacks: report.skipped_in_snapshot,
        },
        (Err(error), _) => failed(stamp, &error),
    }
}

fn left(scratch: &PrivateDir, error: &io::Error) -> String {
    let tree = scratch.dir().path().display();
    format!("{tree} holds decrypted files and could not be removed ({error}): remove it")
}

fn wrong(problem: Problem) -> TestRestore {
    TestRestore::Wrong(Box::new(problem))
}

/// Decides whether the snapshot is to blame for the error, or the circumstances of the restore.
fn failed(stamp: Stamp, error: &RestoreError) -> TestRestore {
    let text = with_causes(error);
    let is_its_fault = matches!(
        error,
        RestoreError::Plan(_)
            | RestoreError::Index { .. }
            | RestoreError::IndexArchives { .. }
            | RestoreError::IndexContent { .. }
            | RestoreError::Incomplete { .. }
            | RestoreError::Extract(ExtractError::Databases(_))
    );
    let mut damaged = error.damaged().iter();
    let is_ours = damaged.any(|one| one.error.spares_the_archive());
    match error {
        RestoreError::Frozen(frozen) => TestRestore::Frozen {
            stamp,
            archives: frozen.archives.len() as u64,
            bytes: frozen.bytes(),
        },
        _ if is_its_fault && !is_ours => wrong(Problem::Content { stamp, what: text }),
        _ => wrong(Problem::NotRestored { stamp, why: text }),
    }
}
