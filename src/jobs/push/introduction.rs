//! Whether readers who trust this host's earlier signer are led to the present one.
//!
//! A reader pins a signer. A manifest of another signer is refused, unless an earlier manifest
//! announced that one as `next_signer`, or the reader's `allowed_signers` lists it. So a host whose
//! signer is exchanged without an introduction locks its readers out of every new snapshot. The
//! catalog remembers who signed last and which signers were announced, and a push by any other
//! signer is refused before anything is made.

use crate::base::ids::HostName;
use crate::format::chain::{SignerChange, VerifiedSnapshot};
use crate::format::signature::{MANIFEST_NAMESPACE, Signer, Trust, fingerprint_of_line};
use crate::state::catalog::{Catalog, CatalogError};

use super::error::PushError;

/// Catalog entry: the fingerprint of the signer of the newest snapshot.
pub(super) const LAST_SIGNER: &str = "last signer";
/// Catalog entry: the fingerprints of the signers that manifests announced, one in a line.
pub(super) const ANNOUNCED: &str = "announced signers";

/// The present signer, and what the host's files say of it.
#[derive(Debug, Clone)]
pub(crate) struct PresentSigner {
    /// Its fingerprint.
    pub(crate) fingerprint: String,
    /// The host's `allowed_signers` lists it as a signer of manifests.
    pub(crate) is_listed: bool,
}

impl PresentSigner {
    /// Looks up `signer` among those that `listed` accepts.
    pub(crate) fn of(signer: &Signer, host: &HostName, listed: &Trust) -> Self {
        Self {
            fingerprint: signer.fingerprint(),
            is_listed: listed.accepts(host, MANIFEST_NAMESPACE, signer.public_key()),
        }
    }

    /// Returns the signer before this one, if nothing introduces this one to readers who trust that
    /// one. A catalog that remembers no signer is new, or of an earlier version.
    pub(crate) fn locks_out(&self, catalog: &Catalog) -> Result<Option<String>, CatalogError> {
        let Some(last) = catalog.meta(LAST_SIGNER)? else {
            return Ok(None);
        };
        let announced = catalog.meta(ANNOUNCED)?.unwrap_or_default();
        let is_announced = announced.lines().any(|line| line == self.fingerprint);
        let is_introduced = last == self.fingerprint || is_announced || self.is_listed;
        Ok((!is_introduced).then_some(last))
    }

    /// Returns whether the signer that `change` leads to is this one, and is listed nowhere.
    pub(crate) fn is_unknown(&self, change: &SignerChange) -> bool {
        change.signer == self.fingerprint && !self.is_listed
    }

    /// Fails if readers who trust the signer before this one would refuse its snapshots.
    pub(crate) fn require_introduced(&self, catalog: &Catalog) -> Result<(), PushError> {
        match self.locks_out(catalog)? {
            Some(before) => Err(PushError::NotIntroduced {
                signer: self.fingerprint.clone(),
                before,
            }),
            None => Ok(()),
        }
    }
}

/// Remembers that a snapshot by the signer `fingerprint` was published, which announced
/// `next_signer`, an OpenSSH public key.
pub(super) fn remember(
    catalog: &Catalog,
    fingerprint: &str,
    next_signer: Option<&str>,
) -> Result<(), CatalogError> {
    if catalog.meta(LAST_SIGNER)?.as_deref() != Some(fingerprint) {
        catalog.set_meta(LAST_SIGNER, fingerprint)?;
    }
    let Some(next) = next_signer.and_then(fingerprint_of_line) else {
        return Ok(());
    };
    let mut announced = catalog.meta(ANNOUNCED)?.unwrap_or_default();
    if announced.lines().all(|line| line != next) {
        announced.push_str(&next);
        announced.push('\n');
        catalog.set_meta(ANNOUNCED, &announced)?;
    }
    Ok(())
}

/// Remembers the signers of snapshots that a target showed, oldest first.
pub(super) fn learn<'a>(
    catalog: &Catalog,
    snapshots: impl Iterator<Item = &'a VerifiedSnapshot>,
) -> Result<(), CatalogError> {
    for snapshot in snapshots {
        let next = snapshot.manifest.core.next_signer.as_deref();
        remember(catalog, &snapshot.signer, next)?;
    }
    Ok(())
}
