//! Reading a sample with the library: everything that is in it, not only what the newest snapshot needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift::base::error_chain::with_causes;
use sealift::base::ids::{Hash, ObjectKey};
use sealift::base::progress::Silent;
use sealift::base::snapshot_choice::SnapshotChoice;
use sealift::format::known::{Directory, KnownPage};
use sealift::format::manifest::TablePage;
use sealift::format::restored::RESTORED;
use sealift::format::signature::Trust;
use sealift::format::statement::Vouched;
use sealift::repository::HostFolder;
use sealift::restore::open::{Identities, Prompt, SecretString};
use sealift::restore::{self, DatabaseCheck, RestoreRequest};
use sealift::scrub::Reading;
use sealift::scrub::examine;
use sealift::scrub::read_archives;
use sealift::storage::{self, TargetSpec};

use crate::support::files::files;

/// What `expected.json` says of the sample.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub sequences: Vec<u64>,
    /// Fingerprints of the signers, in order.
    pub signers: Vec<String>,
    pub tombstones: usize,
    pub marks: usize,
    /// Of these.
    #[serde(default)]
    pub signed_marks: usize,
    pub pages: usize,
    pub archives: usize,
    /// Stamps that `prune` would forget where it keeps the last two days.
    pub pruned_to_two: Vec<String>,
}

impl Expected {
    pub fn read(sample: &Path) -> Self {
        serde_json::from_slice(&fs::read(sample.join("expected.json")).unwrap()).unwrap()
    }

    /// A line per entry of a snapshot's tree.
    pub fn tree(&self, sample: &Path, sequence: u64) -> Vec<String> {
        let text = fs::read_to_string(sample.join(format!("trees/{sequence}.txt"))).unwrap();
        text.lines().map(for_us).collect()
    }
}

/// Only root gives files away; so for others the owner is left out of both sides.
fn for_us(line: &str) -> String {
    match rustix::process::geteuid().is_root() {
        true => line.to_owned(),
        false => line
            .split(' ')
            .filter(|word| !word.starts_with("owner="))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

pub fn without_devices(tree: &[String]) -> Vec<String> {
    let kept = tree.iter().filter(|line| !line.starts_with("device"));
    kept.cloned().collect()
}

/// Everything a restore must bring back: a line per entry, by path.
pub fn listing(tree: &Path) -> Vec<String> {
    full_listing(tree).iter().map(|line| for_us(line)).collect()
}

pub fn full_listing(tree: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut dirs = vec![tree.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            paths.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    let raw = |path: &PathBuf| {
        path.strip_prefix(tree)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec()
    };
    // A restore writes its record beside the tree.
    paths.retain(|path| raw(path) != RESTORED.as_bytes());
    paths.sort_by_key(raw);
    let mut inodes: HashMap<u64, String> = HashMap::new();
    let lines = paths.iter().map(|path| {
        let name = raw(path).escape_ascii().to_string();
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            let text = fs::read_link(path).unwrap();
            format!("link to={}", text.as_os_str().as_bytes().escape_ascii())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else if kind.is_file() {
            let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
            let content = Hash::sha256(&fs::read(path).unwrap());
            format!("file first={first} size={} sha256={content}", meta.size())
        } else {
            let device = meta.rdev();
            format!(
                "device {}:{}",
                rustix::fs::major(device),
                rustix::fs::minor(device)
            )
        };
        let xattrs: BTreeMap<String, String> = xattr::list(path)
            .into_iter()
            .flatten()
            .filter(|name| name.as_bytes().starts_with(b"user."))
            .map(|name| {
                let value = xattr::get(path, &name).unwrap().unwrap();
                (
                    name.as_bytes().escape_ascii().to_string(),
                    value.escape_ascii().to_string(),
                )
            })
            .collect();
        let mode = if kind.is_symlink() {
            0
        } else {
            meta.mode() & 0o7777
        };
        let (owner, time) = (
            format!("{}:{}", meta.uid(), meta.gid()),
            (meta.mtime(), meta.mtime_nsec()),
        );
        format!(
            "{what} mode={mode:o} owner={owner} mtime={}.{:09} xattrs={xattrs:?} path={name}",
            time.0, time.1
        )
    });
    lines.collect()
}

struct NoAnswer;

impl Prompt for NoAnswer {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        None
    }
    fn message(&self, _text: &str) {}
}

/// Reads all of it, and holds it against what is expected.
pub fn everything(sample: &Path, key: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let text = fs::read(sample.join("expected.json")).map_err(|e| e.to_string())?;
    let expected: Expected = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let trees = read_trees(sample, &expected)?;
    let signers = sample.join("allowed_signers").display().to_string();
    let trust = Trust::parse(&signers).map_err(|e| with_causes(&e))?;
    runtime.block_on(read(sample, key, &expected, &trees, &trust))
}

fn read_trees(sample: &Path, expected: &Expected) -> Result<BTreeMap<u64, Vec<String>>, String> {
    let read = |sequence: &u64| {
        let text = fs::read_to_string(sample.join(format!("trees/{sequence}.txt")));
        let text = text.map_err(|e| e.to_string())?;
        Ok((*sequence, text.lines().map(for_us).collect()))
    };
    expected.sequences.iter().map(read).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}, expected {expected:?}")),
    }
}

async fn read(
    sample: &Path,
    key: &Path,
    expected: &Expected,
    trees: &BTreeMap<u64, Vec<String>>,
    trust: &Trust,
) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let url = sample.join("repo").display().to_string();
    let target = storage::open(&TargetSpec::from_url(&url)).map_err(|e| told(&e))?;
    let folder = HostFolder::new(target, "sample".parse().unwrap());
    let chain = folder.chain(trust).await.map_err(|e| with_causes(&e))?;
    same("findings", chain.findings.len(), 0)?;
    let sequences: Vec<u64> = chain.snapshots.iter().map(|one| one.sequence()).collect();
    same("sequences", sequences, expected.sequences.clone())?;
    let signers: Vec<String> = chain
        .snapshots
        .iter()
        .map(|one| one.signer.clone())
        .collect();
    same("signers", signers, expected.signers.clone())?;
    let tombstones = folder.tombstones(trust, &chain.signers(), |_| true).await;
    same(
        "tombstones",
        tombstones.map_err(|e| told(&e))?.len(),
        expected.tombstones,
    )?;
    let marks = folder.marks(trust, &chain.signers()).await;
    let marks = marks.map_err(|e| told(&e))?.seen;
    same("marks", marks.len(), expected.marks)?;
    let signed = marks.iter().filter(|one| one.vouched == Vouched::Signer);
    same("signed marks", signed.count(), expected.signed_marks)?;
    // What no other reader looks at: pages and archives that wait to be deleted.
    let mut needed: BTreeSet<Hash> = marks
        .iter()
        .flat_map(|one| one.mark.archives.clone())
        .collect();
    let (mut pages, mut archives) = (0, 0);
    for path in files(&sample.join("repo/sample/tables")) {
        let bytes = fs::read(&path).map_err(|e| told(&e))?;
        let key = ObjectKey::table(&Hash::sha256(&bytes));
        same("page", path.ends_with(key.as_str()), true)?;
        pages += 1;
        if KnownPage::parse(&bytes).is_ok() || Directory::parse(&bytes).is_ok() {
            continue;
        }
        let page = TablePage::parse(&bytes).map_err(|e| told(&e))?;
        needed.extend(page.rows.iter().map(|row| row.blake3));
    }
    for path in files(&sample.join("repo/sample/archives")) {
        let hash = Hash::blake3(&fs::read(&path).map_err(|e| told(&e))?);
        same(
            "archive",
            path.ends_with(ObjectKey::archive(&hash).as_str()),
            true,
        )?;
        same("needed", needed.contains(&hash), true)?;
        archives += 1;
    }
    same("pages", pages, expected.pages)?;
    same("archives", archives, expected.archives)?;
    let now = "2026-04-05T00:00:00Z".parse().unwrap();
    let examined = examine(&folder, trust, &[], now)
        .await
        .map_err(|e| with_causes(&e))?;
    same(
        "problems",
        format!("{:?}", examined.problems),
        "[]".to_owned(),
    )?;
    let whole = examined.whole.into_values().collect();
    let mut wrong = 0;
    read_archives(&folder, whole, 4, |_, reading| {
        wrong += usize::from(!matches!(reading, Reading::Whole))
    })
    .await
    .map_err(|e| told(&e))?;
    same("damaged archives", wrong, 0)?;
    restore_all(&folder, key, trees, trust).await
}

async fn restore_all(
    folder: &HostFolder,
    key: &Path,
    trees: &BTreeMap<u64, Vec<String>>,
    trust: &Trust,
) -> Result<(), String> {
    let prompt: Arc<dyn Prompt> = Arc::new(NoAnswer);
    let identities = Identities::load(&[key.to_owned()], &prompt).map_err(|e| with_causes(&e))?;
    let identities = Arc::new(identities);
    let scratch = tempfile::tempdir().unwrap();
    for (sequence, tree) in trees {
        let request = RestoreRequest {
            snapshot: SnapshotChoice::parse(&sequence.to_string()).unwrap(),
            to: scratch.path().join(sequence.to_string()),
            paths: Vec::new(),
            overwrite: false,
            at_least: None,
            devices: false,
            databases: DatabaseCheck::Repeat,
        };
        let plan = restore::plan(folder, &request, Arc::clone(&identities), trust).await;
        let plan = plan.map_err(|e| with_causes(&e))?;
        let restored = restore::execute(plan, Arc::new(Silent)).await;
        restored.map_err(|e| with_causes(&e))?;
        same("tree", listing(&request.to), without_devices(tree))?;
    }
    Ok(())
}
