//! Content that is fetched from a target and decrypted on this host.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use super::{ContentOrigin, ContentScratch, InPlaceContent};
use crate::base::openat::Dir;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::format::chain::Chain;
use crate::format::restored::{RESTORED, RestoredRecord};
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{
    self, DatabaseCheck, RestoreError, RestorePlan, RestoreReport, RestoreRequest,
};

/// What to fetch.
pub(crate) struct FetchRequest {
    /// The host's folder on the target.
    pub(crate) folder: HostFolder,
    /// Its chain, as the caller verified it.
    pub(crate) chain: Chain,
    /// The snapshot.
    pub(crate) snapshot: SnapshotChoice,
    /// The lowest sequence number to accept. `None`: any.
    pub(crate) at_least: Option<u64>,
    /// The identities that decrypt it.
    pub(crate) identities: Arc<Identities>,
}

/// Why content could not be fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The restore into the scratch directory failed.
    Restore(RestoreError),
    /// There is no place for it, or it cannot be used.
    Job(JobError),
}

impl From<RestoreError> for FetchError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}

impl From<JobError> for FetchError {
    fn from(error: JobError) -> Self {
        Self::Job(error)
    }
}

impl FetchRequest {
    /// Restores the whole snapshot into the new directory `name` in `dir`, a private directory.
    /// `announce` takes the plan before anything is fetched.
    pub(crate) async fn restore_into(
        self,
        dir: &Dir,
        name: &str,
        announce: &dyn Fn(&RestorePlan),
        front: &dyn FrontEnd,
    ) -> Result<(RestoreReport, RestoredRecord), FetchError> {
        let request = RestoreRequest {
            snapshot: self.snapshot,
            to: PathBuf::from(name),
            paths: Vec::new(),
            overwrite: false,
            at_least: self.at_least,
            devices: rustix::process::geteuid().is_root(),
            databases: DatabaseCheck::Repeat,
        };
        let plan =
            restore::plan_within(dir, &self.folder, self.chain, &request, self.identities).await?;
        announce(&plan);
        let display = front.show_restore();
        let report = restore::execute(plan, Arc::clone(&display.progress)).await?;
        drop(display);
        if !report.has_record {
            let text = format!(
                "snapshot {} has an entry {RESTORED} at its root, where the record of a restore belongs",
                report.stamp
            );
            let next = "give that source another `to` and back up again; until then, restore it with --to and copy \
                        the files by hand";
            return Err(JobError::work(text).with_next(next).into());
        }
        let tree = dir.sub(name).map_err(JobError::from)?;
        let (file, _) = tree.open_file(RESTORED).map_err(JobError::from)?;
        let record = RestoredRecord::read(BufReader::with_capacity(1 << 16, file));
        Ok((report, record.map_err(JobError::from)?))
    }
}

impl InPlaceContent {
    /// Fetches a snapshot into a private directory on this host. Every byte is verified, as in any
    /// restore. `announce` takes the plan before anything is fetched.
    pub(crate) async fn fetch(
        config: &Config,
        request: FetchRequest,
        announce: &dyn Fn(&RestorePlan),
        front: &dyn FrontEnd,
    ) -> Result<(Self, RestoreReport), FetchError> {
        // The size is not known before the index is read; the restore itself looks for room again.
        let scratch = ContentScratch::make(config, 0)?;
        let (name, path) = scratch.tree();
        let label = request.folder.target.label().to_owned();
        let (report, record) = request
            .restore_into(scratch.dir(), name, announce, front)
            .await?;
        let content = Self {
            dir: path,
            stamp: record.header.stamp,
            host: record.header.host.to_string(),
            origin: ContentOrigin::Target(label),
            record: Some(record),
            _scratch: Some(scratch),
        };
        Ok((content, report))
    }
}
