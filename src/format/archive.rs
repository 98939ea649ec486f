//! The layout inside one archive: tar members, and the payload that age encrypts.

pub mod age_payload;
pub mod tar_member;
