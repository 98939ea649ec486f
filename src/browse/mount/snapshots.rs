//! The snapshots that the mount shows: which there are, and the trees of those that were entered.
//!
//! A snapshot's index is fetched when something in its directory is looked up, once, however many
//! processes wait for it. Trees that were not used for long are dropped when they take too much
//! memory together; an index never changes, so the numbers of inodes stay right.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::inode::SnapshotSlot;
use super::notes::MountNotes;
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::lock::lock;
use crate::browse::tree::SnapshotTree;
use crate::format::chain::Chain;
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::Trust;
use crate::repository::{ArchiveTable, HostFolder};
use crate::restore::open::Identities;
use crate::restore::read_index;

/// Age from which the list of snapshots is read again before it is shown.
const LIST_AGE: Duration = Duration::from_secs(30);
/// Longest time for which a listing waits for a new list; then it shows the old one.
const LIST_WAIT: Duration = Duration::from_secs(10);
/// Memory of all trees; the one that was used last stays anyway.
const TREE_BYTES: usize = 512 << 20;
/// Time for which a failure is not tried again: the kernel repeats what fails.
const FAILURE_AGE: Duration = Duration::from_secs(2);

/// A snapshot that the mount shows.
#[derive(Debug)]
pub(super) struct MountedSnapshot {
    pub(super) slot: SnapshotSlot,
    /// Its name in `by-time`.
    pub(super) name: String,
    pub(super) signer: String,
    pub(super) manifest: Manifest,
}

/// The tree of a snapshot, and the archives that hold its content.
pub(super) struct EnteredSnapshot {
    pub(super) name: String,
    pub(super) tree: SnapshotTree,
    pub(super) table: ArchiveTable,
}

/// A tree that is there or on its way. The error is a line for the notes.
pub(super) type Entering = Shared<BoxFuture<'static, Result<Arc<EnteredSnapshot>, Arc<str>>>>;

/// The snapshots of one look at the target.
#[derive(Default)]
pub(super) struct SnapshotList {
    pub(super) by_name: BTreeMap<String, Arc<MountedSnapshot>>,
    pub(super) by_sequence: BTreeMap<u64, Arc<MountedSnapshot>>,
}

impl SnapshotList {
    /// Returns the snapshot with the highest sequence.
    pub(super) fn latest(&self) -> Option<&Arc<MountedSnapshot>> {
        self.by_sequence.values().next_back()
    }
}

/// Where the snapshots come from.
pub struct SnapshotSource {
    /// The folder of their host.
    pub folder: HostFolder,
    /// Whose signatures count.
    pub trust: Trust,
    /// What decrypts them.
    pub identities: Arc<Identities>,
    /// Core hashes of the only snapshots to show; `None`: all, also later ones.
    pub only: Option<HashSet<Hash>>,
}

struct Trees {
    by_slot: HashMap<SnapshotSlot, (Entering, u64)>,
    /// Counts uses.
    clock: u64,
}

struct ListedSnapshots {
    list: Arc<SnapshotList>,
    /// Every snapshot that was ever shown, so that its open files can be read.
    seen: HashMap<SnapshotSlot, Arc<MountedSnapshot>>,
    names: Vec<ManifestName>,
    at: Instant,
}

/// The snapshots of a mount.
pub(super) struct MountedSnapshots {
    source: SnapshotSource,
    notes: Arc<MountNotes>,
    listed: Mutex<ListedSnapshots>,
    refreshing: Mutex<()>,
    trees: Mutex<Trees>,
}

impl MountedSnapshots {
    /// Returns those of `chain`.
    pub(super) fn new(source: SnapshotSource, chain: &Chain, notes: Arc<MountNotes>) -> Self {
        let all = Self {
            source,
            notes,
            listed: Mutex::new(ListedSnapshots {
                list: Arc::default(),
                seen: HashMap::new(),
                names: Vec::new(),
                at: Instant::now(),
            }),
            refreshing: Mutex::default(),
            trees: Mutex::new(Trees {
                by_slot: HashMap::new(),
                clock: 0,
            }),
        };
        all.take(chain);
        all
    }

    /// Returns the label of the target, for messages.
    pub(super) fn target(&self) -> &str {
        self.source.folder.target.label()
    }

    /// Returns the snapshots as they were at the last look.
    pub(super) fn list(&self) -> Arc<SnapshotList> {
        Arc::clone(&lock(&self.listed).list)
    }

    /// Returns a snapshot that is shown or was.
    pub(super) fn snapshot(&self, slot: SnapshotSlot) -> Option<Arc<MountedSnapshot>> {
        lock(&self.listed).seen.get(&slot).cloned()
    }

    /// Whether [`Self::refresh`] would look at the target.
    pub(super) fn is_stale(&self) -> bool {
        self.source.only.is_none() && lock(&self.listed).at.elapsed() > LIST_AGE
    }

    /// Looks for new snapshots if the list is old. If the target does not answer soon, or another
    /// request already looks, the old list stays.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let all = Arc::clone(self);
        let task = on_a_thread(move |runtime| {
            if let Ok(_alone) = all.refreshing.try_lock()
                && all.is_stale()
            {
                runtime.block_on(all.read_list());
            }
        });
        let _ = tokio::time::timeout(LIST_WAIT, task).await;
    }

    async fn read_list(&self) {
        // Also after a failure, which must not hold up every listing.
        lock(&self.listed).at = Instant::now();
        let folder = &self.source.folder;
        let names = match folder.manifest_names().await {
            Ok(mut names) => {
                names.sort();
                names
            }
            Err(error) => return self.list_failed(&with_causes(&error)),
        };
        if lock(&self.listed).names == names {
            return;
        }
        match folder.chain(&self.source.trust).await {
            Ok(chain) => {
                self.take(&chain);
                lock(&self.listed).names = names;
            }
            Err(error) => self.list_failed(&with_causes(&error)),
        }
    }

    fn list_failed(&self, why: &str) {
        self.notes.say(&format!(
            "cannot look for new snapshots: {why}; those that are shown stay"
        ));
    }

    fn take(&self, chain: &Chain) {
        let mut list = SnapshotList::default();
        let mut listed = lock(&self.listed);
        for one in &chain.snapshots {
            let core = &one.manifest.core;
            let only = self.source.only.as_ref();
            if only.is_some_and(|only| !only.contains(&one.manifest.core_hash)) {
                continue;
            }
            let slot = SnapshotSlot::of(core.sequence);
            let known = listed.seen.get(&slot);
            // Another snapshot with the same numbers of inodes would be shown as the first one.
            if known.is_some_and(|known| known.manifest.core_hash != one.manifest.core_hash) {
                self.notes.say(&format!(
                    "snapshot {} is not shown: another one has its place (sequence {})",
                    core.stamp, core.sequence
                ));
                continue;
            }
            let mut name = core.stamp.time().format("%Y-%m-%dT%H:%M:%SZ").to_string();
            if list.by_name.contains_key(&name) {
                name = format!("{name}-{}", core.sequence);
            }
            let snapshot = Arc::new(MountedSnapshot {
                slot,
                name: name.clone(),
                signer: one.signer.clone(),
                manifest: one.manifest.clone(),
            });
            list.by_name.insert(name, Arc::clone(&snapshot));
            list.by_sequence
                .insert(core.sequence, Arc::clone(&snapshot));
            listed.seen.insert(slot, snapshot);
        }
        listed.list = Arc::new(list);
    }

    /// Returns the tree of a snapshot, which is fetched if it is not there; `None`: there is no
    /// such snapshot. Must be called within a runtime.
    pub(super) fn enter(self: &Arc<Self>, slot: SnapshotSlot) -> Option<Entering> {
        let snapshot = self.snapshot(slot)?;
        let mut trees = lock(&self.trees);
        trees.clock += 1;
        let clock = trees.clock;
        if let Some((entering, used)) = trees.by_slot.get_mut(&slot) {
            *used = clock;
            return Some(entering.clone());
        }
        let all = Arc::clone(self);
        // A task of its own, so that it goes on if the process that waits for it ends.
        let task = on_a_thread(move |runtime| {
            let fetched = runtime.block_on(all.fetch(&snapshot));
            match &fetched {
                Ok(entered) => all.drop_unused(slot, entered.tree.memory_bytes()),
                Err(line) => {
                    all.notes.say(line);
                    runtime.spawn(async move {
                        tokio::time::sleep(FAILURE_AGE).await;
                        lock(&all.trees).by_slot.remove(&slot);
                    });
                }
            }
            fetched
        });
        let entering = task.map(|ended| match ended {
            Ok(fetched) => fetched,
            Err(_) => Err(Arc::from("a task of the mount ended early")),
        });
        let entering = entering.boxed().shared();
        trees.by_slot.insert(slot, (entering.clone(), clock));
        Some(entering)
    }

    async fn fetch(&self, snapshot: &MountedSnapshot) -> Result<Arc<EnteredSnapshot>, Arc<str>> {
        let SnapshotSource {
            folder, identities, ..
        } = &self.source;
        let name = &snapshot.name;
        let failed = |why: &str| {
            let target = folder.target.label();
            Arc::from(format!(
                "the index of {name} on {target} cannot be read: {why}"
            ))
        };
        let table = folder.table(&snapshot.manifest).await;
        let table = table.map_err(|error| failed(&with_causes(&error)))?;
        let index = read_index(folder, &snapshot.manifest, &table, identities).await;
        let (_, entries) = index.map_err(|error| failed(&with_causes(&error)))?;
        let tree = SnapshotTree::new(entries);
        let tree = tree.map_err(|error| failed(&error.to_string()))?;
        Ok(Arc::new(EnteredSnapshot {
            name: name.clone(),
            tree,
            table,
        }))
    }

    /// Drops the trees that were used longest ago while all, with the newest one of `newest_bytes`,
    /// take too much memory.
    fn drop_unused(&self, newest: SnapshotSlot, newest_bytes: usize) {
        let mut trees = lock(&self.trees);
        let bytes = |entering: &Entering| match entering.peek() {
            Some(Ok(entered)) => entered.tree.memory_bytes(),
            _ => 0,
        };
        let others: usize = trees.by_slot.values().map(|(one, _)| bytes(one)).sum();
        let mut total = others + newest_bytes;
        while total > TREE_BYTES {
            let others = trees.by_slot.iter().filter(|(slot, _)| **slot != newest);
            let droppable = others.filter(|(_, (one, _))| bytes(one) > 0);
            let Some((slot, _)) = droppable.min_by_key(|(_, (_, used))| *used) else {
                return;
            };
            let slot = *slot;
            if let Some((dropped, _)) = trees.by_slot.remove(&slot) {
                total -= bytes(&dropped);
            }
        }
    }
}

/// Runs `work` on a thread that may block. (Requests to a target borrow too much to be tasks.)
fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&Handle) -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || work(&Handle::current()))
}
