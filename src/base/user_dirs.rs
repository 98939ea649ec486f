//! The directories of the user who runs Sealift.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Returns the user's directory of configuration files, `$XDG_CONFIG_HOME` or `~/.config`; `None`
/// if neither variable names an absolute path.
pub fn config_dir() -> Option<PathBuf> {
    let home = || absolute("HOME").map(|home| home.join(".config"));
    absolute("XDG_CONFIG_HOME").or_else(home)
}

/// Returns the user's directory of files that are safe to lose, `$XDG_CACHE_HOME` or `~/.cache`;
/// `None` if neither variable names an absolute path.
pub fn cache_dir() -> Option<PathBuf> {
    let home = || absolute("HOME").map(|home| home.join(".cache"));
    absolute("XDG_CACHE_HOME").or_else(home)
}

fn absolute(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

/// Returns `sealift` in the user's directory of configuration files.
pub fn sealift_dir() -> Option<PathBuf> {
    config_dir().map(|dir| dir.join("sealift"))
}

/// Whether `error` denies access because the variables name the home directory of another user,
/// such as under `setpriv` or `sudo -u`: this user keeps nothing there. In a directory of this user
/// a denied access is a failure.
pub fn is_home_of_another_user(error: &io::Error) -> bool {
    let home = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME"));
    let owner = home.and_then(|home| owner(&home));
    let own = rustix::process::geteuid().as_raw();
    error.kind() == io::ErrorKind::PermissionDenied && owner.is_some_and(|owner| owner != own)
}

fn owner(dir: &Path) -> Option<u32> {
    Some(dir.metadata().ok()?.uid())
}
