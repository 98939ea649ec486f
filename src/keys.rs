//! Age recipients and identities: reading, generating and prompting for them.
//!
//! Identities decrypt, so neither `packer` nor `shipper` imports them (`tests/layers`).

pub mod generate;
pub mod identities;
pub mod known_signers;
pub mod plugin;
pub mod private_key_text;
pub mod prompt;
pub mod recipient_file;
pub mod recipients;
pub mod secret;
