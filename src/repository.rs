//! Stub: the real one is being written elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{ArchiveId, Hash, HostName, MANIFESTS, ObjectKey};
use crate::manifest::chain::{Candidate, Chain, ChainError};
use crate::manifest::signature::Trust;
use crate::manifest::{
    ArchiveRow, MAX_SMALL_OBJECT_BYTES, Manifest, ManifestError, ManifestName, TablePage,
};
use crate::target::{Target, TargetError};

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("cannot read the repository")]
    Target(#[from] TargetError),
    #[error("the chain of manifests does not hold")]
    Chain(#[from] ChainError),
    #[error("page {0} of the archive table is not what its name says")]
    PageDamaged(Hash),
    #[error("page {0} of the archive table is malformed")]
    Page(Hash, #[source] ManifestError),
}

#[derive(Debug, Clone)]
pub struct HostFolder {
    pub target: Arc<dyn Target>,
    pub host: HostName,
}

#[derive(Debug, Clone, Default)]
pub struct ArchiveTable {
    pub rows: BTreeMap<ArchiveId, ArchiveRow>,
    pub sets: BTreeMap<String, Vec<String>>,
}

impl HostFolder {
    pub fn key(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.host)
    }

    pub async fn chain(&self, trust: &Trust) -> Result<Chain, RepositoryError> {
        let prefix = format!("{}/", self.host);
        let listed = self.target.list(&format!("{prefix}{MANIFESTS}/")).await?;
        let mut candidates = Vec::new();
        for object in listed {
            let key = object.key.strip_prefix(&prefix).unwrap_or(&object.key);
            let Some(name) = ManifestName::from_key(key) else {
                continue;
            };
            let manifest = self.target.get(&object.key, MAX_SMALL_OBJECT_BYTES).await?;
            let signature = self
                .target
                .get(&self.key(&name.signature_key()), MAX_SMALL_OBJECT_BYTES)
                .await
                .ok();
            candidates.push(Candidate {
                name,
                manifest: manifest.to_vec(),
                signature: signature.map(|s| s.to_vec()),
            });
        }
        Ok(Chain::verify(&self.host, candidates, trust, &[])?)
    }

    pub async fn table(&self, manifest: &Manifest) -> Result<ArchiveTable, RepositoryError> {
        let mut table = ArchiveTable::default();
        for hash in &manifest.pages {
            let key = self.key(&ObjectKey::table(hash));
            let bytes = self.target.get(&key, MAX_SMALL_OBJECT_BYTES).await?;
            if Hash::sha256(&bytes) != *hash {
                return Err(RepositoryError::PageDamaged(*hash));
            }
            let page = TablePage::parse(&bytes).map_err(|e| RepositoryError::Page(*hash, e))?;
            table.sets.extend(page.sets);
            table
                .rows
                .extend(page.rows.into_iter().map(|row| (row.id, row)));
        }
        Ok(table)
    }
}
