//! Mounts snapshots as a read-only file system, by FUSE.
//!
//! The mount shows `by-time/STAMP/…`, `by-sequence/N`, `latest` and `.sealift/`. A snapshot's
//! index is fetched when something in it is looked up, and content when it is read, by ranges.
//! Nothing that was decrypted is written to a disk. A request waits for the target for a limited
//! time; what cannot be read, or does not authenticate, is EIO and a line that says why.

mod attributes;
mod files;
mod filesystem;
mod inode;
mod interrupted;
mod listing;
mod notes;
mod place;
mod reading;
mod snapshots;
mod state;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL};

use crate::base::clock;
use crate::format::chain::Chain;
use crate::restore::{RangeReader, RangeReaderOptions};
use attributes::AttributeView;
use files::OpenFiles;
use filesystem::{KERNEL_AHEAD_BYTES, SealedFilesystem};
use notes::MountNotes;
use place::{is_root, raise_read_ahead};
use snapshots::MountedSnapshots;
use state::MountState;

pub use notes::NoteSink;
pub use place::{MountError, check_mount_point, unmount};
pub use snapshots::SnapshotSource;
pub use state::MountLimits;

/// Threads that receive requests.
const THREADS: usize = 4;

/// Who may use a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountAccess {
    /// The user who mounts.
    Owner,
    /// That user and root.
    OwnerAndRoot,
    /// Every user, as modes and owners of the files allow.
    Everyone,
}

/// How a mount looks and reads.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// Who may use it.
    pub access: MountAccess,
    /// Whether files show the owners that they have in the snapshot; else the user who mounts.
    pub keeps_owners: bool,
    /// How reads are done.
    pub limits: MountLimits,
    /// What the reader may keep.
    pub reader: RangeReaderOptions,
}

/// A mount that is there, and not yet served.
pub struct MountSession {
    session: Session<SealedFilesystem>,
    state: Arc<MountState>,
}

/// Shows whether a mount is in use.
#[derive(Clone)]
pub struct MountActivity(Arc<MountState>);

impl MountActivity {
    /// Returns how long there was no request; zero while a file or a directory is open.
    pub fn idle(&self) -> Duration {
        self.0.idle()
    }
}

impl MountSession {
    /// Mounts the snapshots of `chain` on `dir`, which [`check_mount_point`] returned. `notes`
    /// receives a line per cause of failing reads. Must be called within a runtime, which serves
    /// the requests.
    pub fn mount(
        source: SnapshotSource,
        chain: &Chain,
        dir: &Path,
        settings: MountSettings,
        notes: NoteSink,
    ) -> Result<Self, MountError> {
        let notes = Arc::new(MountNotes::new(notes));
        let mounter = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let config = config(source.folder.host.as_str(), settings.access);
        let identities = Arc::clone(&source.identities);
        let reader = RangeReader::new(source.folder.clone(), identities, settings.reader);
        let snapshots = MountedSnapshots::new(source, chain, Arc::clone(&notes));
        let state = Arc::new(MountState {
            snapshots: Arc::new(snapshots),
            reader,
            files: OpenFiles::default(),
            notes,
            view: AttributeView {
                owner: (!settings.keeps_owners).then_some(mounter),
                mounter,
                is_root: is_root(),
            },
            limits: settings.limits,
            runtime: tokio::runtime::Handle::current(),
            is_shared: settings.access == MountAccess::Everyone,
            began: Instant::now(),
            began_at: clock::now().into(),
            open_dirs: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
        });
        let filesystem = SealedFilesystem(Arc::clone(&state));
        let session = Session::new(filesystem, dir, &config);
        let session = session.map_err(|source| MountError::Refused {
            dir: dir.to_owned(),
            // fusermount3 ends its line.
            source: io::Error::new(source.kind(), source.to_string().trim().to_owned()),
        })?;
        raise_read_ahead(dir, KERNEL_AHEAD_BYTES);
        Ok(Self { session, state })
    }

    /// Returns the number of snapshots that are shown.
    pub fn snapshots(&self) -> usize {
        self.state.snapshots.list().by_name.len()
    }

    /// Returns what shows whether the mount is in use.
    pub fn activity(&self) -> MountActivity {
        MountActivity(Arc::clone(&self.state))
    }

    /// Serves requests until the mount is taken away.
    pub fn serve(self) -> io::Result<()> {
        self.session.run()
    }
}

/// Returns the options of the mount. Its type is `fuse.sealift`, by which indexers leave it out.
fn config(host: &str, access: MountAccess) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("sealift:{host}")),
        // As text, since fuser passes its own option for this to fusermount3 only.
        MountOption::CUSTOM("subtype=sealift".to_owned()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        // Without it the kernel ignores the modes of files for other users.
        MountOption::DefaultPermissions,
    ];
    config.acl = match access {
        MountAccess::Owner => SessionACL::Owner,
        MountAccess::OwnerAndRoot => SessionACL::RootAndOwner,
        MountAccess::Everyone => SessionACL::All,
    };
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}
