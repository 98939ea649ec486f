//! What all requests of a mount share, and the directories above the snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use fuser::{Errno, FileAttr};
use serde_json::json;
use tokio::runtime::Handle;

use super::attributes::{AttributeView, is_root, root_attributes};
use super::files::OpenFiles;
use super::inode::{MountInode, SnapshotSlot};
use super::interrupted::{WaitEnd, wait_for};
use super::notes::MountNotes;
use super::snapshots::{EnteredSnapshot, MountedSnapshot, MountedSnapshots};
use crate::base::units::duration;
use crate::browse::tree::TreeNode;
use crate::restore::RangeReader;

/// How reads are done.
#[derive(Debug, Clone, Copy)]
pub struct MountLimits {
    /// Longest time for which a request waits for the target.
    pub wait: Duration,
    /// Bytes of a file to fetch ahead while it is read from start to end; 0: none.
    pub ahead_bytes: u64,
}

/// What all requests of a mount share.
pub(super) struct MountState {
    pub(super) snapshots: Arc<MountedSnapshots>,
    pub(super) reader: RangeReader,
    pub(super) files: OpenFiles,
    pub(super) notes: Arc<MountNotes>,
    pub(super) view: AttributeView,
    pub(super) limits: MountLimits,
    pub(super) runtime: Handle,
    /// Whether other users may use the mount.
    pub(super) is_shared: bool,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    /// Directories that are open.
    pub(super) open_dirs: AtomicU64,
    /// Milliseconds from the begin to the last request.
    pub(super) last_request: AtomicU64,
}

/// A file or a directory above the snapshots' content.
pub(super) struct TopEntry {
    pub(super) name: String,
    pub(super) attributes: FileAttr,
}

impl MountState {
    /// Notes that there was a request.
    pub(super) fn note_request(&self) {
        let elapsed = self.began.elapsed().as_millis() as u64;
        self.last_request.store(elapsed, Ordering::Relaxed);
    }

    /// Returns how long there was no request; zero while something is open.
    pub(super) fn idle(&self) -> Duration {
        if !self.files.is_empty() || self.open_dirs.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last_request.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    /// Calls `then` with the tree of a snapshot: at once if it is there, otherwise later on the
    /// runtime. Process `pid` waits for that.
    pub(super) fn within(
        self: &Arc<Self>,
        pid: u32,
        slot: SnapshotSlot,
        then: impl FnOnce(&Arc<Self>, Result<&Arc<EnteredSnapshot>, Errno>) + Send + 'static,
    ) {
        let _runtime = self.runtime.enter();
        let Some(entering) = self.snapshots.enter(slot) else {
            return then(self, Err(Errno::ENOENT));
        };
        if let Some(entered) = entering.peek() {
            return then(self, entered.as_ref().map_err(|_| Errno::EIO));
        }
        let state = Arc::clone(self);
        self.runtime.spawn(async move {
            let entered = match wait_for(pid, state.limits.wait, entering).await {
                Ok(entered) => entered.map_err(|_| Errno::EIO),
                Err(end) => {
                    if end == WaitEnd::TimedOut {
                        state.note_slow("the index of a snapshot");
                    }
                    Err(end.errno())
                }
            };
            then(&state, entered.as_ref().map_err(|errno| *errno));
        });
    }

    /// Reports that the target did not deliver `what` in time.
    pub(super) fn note_slow(&self, what: &str) {
        self.notes.say(&format!(
            "{} did not deliver {what} within {}: it is still being fetched (see --timeout)",
            self.snapshots.target(),
            duration(self.limits.wait),
        ));
    }

    /// Returns the entries of a directory above the snapshots; `None` if it is none.
    pub(super) fn top_entries(&self, directory: MountInode) -> Option<Vec<TopEntry>> {
        let entry = |inode: MountInode, name: &str| {
            Some(TopEntry {
                name: name.to_owned(),
                attributes: self.top_attributes(inode)?,
            })
        };
        let list = self.snapshots.list();
        Some(match directory {
            MountInode::Top => {
                let all = [
                    entry(MountInode::Service, ".sealift"),
                    entry(MountInode::BySequence, "by-sequence"),
                    entry(MountInode::ByTime, "by-time"),
                    entry(MountInode::Latest, "latest"),
                ];
                all.into_iter().flatten().collect()
            }
            MountInode::Service => {
                let all = [
                    entry(MountInode::SnapshotsJson, "snapshots.json"),
                    entry(MountInode::Version, "version"),
                ];
                all.into_iter().flatten().collect()
            }
            MountInode::ByTime => {
                let all = list.by_name.values();
                let all = all.map(|one| TopEntry {
                    name: one.name.clone(),
                    attributes: self.snapshot_attributes(one),
                });
                all.collect()
            }
            MountInode::BySequence => {
                let all = list.by_sequence.iter();
                let all = all.filter_map(|(sequence, one)| {
                    entry(MountInode::SequenceLink(one.slot), &sequence.to_string())
                });
                all.collect()
            }
            _ => return None,
        })
    }

    /// Returns the attributes of a file that needs no index; `None`: there is none, or it does.
    pub(super) fn top_attributes(&self, inode: MountInode) -> Option<FileAttr> {
        let (view, began, number) = (&self.view, self.began_at, inode.number());
        let list = self.snapshots.list();
        Some(match inode {
            MountInode::Top => view.directory(number, began, 5),
            MountInode::ByTime => view.directory(number, began, list.by_name.len() as u32 + 2),
            MountInode::BySequence | MountInode::Service => view.directory(number, began, 2),
            MountInode::Latest => {
                let time = list.latest()?.manifest.core.stamp.time().into();
                view.link(number, time, self.link_text(inode)?.len())
            }
            MountInode::SequenceLink(slot) => {
                let snapshot = self.snapshots.snapshot(slot)?;
                let time = snapshot.manifest.core.stamp.time().into();
                view.link(number, time, self.link_text(inode)?.len())
            }
            MountInode::Version | MountInode::SnapshotsJson => {
                view.file(number, began, self.text(inode)?.len())
            }
            MountInode::Sealed(slot, node) if is_root(node) => {
                self.snapshot_attributes(&*self.snapshots.snapshot(slot)?)
            }
            MountInode::Sealed(..) => return None,
        })
    }

    /// Returns the attributes of a snapshot's own directory, which its manifest alone says.
    fn snapshot_attributes(&self, snapshot: &MountedSnapshot) -> FileAttr {
        let seconds = snapshot.manifest.core.stamp.time().timestamp();
        let number = MountInode::Sealed(snapshot.slot, TreeNode::ROOT).number();
        // One link: how many directories are in it, only the index says.
        let attributes = root_attributes(i128::from(seconds) * 1_000_000_000, 1);
        let mut attributes = self.view.sealed(number, &attributes);
        (attributes.uid, attributes.gid) = self.view.mounter;
        attributes
    }

    /// Returns the text of a link above the snapshots.
    pub(super) fn link_text(&self, inode: MountInode) -> Option<String> {
        match inode {
            MountInode::Latest => {
                let list = self.snapshots.list();
                Some(format!("by-time/{}", list.latest()?.name))
            }
            MountInode::SequenceLink(slot) => {
                let name = &self.snapshots.snapshot(slot)?.name;
                Some(format!("../by-time/{name}"))
            }
            _ => None,
        }
    }

    /// Returns the content of a file that the mount makes.
    pub(super) fn text(&self, inode: MountInode) -> Option<Vec<u8>> {
        let text = match inode {
            MountInode::Version => format!("sealift {}", env!("CARGO_PKG_VERSION")),
            MountInode::SnapshotsJson => {
                let list = self.snapshots.list();
                let one = |one: &Arc<MountedSnapshot>| {
                    let core = &one.manifest.core;
                    json!({
                        "path": format!("by-time/{}", one.name),
                        "sequence": core.sequence,
                        "stamp": core.stamp,
                        "signer": one.signer,
                        "entries": core.totals.entries,
                        "bytes": core.totals.bytes,
                    })
                };
                let all: Vec<_> = list.by_sequence.values().map(one).collect();
                format!("{:#}", json!(all))
            }
            _ => return None,
        };
        Some(format!("{text}\n").into_bytes())
    }
}
