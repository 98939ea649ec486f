//! Lists and compares the trees of the demo.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::base::openat::Dir;
use crate::base::walk::{Filter, Walked, walk};
use crate::cli::failure::Failure;
use crate::format::restored::RESTORED;

/// Returns every file at or below `path`.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let root = Dir::open(path)?;
    for walked in walk(&root, &Filter::everything())? {
        match walked {
            Walked::Found(found) if found.meta.is_file() => files.push(root.path_of(found.rel())),
            _ => {}
        }
    }
    Ok(files)
}

/// Returns the bytes of all files below `dir`.
pub(super) fn tree_bytes(dir: &Path) -> Result<u64, Failure> {
    let sizes = files(dir)?
        .into_iter()
        .map(|file| Ok(fs::metadata(file)?.len()));
    sizes.sum()
}

/// Requires that two trees have the same names, modes, mtimes and contents, but for the record that
/// a restore writes beside its files. Returns the number of files.
pub(super) fn same_trees(one: &Path, other: &Path) -> Result<usize, Failure> {
    let restored = |dir: &Path| -> Result<Vec<PathBuf>, Failure> {
        let mut files = files(dir)?;
        files.retain(|file| *file != dir.join(RESTORED));
        Ok(files)
    };
    let (a, b) = (restored(one)?, restored(other)?);
    let relative = |paths: &[PathBuf], base: &Path| -> Vec<PathBuf> {
        let relative = paths.iter().filter_map(|path| path.strip_prefix(base).ok());
        relative.map(Path::to_owned).collect()
    };
    if relative(&a, one) != relative(&b, other) {
        return Err(Failure::from_error("the restored tree has other files"));
    }
    for (a, b) in a.iter().zip(&b) {
        let (left, right) = (fs::metadata(a)?, fs::metadata(b)?);
        let look = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if look(&left) != look(&right) || fs::read(a)? != fs::read(b)? {
            let (a, b) = (a.display(), b.display());
            return Err(Failure::from_error(format!("{b} differs from {a}")));
        }
    }
    Ok(a.len())
}
