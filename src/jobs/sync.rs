//! Copies whole hosts or single snapshots from one target to another, as ciphertext.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::context::{FrontEnd, open_catalog, runtime, scratch_dir};
use super::error::JobError;
use super::recovery_files::recovery_files;
use super::signer_memory::RememberedPlace;
use super::targets::{configured_at, own_trust};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::panics::caught;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::format::signature::Trust;
use crate::repository::{self, HostFolder};
use crate::shipper::publish_recovery;
use crate::shipper::sync::{SyncPlan, SyncReport, SyncRequest};
use crate::state::State;
use crate::state::catalog::PublicationState;
use crate::storage::Storage;

/// Request of a copy between targets.
pub(crate) struct SyncJobRequest<'a> {
    pub(crate) from: Arc<dyn Storage>,
    pub(crate) to: Arc<dyn Storage>,
    /// How the operator named `to`: a configured target's name, or a URL.
    pub(crate) to_name: &'a str,
    /// The S3 endpoint of `to`, if a URL names it.
    pub(crate) to_endpoint: Option<&'a str>,
    /// Whose snapshots. Empty: every host's on `from`.
    pub(crate) hosts: &'a [HostName],
    /// Which snapshots. Empty: all.
    pub(crate) snapshots: &'a [SnapshotChoice],
    /// Whose manifests to copy. `None`: those of this host's own signers; of another host, those of
    /// its remembered signers, else of the signer of its oldest snapshot, since a restore decides
    /// again whom to believe.
    pub(crate) trust: Option<Trust>,
    /// The signers that are remembered for `from`.
    pub(crate) remembered: RememberedPlace<'a>,
    /// Most archives that are copied at once.
    pub(crate) concurrency: usize,
    pub(crate) extent: SyncExtent,
    /// Directory for temporary files. `None`: the system's.
    pub(crate) scratch: Option<PathBuf>,
    /// `None` on a machine without a configuration.
    pub(crate) config: Option<&'a Config>,
}

/// Whether to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncExtent {
    /// Copy.
    Copy,
    /// Report what would be copied.
    PlanOnly,
}

/// Report of a copy between targets.
#[derive(Debug, Serialize)]
pub(crate) struct SyncJobReport {
    pub(crate) dry_run: bool,
    /// When the report was made.
    pub(crate) at: DateTime<Utc>,
    pub(crate) hosts: Vec<SyncedHost>,
}

/// Snapshots of one host, copied or planned.
#[derive(Debug, Serialize)]
pub(crate) struct SyncedHost {
    pub(crate) host: HostName,
    /// Snapshots of which something is to be copied.
    pub(crate) snapshots_to_copy: usize,
    pub(crate) archives_to_copy: usize,
    pub(crate) archive_bytes_to_copy: u64,
    /// Snapshots that were copied or completed. `None` of a dry run.
    pub(crate) copied: Option<u64>,
    /// Snapshots that were complete before. `None` of a dry run.
    pub(crate) were_there: Option<u64>,
    /// Archives that were copied.
    pub(crate) archives: u64,
    /// Bytes of everything that was copied.
    pub(crate) bytes: u64,
    pub(crate) failed: Vec<FailedSnapshot>,
    pub(crate) warnings: Vec<String>,
    /// Why it is not known that anything of the host was copied. The other hosts are copied
    /// nevertheless.
    #[serde(serialize_with = "with_its_causes")]
    pub(crate) error: Option<JobError>,
}

/// A snapshot that could not be copied.
#[derive(Debug, Serialize)]
pub(crate) struct FailedSnapshot {
    pub(crate) stamp: String,
    pub(crate) cause: String,
}

fn with_its_causes<S: Serializer>(error: &Option<JobError>, s: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(JobError::with_causes).serialize(s)
}

/// Copies what `request` names, or plans it.
pub(crate) fn run(
    request: &SyncJobRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<SyncJobReport, JobError> {
    let runtime = runtime()?;
    let hosts = match request.hosts {
        [] => runtime.block_on(repository::hosts(&request.from))?,
        named => named.to_vec(),
    };
    if hosts.is_empty() {
        let text = format!("no backups found at {}", request.from.label());
        return Err(JobError::work(text)
            .with_next("check the URL: it is the folder that holds the host's folder"));
    }
    if hosts.len() > 1 && !request.snapshots.is_empty() {
        return Err(
            JobError::request("snapshots of which host?").with_next("choose one with --host")
        );
    }
    let scratch = scratch_dir("sync", request.scratch.as_deref())?;
    let is_alone = hosts.len() == 1;
    let mut done = Vec::new();
    for host in hosts {
        let synced = request.trust(&host, front).and_then(|trust| {
            let stage_request = SyncRequest {
                from: HostFolder::new(request.from.clone(), host.clone()),
                trust,
                to: HostFolder::new(request.to.clone(), host.clone()),
                scratch: scratch.path().to_owned(),
                concurrency: request.concurrency,
            };
            let done = runtime.block_on(caught(request.sync_host(&stage_request, front)));
            let done = done.unwrap_or_else(|panicked| Err(panicked.into()))?;
            if request.extent == SyncExtent::Copy {
                runtime.block_on(request.note_published(&stage_request.to, front));
            }
            Ok(done)
        });
        done.push(match synced {
            Err(error) if is_alone => return Err(error),
            Err(error) => SyncedHost::failed(host, request.extent, error),
            Ok(done) => done,
        });
    }
    Ok(SyncJobReport {
        dry_run: request.extent == SyncExtent::PlanOnly,
        at: clock::in_seconds(clock::now()),
        hosts: done,
    })
}

impl SyncJobRequest<'_> {
    fn trust(&self, host: &HostName, front: &dyn FrontEnd) -> Result<Trust, JobError> {
        match (&self.trust, self.config) {
            (Some(trust), _) => Ok(trust.clone()),
            (None, Some(config)) if config.host == *host => own_trust(config, front),
            (None, _) => self.remembered.trust(host),
        }
    }

    async fn sync_host(
        &self,
        request: &SyncRequest,
        front: &dyn FrontEnd,
    ) -> Result<SyncedHost, JobError> {
        let plan = request.plan(self.snapshots).await?;
        plan.choices.iter().for_each(|choice| front.note(choice));
        let host = request.from.host.clone();
        let bytes = plan.bytes;
        let mut done = SyncedHost::planned(host, &plan);
        if self.extent == SyncExtent::PlanOnly {
            return Ok(done);
        }
        let display = front.show_transfer(&done.host, "copied", bytes);
        let run = request.run(plan, &*display.progress).await;
        drop(display);
        done.take(run?);
        if done.copied > Some(0) {
            let put = publish_recovery(&request.to, &recovery_files()).await;
            if let Err(error) = put {
                let error = with_causes(&error);
                let text = format!("the recovery guide could not be put there: {error}");
                done.warnings.push(text);
            }
            // If the target is full, the next push reports it.
            let to = &request.to;
            if let Err(error) = to.target.keep_reserve(to.host.as_str()).await {
                tracing::info!(%error, "no room is kept for a prune of a full disk");
            }
        }
        Ok(done)
    }

    /// Notes in the catalog which snapshots a target of this host has now, so that `list` shows it.
    /// If that is not possible, the next backup notes it.
    async fn note_published(&self, to: &HostFolder, front: &dyn FrontEnd) {
        let Some(config) = self.config.filter(|config| config.host == to.host) else {
            return;
        };
        let Some(target) = configured_at(config, self.to_name, self.to_endpoint) else {
            return;
        };
        let has_catalog = open_catalog(config).is_ok_and(|catalog| catalog.is_some());
        let state = has_catalog.then(|| State::open(&config.state).ok());
        let Some(state) = state.flatten() else {
            return;
        };
        let (Ok(present), Ok(rows)) = (to.manifest_names().await, state.catalog.snapshots()) else {
            return;
        };
        for row in rows.iter().filter(|row| present.contains(&row.name)) {
            let (core, now) = (&row.known.core, clock::now());
            let noted =
                state
                    .catalog
                    .set_publication(&target.name, core, PublicationState::Published, now);
            if let Err(error) = noted {
                front.warn(&with_causes(&error));
            }
        }
    }
}

impl SyncedHost {
    fn planned(host: HostName, plan: &SyncPlan) -> Self {
        let incomplete = plan.snapshots.iter().filter(|s| !s.is_complete());
        Self {
            host,
            snapshots_to_copy: incomplete.count(),
            archives_to_copy: plan.snapshots.iter().map(|s| s.archives.len()).sum(),
            archive_bytes_to_copy: plan.bytes,
            copied: None,
            were_there: None,
            archives: 0,
            bytes: 0,
            failed: Vec::new(),
            warnings: plan.findings.iter().map(ToString::to_string).collect(),
            error: None,
        }
    }

    fn failed(host: HostName, extent: SyncExtent, error: JobError) -> Self {
        let none = (extent == SyncExtent::Copy).then_some(0);
        Self {
            host,
            snapshots_to_copy: 0,
            archives_to_copy: 0,
            archive_bytes_to_copy: 0,
            copied: none,
            were_there: none,
            archives: 0,
            bytes: 0,
            failed: Vec::new(),
            warnings: Vec::new(),
            error: Some(error),
        }
    }

    fn take(&mut self, mut report: SyncReport) {
        self.copied = Some(report.copied);
        self.were_there = Some(report.were_there);
        self.archives = report.archives;
        self.bytes = report.bytes;
        let failed = report.failed.into_iter();
        self.failed = failed
            .map(|(stamp, cause)| FailedSnapshot { stamp, cause })
            .collect();
        self.warnings.append(&mut report.unread);
    }

    /// Whether some of the host's snapshots were not copied.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some() || !self.failed.is_empty()
    }

    /// Whether nothing of the host is known to be on the target.
    pub(crate) fn is_absent(&self) -> bool {
        self.copied.unwrap_or(0) == 0 && self.were_there.unwrap_or(0) == 0
    }
}
