//! Proves that an identity exists: opens the index of the newest snapshot, some kilobytes, and
//! leaves a signed receipt.
//!
//! For a key in a safe the parts go on a stick: [`collect`] writes what is needed into a directory,
//! [`prove_offline`] reads it on a machine without a network and returns the receipt, and
//! [`upload`] puts that on the target.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::JobError;
use super::receipt_origin::{proven_recipients, this_machine, tool};
use crate::base::clock;
use crate::base::fs::write_new;
use crate::base::ids::{Hash, HostName, ObjectKey, Stamp};
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::receipt::{
    RECEIPT_FORMAT, Receipt, ReceiptKind, ReceiptOutcome, ReceiptTarget, ReceiptTimes, salt_of,
};
use crate::format::signature::Signer;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::read_header;
use crate::storage::{self, Body, PutMode, TargetSpec};

/// The file that says what a collection is of.
const ABOUT: &str = "prove.json";
/// Largest file that is read on the machine without a network, in bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Most files that are read there.
const MAX_FILES: usize = 4096;

/// Who proves.
pub(crate) struct Prover {
    pub(crate) identities: Arc<Identities>,
    /// Signs the receipt.
    pub(crate) signer: Signer,
    /// The principal that signs.
    pub(crate) by: String,
}

/// A receipt that is signed.
#[derive(Debug)]
pub(crate) struct SignedReceipt {
    pub(crate) receipt: Receipt,
    /// Its signature, then itself.
    pub(crate) objects: [(ObjectKey, Vec<u8>); 2],
}

/// A receipt and its signature in one file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptOnStick {
    receipt: String,
    signature: String,
}

/// What a collection is of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CollectionAbout {
    host: HostName,
    target: ReceiptTarget,
}

/// The summary of a proof.
#[derive(Debug, Serialize)]
pub(crate) struct KeyProofReport {
    pub(crate) host: HostName,
    pub(crate) target: ReceiptTarget,
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// The recipients whose identities are proven to exist.
    pub(crate) recipients: Vec<String>,
    pub(crate) by: String,
    /// The key of the receipt below the host's folder.
    pub(crate) receipt: String,
}

impl SignedReceipt {
    /// Returns what it says, for people.
    pub(crate) fn report(&self) -> KeyProofReport {
        let receipt = &self.receipt;
        KeyProofReport {
            host: receipt.host.clone(),
            target: receipt.target.clone(),
            stamp: receipt.stamp,
            sequence: receipt.sequence,
            recipients: receipt.recipients.clone(),
            by: receipt.by.clone(),
            receipt: self.objects[1].0.to_string(),
        }
    }

    /// Returns the content of the file that carries it to a machine with a network.
    pub(crate) fn file(&self) -> Vec<u8> {
        let [(_, signature), (_, receipt)] = &self.objects;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let both = ReceiptOnStick {
            receipt: text(receipt),
            signature: text(signature),
        };
        // Texts always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(&both).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

impl Prover {
    /// Opens the index of the snapshot of `manifest`, and signs that it did.
    pub(crate) async fn prove(
        &self,
        folder: &HostFolder,
        manifest: &Manifest,
        target: ReceiptTarget,
    ) -> Result<SignedReceipt, JobError> {
        let started_at = clock::in_seconds(clock::now());
        let began = std::time::Instant::now();
        let core = &manifest.core;
        if core.stamp.time() > started_at {
            let (stamp, host) = (core.stamp, &core.host);
            return Err(JobError::work(format!(
                "the snapshot of {host} was made at {stamp}, and it is {started_at} by this machine's clock"
            ))
            .with_next("set the clock of this machine, or of the host, right"));
        }
        let table = folder.table(manifest).await?;
        let header = read_header(folder, manifest, &table, &self.identities).await;
        let header = header.map_err(|error| {
            let next = super::wrong_key::next_step(&error);
            let error = JobError::work(error);
            match next {
                Some(next) => error.with_next(next),
                None => error,
            }
        })?;
        let salt = salt_of(&header.salt)
            .ok_or_else(|| JobError::work("the index of the snapshot has no salt"))?;
        let recipients = proven_recipients(&self.identities, &core.recipients);
        if recipients.is_empty() {
            return Err(JobError::work(
                "an identity opened the snapshot, and it is not known which: several may have",
            )
            .with_next("give the identity of one hardware key at a time, and no other with it"));
        }
        let mut receipt = Receipt {
            format: RECEIPT_FORMAT,
            kind: ReceiptKind::Key,
            requires: Vec::new(),
            host: core.host.clone(),
            sequence: core.sequence,
            stamp: core.stamp,
            core: manifest.core_hash,
            manifest: manifest.name().to_string(),
            target,
            by: self.by.clone(),
            tool: tool(),
            machine: this_machine(&core.host),
            started_at,
            finished_at: clock::in_seconds(clock::now()).max(started_at),
            milliseconds: ReceiptTimes {
                fetch: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                ..ReceiptTimes::default()
            },
            outcome: ReceiptOutcome::Passed,
            restored: None,
            checks: Vec::new(),
            errors: Vec::new(),
            recipients,
            schema: None,
            witness: String::new(),
        };
        receipt.attest(&salt);
        let objects = receipt.sign(&self.signer)?;
        Ok(SignedReceipt { receipt, objects })
    }
}

/// Writes what a proof of the snapshot of `manifest` reads into the new directory `dir`: the
/// manifest, the pages of its table, and the archives of its index. Returns the number of bytes.
pub(crate) async fn collect(
    folder: &HostFolder,
    manifest: &Manifest,
    target: ReceiptTarget,
    dir: &Path,
) -> Result<u64, JobError> {
    std::fs::create_dir(dir).map_err(|error| {
        JobError::work(format!(
            "cannot make the directory {}: {error}",
            dir.display()
        ))
    })?;
    let about = CollectionAbout {
        host: folder.host.clone(),
        target,
    };
    let about = serde_json::to_vec_pretty(&about).unwrap_or_default();
    write(dir, ABOUT, &about)?;
    let table = folder.table(manifest).await?;
    let mut keys = vec![manifest.name().key()];
    keys.extend(manifest.pages.iter().map(ObjectKey::table));
    let archives = manifest.core.index.extents.iter();
    let mut archives: Vec<_> = archives.filter_map(|extent| extent.archive).collect();
    archives.sort();
    archives.dedup();
    let rows = archives.iter().filter_map(|id| table.rows.get(id));
    keys.extend(rows.map(|row| ObjectKey::archive(&row.blake3)));
    let mut bytes = 0;
    for key in keys {
        let content = folder.target.get(&folder.key(&key), MAX_FILE_BYTES).await?;
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        write(dir, name, &content)?;
        bytes += content.len() as u64;
    }
    Ok(bytes)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), JobError> {
    let path = dir.join(name);
    write_new(&path, bytes, 0o644)
        .map_err(|error| JobError::work(format!("cannot write {}: {error}", path.display())))
}

/// Does what [`Prover::prove`] does with `files` instead of a target: those of a collection, or the
/// directory with them.
pub(crate) async fn prove_offline(
    prover: &Prover,
    files: &[PathBuf],
) -> Result<SignedReceipt, JobError> {
    let memory = storage::open(&TargetSpec::from_url("memory://"))?;
    let mut about: Option<CollectionAbout> = None;
    let mut manifests: Vec<Manifest> = Vec::new();
    let mut objects: Vec<(ObjectKey, Vec<u8>)> = Vec::new();
    for path in expanded(files)? {
        let bytes = read(&path)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let stem = name.strip_suffix(".json");
        let manifest = stem.and_then(|stem| stem.parse::<ManifestName>().ok());
        if name == ABOUT {
            let parsed = serde_json::from_slice(&bytes);
            about = Some(parsed.map_err(|error| {
                JobError::work(format!("{} cannot be used: {error}", path.display()))
            })?);
        } else if let Some(name) = manifest {
            let parsed = Manifest::parse_named(&name, &bytes);
            manifests.push(parsed.map_err(|error| {
                JobError::work(format!("{} is no manifest: {error}", path.display()))
            })?);
        } else if stem.is_some() {
            objects.push((ObjectKey::table(&Hash::sha256(&bytes)), bytes));
        } else {
            objects.push((ObjectKey::archive(&Hash::blake3(&bytes)), bytes));
        }
    }
    let newest = manifests.into_iter().max_by_key(|one| one.core.sequence);
    let manifest = newest.ok_or_else(|| {
        JobError::request("there is no manifest among these files").with_next(
            "`sealift key prove --from URL --collect DIR` writes all that is needed into DIR",
        )
    })?;
    let folder = HostFolder::new(memory, manifest.core.host.clone());
    for (key, bytes) in objects {
        let body = Body::Bytes(Bytes::from(bytes));
        let key = folder.key(&key);
        folder.target.put(&key, body, PutMode::Create).await?;
    }
    let target = about.filter(|about| about.host == folder.host);
    let target = target.map_or_else(unknown_target, |about| about.target);
    prover.prove(&folder, &manifest, target).await
}

/// A place that is not known: the files were brought by hand.
fn unknown_target() -> ReceiptTarget {
    ReceiptTarget {
        name: "offline".to_owned(),
        id: "0".repeat(16),
    }
}

/// Returns the files, and those in directories among them.
fn expanded(files: &[PathBuf]) -> Result<Vec<PathBuf>, JobError> {
    let mut all = Vec::new();
    for path in files {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let failed = |error: std::io::Error| {
            JobError::work(format!("cannot read {}: {error}", path.display()))
        };
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file() {
                all.push(entry.path());
            }
        }
    }
    match all.len() > MAX_FILES {
        true => Err(JobError::request(format!(
            "these are {} files, and at most {MAX_FILES} are read",
            all.len()
        ))),
        false => Ok(all),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JobError> {
    let failed =
        |error: std::io::Error| JobError::work(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(JobError::work(format!("{} is too large", path.display()))),
        false => Ok(bytes),
    }
}

/// Reads a file that [`SignedReceipt::file`] made. The host judges it; this only refuses what is no
/// receipt.
pub(crate) fn read_receipt(path: &Path) -> Result<SignedReceipt, JobError> {
    let bytes = read(path)?;
    let wrong = |what: String| {
        JobError::request(format!("{} is no receipt: {what}", path.display()))
            .with_next("give the file that `sealift key prove --archive ... --output FILE` wrote")
    };
    let both: ReceiptOnStick =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let bytes = both.receipt.into_bytes();
    let receipt = Receipt::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
    let name = receipt.name();
    let objects = [
        (
            ObjectKey::receipt_signature(&name),
            both.signature.into_bytes(),
        ),
        (ObjectKey::receipt(&name), bytes),
    ];
    Ok(SignedReceipt { receipt, objects })
}

/// Puts a receipt into the host's folder, which must hold the snapshot that it names.
pub(crate) async fn upload(folder: &HostFolder, signed: &SignedReceipt) -> Result<(), JobError> {
    let receipt = &signed.receipt;
    let is_it =
        |name: &ManifestName| (name.sequence, name.stamp) == (receipt.sequence, receipt.stamp);
    // Credentials that may only add receipts list nothing.
    let names = folder.manifest_names().await;
    if names.is_ok_and(|names| !names.iter().any(is_it)) {
        let (stamp, host, label) = (receipt.stamp, &receipt.host, folder.target.label());
        return Err(JobError::work(format!(
            "the receipt is about snapshot {stamp} of {host}, which is not on {label}"
        ))
        .with_next("name the target from which the files were collected, or collect them again"));
    }
    folder.put_receipt(&signed.objects).await.map_err(|error| {
        JobError::work(error).with_next(
            "these credentials must be able to add objects below receipts/ (docs/proof.md)",
        )
    })
}
