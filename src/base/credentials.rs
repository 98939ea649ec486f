//! The environment variables that are for the targets and the agent only, so that no command of the
//! configuration sees them.

use std::ffi::OsStr;

/// Prefixes of the names of variables that hold credentials of targets, or lead to some.
const CREDENTIAL_PREFIXES: [&str; 6] = [
    "AWS_",
    "AZURE_",
    "GCE_METADATA_",
    "GOOGLE_",
    "IDENTITY_",
    "MSI_",
];
/// Full names of further variables of that sort.
const CREDENTIALS: [&str; 5] = [
    "RSYNC_PASSWORD",
    "SEALIFT_PASSPHRASE_FILE",
    "SEALIFT_TOKEN",
    "SEALIFT_WEBDAV_PASSWORD",
    "SEALIFT_WEBDAV_USER",
];

/// Whether a variable of this name is for the targets only. (`SSH_AUTH_SOCK` is not: a command may
/// reach a database through ssh, and the ssh agent itself can ask its owner for consent.)
pub fn is_credential(name: &OsStr) -> bool {
    let is_prefixed = |name: &str| CREDENTIAL_PREFIXES.iter().any(|p| name.starts_with(p));
    let is_one = |name: &str| is_prefixed(name) || CREDENTIALS.contains(&name);
    is_one(&name.to_string_lossy())
}
