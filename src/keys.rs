//! Age recipients and identities: reading, generating and prompting for them.
//!
//! Identities decrypt, so neither `packer` nor `shipper` imports them (`tests/layers`).

pub mod identities;
pub mod plugin;
pub mod prompt;
pub mod recipients;
