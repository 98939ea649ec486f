//! The directories of the user who runs Sealift.

use std::path::PathBuf;

/// Returns the user's directory of configuration files, `$XDG_CONFIG_HOME` or `~/.config`; `None`
/// if neither variable names an absolute path.
pub fn config_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let home = || absolute("HOME").map(|home| home.join(".config"));
    absolute("XDG_CONFIG_HOME").or_else(home)
}

/// Returns `sealift` in the user's directory of configuration files.
pub fn sealift_dir() -> Option<PathBuf> {
    config_dir().map(|dir| dir.join("sealift"))
}
