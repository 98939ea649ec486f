//! The environment variables that are for targets, notification channels and the agent only, so
//! that no command of the configuration sees them.

use std::ffi::OsStr;

/// Prefixes of the names of variables that hold credentials of targets or channels, or lead to
/// some.
const CREDENTIAL_PREFIXES: [&str; 7] = [
    "AWS_",
    "AZURE_",
    "GCE_METADATA_",
    "GOOGLE_",
    "IDENTITY_",
    "MSI_",
    "SEALIFT_NOTIFY_",
];
/// Full names of further variables of that sort.
const CREDENTIALS: [&str; 5] = [
    "RSYNC_PASSWORD",
    "SEALIFT_PASSPHRASE_FILE",
    "SEALIFT_TOKEN",
    "SEALIFT_WEBDAV_PASSWORD",
    "SEALIFT_WEBDAV_USER",
];

/// The variable in which a child of the agent finds the id of its run. Commands of the
/// configuration must not take over that run; hooks find a word of their own there.
pub const RUN_VARIABLE: &str = "SEALIFT_RUN";

/// Whether a variable of this name is for targets and channels only. (`SSH_AUTH_SOCK` is not: a
/// command may reach a database through ssh, and the ssh agent itself can ask its owner for
/// consent.)
pub fn is_credential(name: &OsStr) -> bool {
    let is_prefixed = |name: &str| CREDENTIAL_PREFIXES.iter().any(|p| name.starts_with(p));
    let is_one = |name: &str| is_prefixed(name) || CREDENTIALS.contains(&name);
    is_one(&name.to_string_lossy())
}
