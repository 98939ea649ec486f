//! Puts an object into a folder.

use std::io;
use std::path::Path;

use super::scratch_file::{ScratchFile, open_source};
use super::steps;
use crate::base::openat::{Dir, Meta, chmod_fd};
use crate::storage::contract::{Body, PutMode, PutOutcome};
use crate::storage::meter::TransferAttempt;
use crate::storage::throttle::Throttle;

/// Writes an object durably under `key`, counted by `attempt`.
pub(super) fn put(
    root: &Dir,
    key: &str,
    body: &Body,
    mode: PutMode,
    limit: Option<&Throttle>,
    attempt: &TransferAttempt,
) -> io::Result<PutOutcome> {
    let (folder, name) = steps::split(key);
    let chain = steps::make_dirs(root, folder)?;
    let (Some(dir), Some(host)) = (chain.last(), chain.get(1).or(chain.first())) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let exists = steps::is_file(dir, name)?;
    let outcome = if exists && mode == PutMode::Create {
        PutOutcome::Existed
    } else {
        let mut scratch = ScratchFile::create(host)?;
        if let (Body::Shared(source), PutMode::Create) = (body, mode)
            && share(source, &scratch, (dir, name))?
        {
            chain.iter().rev().try_for_each(Dir::sync)?;
            return Ok(PutOutcome::Written);
        }
        scratch.fill(body, limit, attempt)?;
        let from = (&scratch.dir, scratch.name.as_str());
        let renamed = match mode {
            PutMode::Create => steps::rename_new(from, (dir, name))?,
            PutMode::Replace => from.0.rename(from.1, dir, name).map(|()| true)?,
        };
        scratch.renamed = renamed;
        match renamed {
            true => PutOutcome::Written,
            false => PutOutcome::Existed,
        }
    };
    // Also for an existing object: another put may have renamed it and not flushed it yet.
    chain.iter().rev().try_for_each(Dir::sync)?;
    Ok(outcome)
}

/// Hard-links `source` if the result equals a copy: owner and group are those of `scratch`, and the
/// permissions can be made so. `false`: copy it.
fn share(source: &Path, scratch: &ScratchFile, to: (&Dir, &str)) -> io::Result<bool> {
    let (file, actual) = open_source(source)?;
    let wanted = Meta::of_fd(&scratch.file)?;
    let alike = |key: fn(&Meta) -> u64| key(&actual) == key(&wanted);
    let has_acl = || {
        let name = "system.posix_acl_access";
        rustix::fs::fgetxattr(&scratch.file, name, &mut [0_u8; 0][..]).is_ok()
    };
    let same_place = alike(Meta::dev);
    let same_owner = alike(|meta| u64::from(meta.uid())) && alike(|meta| u64::from(meta.gid()));
    if !same_place || !same_owner || has_acl() {
        return Ok(false);
    }
    if actual.mode() != wanted.mode() {
        chmod_fd(&file, wanted.permissions())?;
        file.sync_all()?;
    }
    // Fails if the name is taken, or links are impossible here.
    let (from, name) = Dir::open_parent(source)?;
    Ok(from.link(&name, to.0, to.1).is_ok())
}
