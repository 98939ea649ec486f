//! Finds out by trial what a target allows.
//!
//! A small object is written below `receipts/`, where credentials for pushing may read too, written
//! once more with other content, read back, looked for in a listing, and deleted.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::base::ids::{Hash, MANIFESTS, ObjectKey, RECEIPTS, hex};
use crate::repository::HostFolder;
use crate::storage::{Body, ErrorKind, PutMode, TargetError};

/// Limit for reading the probe back.
const MOST_BYTES: u64 = 1 << 10;
/// A smaller difference of the clocks is not reported: file systems and HTTP give whole seconds,
/// and S3 servers refuse requests from a quarter of an hour on.
const SKEW_SECONDS: i64 = 120;

/// What a target allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The credentials may list.
    pub lists: bool,
    /// They may read manifests, tables, marks and receipts.
    pub reads: bool,
    /// They may read archives.
    pub reads_archives: bool,
    /// They may delete.
    pub deletes: bool,
    /// A second put of the same key changed the object.
    pub overwrites: bool,
    /// The target's clock minus ours; `None`: they agree, or the target gives no times.
    pub skew_seconds: Option<i64>,
    /// Key of the probe object, if it could not be deleted.
    pub left_behind: Option<String>,
}

/// Tries what `folder` allows. Fails if it cannot be written or does not answer.
pub async fn probe(folder: &HostFolder, now: DateTime<Utc>) -> Result<Probe, TargetError> {
    let mut random = [0; 8];
    // Without random numbers the time makes the name unique.
    if getrandom::fill(&mut random).is_err() {
        random = now.timestamp_micros().to_be_bytes();
    }
    let name = format!("probe-{}", hex(&random));
    let key = format!("{}/{RECEIPTS}/{name}", folder.host);
    let lists = allowed(folder.list(MANIFESTS).await)?.is_some();
    let target = &folder.target;
    let first = Bytes::from_static(b"sealift tries this target\n");
    let second = Bytes::from_static(b"sealift tries to overwrite\n");
    target
        .put(&key, Body::Bytes(first.clone()), PutMode::Create)
        .await?;
    // A refusal is as good as an object that is not overwritten.
    let again = target.put(&key, Body::Bytes(second), PutMode::Create).await;
    let read = allowed(target.get(&key, MOST_BYTES).await)?;
    let overwrites = match &read {
        Some(content) => *content != first,
        None => matches!(again, Ok(crate::storage::PutOutcome::Written)),
    };
    let listed = match lists {
        true => target.list(&format!("{}/{RECEIPTS}/", folder.host)).await?,
        false => Vec::new(),
    };
    let written = listed.iter().find(|listed| listed.key == key);
    let skew = written
        .and_then(|listed| listed.modified)
        .map(|modified| (modified - now).num_seconds());
    let deletes = match target.delete(&key).await {
        Ok(()) if lists => !is_listed(folder, &key).await?,
        Ok(()) => true,
        Err(_) => false,
    };
    Ok(Probe {
        lists,
        reads: read.is_some(),
        reads_archives: reads_archives(folder).await?,
        deletes,
        overwrites,
        skew_seconds: skew.filter(|seconds| seconds.abs() > SKEW_SECONDS),
        left_behind: (!deletes).then_some(key),
    })
}

async fn is_listed(folder: &HostFolder, key: &str) -> Result<bool, TargetError> {
    let below = format!("{}/{RECEIPTS}/", folder.host);
    let listed = folder.target.list(&below).await?;
    Ok(listed.iter().any(|listed| listed.key == key))
}

/// Returns whether archives may be read: a missing one is reported as missing, not as denied.
async fn reads_archives(folder: &HostFolder) -> Result<bool, TargetError> {
    let missing = ObjectKey::archive(&Hash::blake3(b"no archive has this content"));
    match folder.target.get_range(&folder.key(&missing), 0..1).await {
        Err(error) if error.kind == ErrorKind::Denied => Ok(false),
        Err(error) if error.kind == ErrorKind::Unavailable => Err(error),
        _ => Ok(true),
    }
}

/// Returns `None` if the credentials may not do it.
fn allowed<T>(done: Result<T, TargetError>) -> Result<Option<T>, TargetError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind == ErrorKind::Denied => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns `words` as people list them: `a, b and c`.
fn joined(words: &[&str], last: &str) -> String {
    match words {
        [before @ .., end] if !before.is_empty() => {
            format!("{} {last} {end}", before.join(", "))
        }
        words => words.concat(),
    }
}

impl Probe {
    /// Describes what the credentials may and may not do.
    pub fn words(&self) -> String {
        let mut can = vec!["write"];
        let mut cannot = Vec::new();
        let mut sort = |may: bool, what: &'static str| match may {
            true => can.push(what),
            false => cannot.push(what),
        };
        sort(self.lists, "list");
        match self.reads && !self.reads_archives {
            true => {
                sort(true, "read manifests");
                sort(false, "read archives");
            }
            false => sort(self.reads, "read"),
        }
        sort(self.deletes, "delete");
        let mut text = format!("can {}", joined(&can, "and"));
        if !cannot.is_empty() {
            text += &format!("; cannot {}", joined(&cannot, "or"));
        }
        if self.overwrites {
            text += "; no support for conditional writes (harmless)";
        }
        if let Some(key) = &self.left_behind {
            text = format!("{text}; {key} stays there, it cannot be deleted");
        }
        text
    }

    /// Returns why this target cannot be used as it is configured, and the next step; `None`: it
    /// can.
    pub fn problem(&self, write_only: bool) -> Option<String> {
        if let Some(seconds) = self.skew_seconds {
            let ahead = if seconds > 0 { "ahead of" } else { "behind" };
            return Some(format!(
                "its clock is {} s {ahead} this machine's: set the clock that is wrong, or retention and servers \
                 that check the time will go astray",
                seconds.abs()
            ));
        }
        match (self.lists && self.reads, write_only) {
            (true, true) => Some(
                "it can be listed and read, so `write_only = true` only takes away what a push can check; \
                 leave it out"
                    .to_owned(),
            ),
            (false, false) => Some(
                "pushing reads and lists manifests, tables, marks and receipts, and these credentials may not. \
                 Allow it; or, if they are to do nothing but write, set `write_only = true` for this target, and \
                 say `sealift adopt --after 0` before the first push"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
