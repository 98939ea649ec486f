//! Where the small objects of targets are kept on this machine, so that they are read once.

use std::path::PathBuf;
use std::sync::Arc;

use super::failure::Failure;
use crate::base::ids::Hash;
use crate::restore::RangeReaderOptions;
use crate::storage::{self, Storage, TargetSpec};

/// Name of the directory in the cache for what is kept of each place. No host has such a name.
const KEPT_DIR: &str = ".objects";

/// Where small objects are kept.
pub(super) struct KeptPlaces {
    dir: PathBuf,
    /// The target is not asked.
    pub(super) is_offline: bool,
}

impl KeptPlaces {
    /// Returns where the cache of `options` keeps them; `None`: there is no cache. If
    /// `is_offline`, there must be one.
    pub(super) fn of(
        options: &RangeReaderOptions,
        is_offline: bool,
    ) -> Result<Option<Self>, Failure> {
        match &options.cache_dir {
            Some(cache) => Ok(Some(Self {
                dir: cache.join(KEPT_DIR),
                is_offline,
            })),
            None if is_offline => Err(Failure::usage(
                "--offline reads the cache, and there is none",
            )
            .hint("give the one that an earlier run used: --cache DIR")),
            None => Ok(None),
        }
    }

    /// Opens a place of this name with what is kept of it; without `kept` it opens the target
    /// alone.
    pub(super) fn open(
        kept: Option<&Self>,
        name: &str,
        spec: &TargetSpec,
        open: impl FnOnce() -> Result<Arc<dyn Storage>, Failure>,
    ) -> Result<Arc<dyn Storage>, Failure> {
        let Some(kept) = kept else { return open() };
        let dir = kept.dir.join(Hash::blake3(name.as_bytes()).short());
        match kept.is_offline {
            true => Ok(storage::only_kept_objects(spec.label(), dir)),
            false => Ok(storage::keeping_objects(open()?, dir)),
        }
    }
}
