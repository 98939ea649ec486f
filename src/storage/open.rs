//! From a [`TargetSpec`] or a URL to a target.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contract::Storage;
use super::environment::Environment;
use super::error::{Fault, OpenError};
use super::isolated::isolated;
use super::offline::OfflineTarget;
use super::redact::without_secrets;
use super::spec::TargetSpec;
use super::url::{Address, RsyncAddress};
use super::{folder, machine_name, object_store, rsync, sftp};
use crate::base::panics;

/// Checks a target's URL by itself: neither the disk nor the network is consulted.
pub fn check_url(url: &str) -> Result<(), OpenError> {
    Address::parse(url).map(drop)
}

/// Returns the path of a target that is a folder of this machine.
pub fn folder_path(url: &str) -> Option<PathBuf> {
    match Address::parse(url) {
        Ok(Address::Folder(path)) => Some(path),
        _ => None,
    }
}

/// Whether the target is reached over ssh.
pub fn is_over_ssh(url: &str) -> bool {
    matches!(
        Address::parse(url),
        Ok(Address::Rsync(RsyncAddress::Ssh { .. }) | Address::Sftp(_))
    )
}

/// Whether the target is reached through programs: rsync or ssh.
pub fn runs_programs(url: &str) -> bool {
    matches!(
        Address::parse(url),
        Ok(Address::Rsync(_) | Address::Sftp(_))
    )
}

/// Opens a target with the process's environment. No server is contacted yet; an absent folder is
/// created.
pub fn open(spec: &TargetSpec) -> Result<Arc<dyn Storage>, OpenError> {
    open_with(spec, &Environment::of_process())
}

/// Opens a target like [`open`]. If it cannot be opened now (credentials, folder), returns a target
/// that fails every request with that reason. A URL that can never be opened is still an error.
pub fn open_or_offline(spec: &TargetSpec) -> Result<Arc<dyn Storage>, OpenError> {
    match open(spec) {
        Err(error @ (OpenError::Malformed { .. } | OpenError::Scheme(_))) => Err(error),
        Err(error) => Ok(Arc::new(OfflineTarget::new(spec.label(), error))),
        opened => opened,
    }
}

/// Opens a target for a push, like [`open_or_offline`], but never creates its folder: a new folder
/// may be the mount point of a disk that is not mounted. `below` is a folder that must exist in it,
/// for a target that held something before.
pub fn open_existing(
    spec: &TargetSpec,
    below: Option<&str>,
) -> Result<Arc<dyn Storage>, OpenError> {
    if let Address::Folder(path) = Address::parse(&spec.url)? {
        let needed = below.map_or_else(|| path.clone(), |below| path.join(below));
        if let Err(reason) = check_folder(&needed) {
            return Ok(Arc::new(OfflineTarget::new(spec.label(), reason)));
        }
    }
    open_or_offline(spec)
}

/// Checks that a folder exists at `path`. A path that cannot be examined is another error than an
/// absent folder.
pub fn check_folder(path: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let path = path.to_owned();
            Err(OpenError::Folder { path, source })
        }
        _ => Err(OpenError::Absent(path.to_owned())),
    }
}

/// Opens a target like [`open`], with the given environment.
pub fn open_with(
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<Arc<dyn Storage>, OpenError> {
    let opened = panics::caught_now(|| connect(spec, environment));
    let opened = opened.unwrap_or_else(|panicked| {
        Err(OpenError::Client {
            target: spec.label(),
            source: Box::new(panicked),
        })
    });
    opened.map(isolated)
}

fn connect(spec: &TargetSpec, environment: &Environment) -> Result<Arc<dyn Storage>, OpenError> {
    let address = Address::parse(&spec.url)?;
    let wrong = |fault: Fault| match fault.of_class() {
        Some(reason) => OpenError::Malformed {
            url: without_secrets(&spec.url),
            reason,
        },
        None => OpenError::Fault {
            target: spec.label(),
            fault,
        },
    };
    spec.check_settings(&address).map_err(wrong)?;
    if let Some(doubt) = machine_name::doubt(&spec.url, spec.ssh.as_deref()) {
        return Err(OpenError::setting(&spec.label(), "its URL", doubt));
    }
    match address {
        Address::Folder(path) => Ok(Arc::new(folder::Folder::open(&path, spec)?)),
        Address::Rsync(address) => Ok(Arc::new(rsync::Rsync::new(address, spec))),
        Address::Sftp(address) => Ok(Arc::new(sftp::Sftp::new(address, spec))),
        address => {
            let opened = object_store::open::open(&address, spec, environment)?;
            Ok(Arc::new(opened))
        }
    }
}
