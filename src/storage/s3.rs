//! What only S3 has: credentials and profiles, cold storage, listings that are checked before they are believed.

pub mod credentials;
pub mod listing_guard;
pub mod profile;
pub mod thaw;
