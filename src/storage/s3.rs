//! Code for S3 alone: credentials, the profiles of the AWS files, and cold storage.

pub(super) mod credentials;
mod instance_role;
mod profile;
pub(super) mod thaw;
