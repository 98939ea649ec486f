//! Everything that is stored on a target, versioned: manifests and their signatures, archive
//! tables, indexes, prune marks, receipts, and the layout of an archive. And the record that a
//! restore writes beside its files ([`restored`]). docs/format.md is the specification.

pub mod allowed_signers;
pub mod archive;
pub mod archive_table;
pub mod chain;
pub mod extent;
pub mod index;
pub mod json;
pub mod known;
pub mod manifest;
pub mod receipt;
pub mod restored;
pub mod signature;
pub mod statement;
pub mod version;
