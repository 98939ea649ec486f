//! Compares what a target stores with its manifests. No identity is needed for it.
//!
//! [`examine`] looks first: at the chain of signed manifests, every page of the archive table, and
//! every archive that is named, with its size. Then [`read_archives`] reads a share of the
//! archives, or all: it hashes every byte and compares the hash with the archive's row, which the
//! host signed. A key holder can go further and restore a snapshot for a test
//! (`jobs::test_restore`); `jobs::repair` brings back what is wrong.

mod check_listing;
mod compare_targets;
mod problem;
mod read_archives;

pub use check_listing::{Examined, examine};
pub use compare_targets::{Divergence, compare_heads};
pub use problem::{Needed, Problem, Stamps};
pub use read_archives::{Reading, Share, choose, choose_by_week, read_archives};
