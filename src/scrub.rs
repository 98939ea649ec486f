//! What a target stores held against its manifests: no identity is needed for it.
//!
//! First by looking ([`examine`]): the chain of signed manifests, every page of the archive table, every archive
//! that is named with its size. Then, for as much as is asked for, by reading ([`read_archives`]): every byte
//! of an archive is hashed and compared with its row, which the host signed. What is wrong can be mended from
//! where it is whole ([`repair`]). Whoever has an identity can go further and restore to nowhere
//! ([`rehearse()`]).

mod check_listing;
mod compare_targets;
mod problem;
mod read_archives;

pub use check_listing::{Examined, examine};
pub use compare_targets::{Divergence, compare_heads};
pub use problem::{Needed, Problem, Stamps};
pub use read_archives::{Reading, Share, choose, choose_by_week, read_archives};
