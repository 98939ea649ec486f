//! Makes a directory a valid snapshot, for tests that push without the command line.

use std::path::PathBuf;

use sealift::base::ids::Stamp;
use sealift::base::openat::Chosen;
use sealift::base::walk::Filter;
use sealift::format::index::ValidationRecord;
use sealift::state::staged_snapshot::{Part, StagedSnapshot};

/// All that is below `root`, read in place.
pub fn snapshot(root: PathBuf, stamp: Stamp) -> StagedSnapshot {
    StagedSnapshot {
        stamp,
        parts: vec![Part {
            to: Vec::new(),
            root: Chosen::open(&root).unwrap(),
            filter: Filter::everything(),
            staged: false,
        }],
        roots: Default::default(),
        tags: Vec::new(),
        note: None,
        sources: Vec::new(),
        validation: ValidationRecord {
            valid: true,
            checked_at: stamp.time(),
            errors: Vec::new(),
        },
        databases: Vec::new(),
        skipped: Vec::new(),
        left_out: Vec::new(),
    }
}
