//! Compares what targets store with the signed manifests, and repairs what another target has in
//! full. Needs no identity, except for a trial restore.

mod look;
mod read;
mod record;
mod repair;
pub(crate) mod report;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::runtime::Runtime;

use super::context::{FrontEnd, open_catalog, scratch_dir};
use super::error::JobError;
use super::push::PresentSigner;
use super::signer_change::present_signer;
use super::targets::{no_such_target, open_target};
use super::test_restore::{TestRestore, test_restore};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::panics::caught;
use crate::base::progress::Stage;
use crate::base::rate_schedule::Timetable;
use crate::base::scratch_dir::ScratchDir;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::{Config, TargetConfig};
use crate::format::chain::VerifiedSnapshot;
use crate::format::signature::Trust;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::scrub::{Examined, Problem, Share};
use crate::state::catalog::{Catalog, Publications};
use report::VerifyReport;

/// Request of a verification.
pub(crate) struct VerifyRequest {
    /// Only these snapshots. Empty: all; of a trial restore, the newest.
    pub(crate) snapshots: Vec<SnapshotChoice>,
    /// The share of archives to read and hash. `None`: none.
    pub(crate) data: Option<Share>,
    /// Most bytes per second to read from a configured target. `None`: no limit of this run.
    pub(crate) rate: Option<u64>,
    /// Identities for a trial restore. `None`: no trial restore.
    pub(crate) identities: Option<Arc<Identities>>,
    pub(crate) repair: Repair,
    /// Lowest sequence that the newest snapshot may have.
    pub(crate) at_least: Option<u64>,
    /// Directory for temporary files. `None`: the system's.
    pub(crate) scratch: Option<PathBuf>,
}

/// Whether to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Copy missing and damaged objects from other targets or the spool.
    FromOthers,
    /// Report only.
    Off,
}

/// Targets to verify.
pub(crate) enum VerifyPlaces<'a> {
    /// One host's folder that the front end opened, and whose signatures count there.
    Opened(HostFolder, Trust),
    /// The snapshots of `host` on the configured targets called `names`, or on all if there are
    /// none.
    Configured {
        config: &'a Config,
        host: HostName,
        trust: Trust,
        names: &'a [String],
    },
}

/// One target to verify.
struct Subject {
    name: String,
    folder: HostFolder,
    trust: Trust,
    concurrency: usize,
}

/// Findings on one target.
#[derive(Default)]
struct TargetVerdict {
    name: String,
    label: String,
    /// `None` if the target could not be read.
    examined: Option<Examined>,
    /// What this host remembered of the target before it was looked at. A backup may publish
    /// meanwhile: what it records then says nothing about this look. `None`: there is no catalog.
    remembered: Option<Publications>,
    read_archives: u64,
    read_bytes: u64,
    /// Archives that an earlier run, which this one continued, had read.
    read_before: u64,
    /// Archives that were to be read and are in cold storage, and their bytes.
    frozen: (u64, u64),
    problems: Vec<Problem>,
    /// Those of them that were repaired.
    mended: Vec<Problem>,
    rehearsals: Vec<TestRestore>,
    /// Repairs, and why some failed, each a line.
    repaired: Vec<String>,
    /// Archives that could not be repaired.
    lost: u64,
    /// Messages that need no attention.
    notes: Vec<String>,
    /// Why the target could not be verified.
    failure: Option<String>,
}

impl TargetVerdict {
    fn of(subject: &Subject) -> Self {
        Self {
            name: subject.name.clone(),
            label: subject.folder.target.label().to_owned(),
            ..Self::default()
        }
    }

    fn failed(subject: &Subject, error: &dyn std::error::Error) -> Self {
        Self {
            failure: Some(with_causes(error)),
            ..Self::of(subject)
        }
    }

    /// Returns the snapshots for a trial restore: the `wanted` ones, or the newest if none is
    /// named.
    fn to_restore(&self, wanted: &[SnapshotChoice]) -> Vec<VerifiedSnapshot> {
        let Some(examined) = &self.examined else {
            return Vec::new();
        };
        let chain = &examined.chain;
        match wanted {
            [] => chain.snapshots.last().cloned().into_iter().collect(),
            named => {
                let found = named.iter().filter_map(|choice| chain.resolve(choice).ok());
                found.cloned().collect()
            }
        }
    }
}

/// State that all steps of one verification share.
struct Run<'a> {
    front: &'a dyn FrontEnd,
    request: &'a VerifyRequest,
    subjects: Vec<Subject>,
    /// History of readings and pushes. `None` if another host's snapshots are verified, or
    /// there is no catalog.
    catalog: Option<Catalog>,
    /// This host's signer. `None` if another host's snapshots are verified.
    signer: Option<PresentSigner>,
    /// `None` as for the signer.
    config: Option<&'a Config>,
    /// Sources of a repair.
    donors: Vec<super::repair::Donor>,
    /// `None` if nothing is repaired or restored.
    scratch: Option<ScratchDir>,
    now: DateTime<Utc>,
}

/// Verifies what `request` and `places` name.
pub(crate) fn run(
    places: VerifyPlaces<'_>,
    request: &VerifyRequest,
    runtime: &Runtime,
    front: &dyn FrontEnd,
) -> Result<VerifyReport, JobError> {
    let run = Run::prepare(places, request, front)?;
    front.stage(Stage::InspectingTargets, None);
    // At the same time: each target that does not answer takes some seconds.
    let looks = run.subjects.iter().map(async |subject| {
        let looked = caught(run.look(subject)).await;
        looked.unwrap_or_else(|panicked| Ok(TargetVerdict::failed(subject, &panicked)))
    });
    let mut verdicts = runtime.block_on(futures::future::try_join_all(looks))?;
    let repairs = request.repair == Repair::FromOthers;
    if repairs {
        runtime.block_on(run.repair_small(&mut verdicts))?;
    }
    for (subject, verdict) in run.subjects.iter().zip(&mut verdicts) {
        if let Some(share) = request.data {
            match runtime.block_on(caught(run.read(share, subject, verdict))) {
                Ok(read) => read?,
                Err(panicked) => verdict.failure = Some(panicked.to_string()),
            }
        }
        run.recall_damage(subject, verdict)?;
    }
    run.add_divergences(&mut verdicts)?;
    if repairs {
        runtime.block_on(run.repair_archives(&mut verdicts))?;
    }
    if let Some(identities) = &request.identities {
        for (subject, verdict) in run.subjects.iter().zip(&mut verdicts) {
            let done = runtime.block_on(caught(run.test_restore(subject, identities, verdict)));
            if let Err(panicked) = done {
                verdict.failure = Some(panicked.to_string());
            }
        }
    }
    run.record_looks(&verdicts);
    run.note_verified(&verdicts)?;
    Ok(VerifyReport::of(verdicts))
}

impl<'a> Run<'a> {
    fn prepare(
        places: VerifyPlaces<'a>,
        request: &'a VerifyRequest,
        front: &'a dyn FrontEnd,
    ) -> Result<Self, JobError> {
        let mut run = Self {
            front,
            request,
            subjects: Vec::new(),
            catalog: None,
            signer: None,
            config: None,
            donors: Vec::new(),
            scratch: None,
            now: clock::now(),
        };
        let repairs = request.repair == Repair::FromOthers;
        if repairs || request.identities.is_some() {
            run.scratch = Some(scratch_dir("verify", request.scratch.as_deref())?);
        }
        let (config, host, trust, names) = match places {
            VerifyPlaces::Opened(folder, trust) => {
                run.subjects.push(Subject {
                    name: folder.target.label().to_owned(),
                    folder,
                    trust,
                    concurrency: 4,
                });
                return Ok(run);
            }
            VerifyPlaces::Configured {
                config,
                host,
                trust,
                names,
            } => (config, host, trust, names),
        };
        for target in run.chosen(config, names)? {
            run.subjects.push(run.subject(target, &host, &trust)?);
        }
        if run.subjects.is_empty() {
            return Err(JobError::request(
                "no configured target can be read: verify a write-only target with other credentials, or on its own \
                 machine (--from)",
            ));
        }
        // The catalog knows this host's snapshots only.
        if host == config.host {
            run.catalog = open_catalog(config)?;
            run.config = Some(config);
            run.signer = Some(present_signer(config, &|text| front.warn(text))?);
        }
        if repairs {
            run.donors = repair::donors(config, &host)?;
        }
        Ok(run)
    }

    fn chosen<'c>(
        &self,
        config: &'c Config,
        names: &[String],
    ) -> Result<Vec<&'c TargetConfig>, JobError> {
        if let Some(unknown) = names.iter().find(|name| config.target(name).is_none()) {
            return Err(no_such_target(config, unknown));
        }
        let is_named = |target: &&TargetConfig| names.is_empty() || names.contains(&target.name);
        let (write_only, chosen): (Vec<_>, Vec<_>) = config
            .targets
            .iter()
            .filter(is_named)
            .partition(|target| target.write_only);
        for target in write_only {
            self.front.note(&format!(
                "{} is write-only, so this host cannot read it: verify it with other credentials, or on its own machine",
                target.name
            ));
        }
        Ok(chosen)
    }

    fn subject(
        &self,
        target: &TargetConfig,
        host: &HostName,
        trust: &Trust,
    ) -> Result<Subject, JobError> {
        let mut target = target.clone();
        if let Some(rate) = self.request.rate {
            target.download = Some(match target.download {
                Some(limit) => limit.capped(rate),
                None => Timetable::constant(rate),
            });
        }
        let target = open_target(&target)?;
        Ok(Subject {
            name: target.name,
            folder: HostFolder::new(target.target, host.clone()),
            trust: trust.clone(),
            concurrency: target.concurrency,
        })
    }

    /// Records the targets on which all snapshots were verified and nothing is wrong.
    fn note_verified(&self, verdicts: &[TargetVerdict]) -> Result<(), JobError> {
        let (Some(catalog), true) = (&self.catalog, self.request.snapshots.is_empty()) else {
            return Ok(());
        };
        let is_clean =
            |verdict: &&TargetVerdict| verdict.problems.is_empty() && verdict.failure.is_none();
        for verdict in verdicts.iter().filter(is_clean) {
            catalog.set_verified(&verdict.name, clock::now())?;
        }
        Ok(())
    }

    async fn test_restore(
        &self,
        subject: &Subject,
        identities: &Arc<Identities>,
        verdict: &mut TargetVerdict,
    ) {
        let Some(scratch) = &self.scratch else { return };
        for snapshot in verdict.to_restore(&self.request.snapshots) {
            let examined = verdict.examined.as_ref();
            let Some(chain) = examined.map(|examined| examined.chain.clone()) else {
                continue;
            };
            let display = self.front.show_restore();
            let done = test_restore(
                &subject.folder,
                &snapshot,
                Arc::clone(identities),
                chain,
                scratch.private(),
                Arc::clone(&display.progress),
            )
            .await;
            drop(display);
            match done {
                TestRestore::Wrong(problem) => verdict.problems.push(*problem),
                done => verdict.rehearsals.push(done),
            }
        }
    }
}
