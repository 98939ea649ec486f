//! A target in memory that can be looked at and copied.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::known::{Directory, KnownPage};
use sealift::format::manifest::{ArchiveRow, Manifest, ManifestName, TablePage};
use sealift::storage::{Body, ErrorKind, Listed, PutMode, PutOutcome, Storage, TargetError};

#[derive(Debug)]
pub struct Shelf {
    name: String,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// What listings say of when archives were written; of all else they tell nothing.
    pub modified: Option<DateTime<Utc>>,
    /// What manifests name, once read.
    read: Mutex<HashMap<String, Vec<ArchiveRow>>>,
}

impl Shelf {
    pub fn new(name: &str, modified: Option<DateTime<Utc>>) -> Arc<Self> {
        Self::holding(name, modified, BTreeMap::new())
    }

    pub fn holding(
        name: &str,
        modified: Option<DateTime<Utc>>,
        objects: BTreeMap<String, Bytes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            objects: Mutex::new(objects),
            modified,
            read: Mutex::default(),
        })
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap().clone()
    }

    /// The manifests that are here, and what is wrong with those that are signed: each must have its pages and its
    /// archives, in full.
    pub fn look(&self, host: &str) -> (Vec<ManifestName>, Vec<String>) {
        let objects = self.objects.lock().unwrap();
        let prefix = format!("{host}/");
        let (mut names, mut wrong) = (Vec::new(), Vec::new());
        for key in objects.keys() {
            let name = key.strip_prefix(&prefix).and_then(ManifestName::from_key);
            let Some(name) = name else { continue };
            names.push(name.clone());
            // No reader believes one without.
            let signature = format!("{prefix}{}", name.signature_key());
            if !objects.contains_key(&signature) {
                continue;
            }
            match self.named_by(&objects, &prefix, key) {
                Err(what) => wrong.push(format!("{name} on {}: {what}", self.name)),
                Ok(rows) => {
                    for row in rows {
                        let there = objects.get(&format!("{prefix}{}", row.key()));
                        if there.map(|bytes| bytes.len() as u64) != Some(row.bytes) {
                            let key = row.key();
                            wrong.push(format!("{name} on {}: {key} is not there", self.name));
                        }
                    }
                }
            }
        }
        (names, wrong)
    }

    fn named_by(
        &self,
        objects: &BTreeMap<String, Bytes>,
        prefix: &str,
        key: &str,
    ) -> Result<Vec<ArchiveRow>, String> {
        let mut read = self.read.lock().unwrap();
        let manifest = Manifest::parse(&objects[key]).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        for page in &manifest.pages {
            let page_key = ObjectKey::table(page);
            let bytes = objects.get(&format!("{prefix}{page_key}"));
            let bytes = bytes.ok_or_else(|| format!("{page_key} is not there"))?;
            if let Some(known) = read.get(page_key.as_str()) {
                rows.extend(known.iter().cloned());
                continue;
            }
            assert_eq!(Hash::sha256(bytes), *page);
            let parsed = TablePage::parse(bytes).map_err(|error| error.to_string())?;
            rows.extend(parsed.rows.iter().cloned());
            read.insert(page_key.to_string(), parsed.rows);
        }
        require_history(objects, prefix, &manifest)?;
        Ok(rows)
    }

    fn find(&self, operation: &'static str, key: &str) -> Result<Bytes, TargetError> {
        let found = self.objects.lock().unwrap().get(key).cloned();
        found.ok_or_else(|| self.error(operation, key, ErrorKind::NotFound, "it is not there"))
    }

    fn error(&self, operation: &'static str, key: &str, kind: ErrorKind, why: &str) -> TargetError {
        TargetError {
            operation,
            key: key.to_owned(),
            target: self.name.clone(),
            kind,
            source: why.into(),
        }
    }
}

/// Every page of earlier snapshots that the manifest names must be there, itself or through a directory.
fn require_history(
    objects: &BTreeMap<String, Bytes>,
    prefix: &str,
    manifest: &Manifest,
) -> Result<(), String> {
    let Some(named) = manifest.core.known.pages() else {
        return Ok(());
    };
    let find = |name: &Hash| {
        let key = ObjectKey::table(name);
        let bytes = objects.get(&format!("{prefix}{key}"));
        bytes.ok_or_else(|| format!("{key}, of earlier snapshots, is not there"))
    };
    let mut pages = named.pages.clone();
    for name in &named.directories {
        let directory = Directory::parse(find(name)?).map_err(|error| error.to_string())?;
        pages.extend(directory.directory);
    }
    for page in &pages {
        let bytes = find(page)?;
        assert_eq!(Hash::sha256(bytes), *page);
        KnownPage::parse(bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[async_trait::async_trait]
impl Storage for Shelf {
    fn label(&self) -> &str {
        &self.name
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let objects = self.objects.lock().unwrap();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let listed = found.map(|(key, bytes)| Listed {
            key: key.clone(),
            bytes: bytes.len() as u64,
            modified: self.modified.filter(|_| key.contains("/archives/")),
        });
        Ok(listed.collect())
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let objects = self.objects.lock().unwrap();
        let folders = objects
            .keys()
            .filter_map(|key| Some(key.split_once('/')?.0));
        let mut folders: Vec<String> = folders.map(str::to_owned).collect();
        folders.dedup();
        Ok(folders)
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::File(path) | Body::Shared(path) => match std::fs::read(path) {
                Ok(bytes) => bytes.into(),
                Err(error) => {
                    let why = error.to_string();
                    return Err(self.error("put", key, ErrorKind::Permanent, &why));
                }
            },
        };
        let mut objects = self.objects.lock().unwrap();
        if mode == PutMode::Create && objects.contains_key(key) {
            return Ok(PutOutcome::Existed);
        }
        objects.insert(key.to_owned(), bytes);
        Ok(PutOutcome::Written)
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        let bytes = self.find("get", key)?;
        match bytes.len() as u64 > limit {
            true => Err(self.error("get", key, ErrorKind::Permanent, "it is too large")),
            false => Ok(bytes),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let bytes = self.find("get", key)?;
        match range.end > bytes.len() as u64 {
            true => Err(self.error("get", key, ErrorKind::Permanent, "it ends before that")),
            false => Ok(bytes.slice(range.start as usize..range.end as usize)),
        }
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let bytes = self.find("get", key)?;
        let rest = bytes.slice((offset as usize).min(bytes.len())..);
        Ok(futures::stream::iter([Ok(rest)]).boxed())
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.objects.lock().unwrap().remove(key);
        Ok(())
    }
}
