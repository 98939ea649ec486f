//! Retention on targets: plans what to delete, deletes it, and notes it in the catalog.

pub(crate) mod report;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::context::FrontEnd;
use super::error::JobError;
use super::kept_tags;
use super::local_retention::pins_of;
use super::mode::Mode;
use super::push::Target;
use super::receipts::{ReceiptKnowledge, TargetReceipts, look_at_receipts, read_receipts};
use super::recipients;
use super::recovery_files::recovery_files;
use super::targets::{configured_at, open_target, own_trust};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{HostName, Stamp};
use crate::base::panics::caught;
use crate::base::progress::Stage;
use crate::base::units::{count, size};
use crate::config::{Config, Retention, TargetConfig};
use crate::format::chain::Chain;
use crate::format::signature::{Signer, Trust};
use crate::keys::recipients::short;
use crate::prune::{PruneError, PrunePlan, PruneReport, PruneRequest};
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::retention::{KeptTags, Pins, Refusal};
use crate::state::State;
use crate::state::catalog::PublicationState;
use crate::storage::is_full;
use report::{PruneJobReport, TargetPruneReport};

/// Request of a prune.
pub(crate) struct TargetPruneRequest {
    pub(crate) places: PrunePlaces,
    /// The policy that decides. `None`: the configuration's own for each target.
    pub(crate) policy: Option<Retention>,
    /// Snapshots that stay whatever the policy decides.
    pub(crate) keep: Vec<Stamp>,
    /// Tags that keep their snapshots, as those of the configuration do.
    pub(crate) keep_tags: Vec<String>,
    /// Identities that decrypt the tags that this host does not know.
    pub(crate) identities: Option<Arc<Identities>>,
    /// Snapshots to delete, and no others: stamps, sequences, or the last 16 digits of manifests'
    /// names. Empty: the policy decides.
    pub(crate) forget: Vec<String>,
    /// Delete the snapshots that this recipient opens, in full or in part, and no others. `None`:
    /// it does not matter who opens them.
    pub(crate) sealed_to: Option<String>,
    /// The host never pushes again, so archives need not wait for it.
    pub(crate) gone: bool,
    pub(crate) mode: Mode,
    /// The key that signs tombstones. `None`: the configuration's signer.
    pub(crate) sign_with: Option<PathBuf>,
}

/// Targets to prune.
pub(crate) enum PrunePlaces {
    /// One host's folder that the front end opened.
    Opened {
        folder: HostFolder,
        /// Whose signatures count there.
        trust: Trust,
        /// Its URL and S3 endpoint.
        url: String,
        endpoint: Option<String>,
    },
    /// The snapshots of `host` on the configured targets, or on the one called `name`.
    Configured {
        host: HostName,
        trust: Trust,
        name: Option<String>,
    },
}

/// A target to prune.
struct Asked {
    /// Its name in the configuration, if it holds this host's snapshots.
    name: Option<String>,
    request: PruneRequest,
}

/// The state of one target in the course of the job.
struct Pruned {
    label: String,
    plan: Option<PrunePlan>,
    report: Option<PruneReport>,
    failure: Option<String>,
    refusal: Option<String>,
}

/// The error for a prune without a policy.
pub(crate) fn no_policy() -> JobError {
    JobError::request("no retention policy is given")
        .with_next("write [retention] in the config, or give --policy")
}

/// Plans and, unless it is a dry run, carries out the request. `config` is `None` on a machine
/// without a configuration.
pub(crate) fn run(
    config: Option<&Config>,
    request: TargetPruneRequest,
    runtime: &Runtime,
    front: &dyn FrontEnd,
) -> Result<PruneJobReport, JobError> {
    let is_dry_run = request.mode.is_dry_run();
    let signer = match is_dry_run {
        true => None,
        false => Some(signer(&request, config)?),
    };
    let (forget, identities) = (request.forget.clone(), request.identities.clone());
    let sealed_to = request.sealed_to.clone();
    let mut asked = asked(config, request)?;
    front.stage(Stage::InspectingTargets, None);
    if let Some(recipient) = sealed_to {
        let named = name_sealed_to(&mut asked, &recipient, front);
        runtime.block_on(named)?;
    }
    runtime.block_on(learn_proofs(config, &mut asked, front));
    if let Some(identities) = identities {
        runtime.block_on(decrypt_tags(&mut asked, &identities, front))?;
    }
    // At the same time: each target that does not answer takes some seconds.
    let plans = asked.iter().map(|one| plan(&one.request, is_dry_run));
    let mut done = runtime.block_on(futures::future::join_all(plans));
    require_found(&forget, &done)?;
    if let Some(signer) = &signer {
        for (one, done) in asked.iter().zip(&mut done) {
            front.stage(Stage::Pruning, Some(one.request.folder.target.label()));
            runtime.block_on(carry_out(&one.request, done, signer));
        }
        note_all(config, &asked, &done, front);
    }
    Ok(PruneJobReport {
        dry_run: is_dry_run,
        at: clock::in_seconds(clock::now()),
        targets: done.into_iter().map(TargetPruneReport::of).collect(),
    })
}

fn signer(request: &TargetPruneRequest, config: Option<&Config>) -> Result<Signer, JobError> {
    let path = request.sign_with.as_ref().or(config.map(|c| &c.signer));
    let path = path.ok_or_else(|| {
        JobError::request("deletions are signed, and no key is given")
            .with_next("give a key with --sign-with")
    })?;
    Signer::load(path).map_err(JobError::request)
}

fn asked(config: Option<&Config>, request: TargetPruneRequest) -> Result<Vec<Asked>, JobError> {
    let mut pins = match config {
        Some(config) => pins_of(config)?,
        None => Pins::default(),
    };
    pins.by_hand.extend(&request.keep);
    let stage_request = |folder: HostFolder, trust, policy, tags| PruneRequest {
        folder,
        trust,
        policy,
        forget: request.forget.clone(),
        now: clock::now(),
        pins: pins.clone(),
        tags,
        gone: request.gone,
        confirmed: request.mode.is_confirmed(),
        recovery: recovery_files(),
    };
    // If snapshots are named, no policy decides.
    let given = match request.forget.is_empty() && request.sealed_to.is_none() {
        true => request.policy,
        false => Some(Retention::default()),
    };
    let (host, trust, name) = match request.places {
        PrunePlaces::Opened {
            folder,
            trust,
            url,
            endpoint,
        } => {
            let policy = given.ok_or_else(no_policy)?;
            // This host may know the place by the name of a target.
            let own = config.filter(|config| config.host == folder.host);
            let target = own.and_then(|config| configured_at(config, &url, endpoint.as_deref()));
            // A place that is no target by its name may be one: then the tags of all of them keep.
            let configured = own.map_or_else(Vec::new, |config| match target {
                Some(target) => config.keep_tags_of(target).to_vec(),
                None => config.all_keep_tags(),
            });
            let tags = kept_tags(&request.keep_tags, &configured, own)?;
            return Ok(vec![Asked {
                name: target.map(|target| target.name.clone()),
                request: stage_request(folder, trust, policy, tags),
            }]);
        }
        PrunePlaces::Configured { host, trust, name } => (host, trust, name),
    };
    let config = config.ok_or_else(no_policy)?;
    let mut asked = Vec::new();
    for target in &config.targets {
        let is_named = name.as_ref().is_none_or(|name| *name == target.name);
        // A target that this host can only write to is pruned elsewhere, with other credentials.
        if !is_named || target.write_only {
            continue;
        }
        let policy = given
            .or(config.retention_of(target))
            .ok_or_else(no_policy)?;
        let folder = HostFolder::new(open_target(target)?.target, host.clone());
        let own = Some(config).filter(|config| config.host == host);
        let tags = kept_tags(&request.keep_tags, config.keep_tags_of(target), own)?;
        asked.push(Asked {
            name: own.map(|_| target.name.clone()),
            request: stage_request(folder, trust.clone(), policy, tags),
        });
    }
    if asked.is_empty() {
        let text = "no target of that name is configured, or it can only be written to";
        return Err(JobError::request(text));
    }
    Ok(asked)
}

/// Returns the tags that keep their snapshots: those that are `given` and `configured`. `own`: the
/// configuration, if the snapshots are its host's, whose tags are known here.
fn kept_tags(
    given: &[String],
    configured: &[String],
    own: Option<&Config>,
) -> Result<KeptTags, JobError> {
    let mut tags = KeptTags::new(given.iter().chain(configured).cloned());
    if let Some(config) = own {
        kept_tags::learn_own(&mut tags, config)?;
    }
    Ok(tags)
}

/// Names the snapshots that `recipient` opens on each target. A target where it opens none is
/// left out.
async fn name_sealed_to(
    asked: &mut Vec<Asked>,
    recipient: &str,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    let mut known = BTreeSet::new();
    for one in asked.iter_mut() {
        let request = &mut one.request;
        let found = recipients::sealed_to(&request.folder, &request.trust, recipient).await?;
        request.forget = found.names;
        known.extend(found.known);
        if request.forget.is_empty() {
            let label = request.folder.target.label();
            let recipient = short(recipient);
            front.note(&format!("{label}: {recipient} opens no snapshot there"));
        }
    }
    if !known.contains(recipient) {
        let text = format!("no archive is sealed to {recipient:?}");
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(JobError::request(text).with_next(format!("there is {}", known.join(", "))));
    }
    // A request that names nothing would leave the decision to a policy.
    asked.retain(|one| !one.request.forget.is_empty());
    Ok(())
}

/// Decrypts the tags that are not known, where a tag keeps its snapshots.
async fn decrypt_tags(
    asked: &mut [Asked],
    identities: &Arc<Identities>,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    if asked.iter().all(|one| one.request.tags.is_empty()) {
        let text = "an identity decrypts tags, and no tag keeps its snapshots here";
        return Err(JobError::request(text).with_next("omit --identity, or give --keep-tag"));
    }
    for one in asked {
        let request = &mut one.request;
        let (folder, trust) = (&request.folder, &request.trust);
        kept_tags::learn_encrypted(&mut request.tags, folder, trust, identities, front).await?;
    }
    Ok(())
}

/// Adds the snapshots that drills restored, as the receipts on the places show them.
async fn learn_proofs(config: Option<&Config>, asked: &mut [Asked], front: &dyn FrontEnd) {
    // At the same time: each target that does not answer takes some seconds.
    let learnt = asked
        .iter_mut()
        .map(|one| learn_proofs_of(config, one, front));
    futures::future::join_all(learnt).await;
}

async fn learn_proofs_of(config: Option<&Config>, asked: &mut Asked, front: &dyn FrontEnd) {
    let request = &mut asked.request;
    // The plan reports a place that cannot be read.
    let listed = request.folder.receipt_listing().await;
    if !listed.is_ok_and(|listed| !listed.is_empty()) {
        return;
    }
    let Ok(chain) = request.folder.chain(&request.trust).await else {
        return;
    };
    let looked = match (config, &asked.name) {
        (Some(config), Some(name)) => {
            look_at_receipts(config, (name, &request.folder), &chain, front).await
        }
        _ => proofs_elsewhere(&request.folder, &chain, &request.trust).await,
    };
    match looked {
        Ok(found) => request.pins.proven.extend(found.proven()),
        Err(error) => front.warn(&format!(
            "the receipts on {} cannot be read: {}",
            request.folder.target.label(),
            error.with_causes()
        )),
    }
}

/// Returns the receipts on a place of another host. Nothing of them is remembered.
async fn proofs_elsewhere(
    folder: &HostFolder,
    chain: &Chain,
    trust: &Trust,
) -> Result<TargetReceipts, JobError> {
    let knowledge = ReceiptKnowledge {
        trust,
        host_signers: &[],
        keys: &HashMap::new(),
        now: clock::now(),
    };
    Ok(read_receipts(folder, chain, &knowledge).await?)
}

/// Decides what is deleted; deletes nothing.
async fn plan(request: &PruneRequest, is_dry_run: bool) -> Pruned {
    let mut done = Pruned {
        label: request.folder.target.label().to_owned(),
        plan: None,
        report: None,
        failure: None,
        refusal: None,
    };
    match caught(request.plan()).await {
        Err(panicked) => done.failure = Some(panicked.to_string()),
        Ok(Ok(plan)) => {
            let refusal = plan.refusal.as_ref().filter(|_| is_dry_run);
            done.refusal = refusal.map(refusal_text);
            done.plan = Some(plan);
        }
        Ok(Err(error)) => done.failure = Some(failure_text(&error)),
    }
    done
}

async fn carry_out(request: &PruneRequest, done: &mut Pruned, signer: &Signer) {
    let Some(plan) = &done.plan else { return };
    match caught(request.run(plan, signer)).await {
        Err(panicked) => done.failure = Some(panicked.to_string()),
        Ok(Ok(report)) => done.report = Some(report),
        Ok(Err(error)) => {
            let mut failure = failure_text(&error);
            if plan.refusal.as_ref().is_some_and(Refusal::may_be_confirmed) {
                failure.push_str("; if that is right, say --yes");
            }
            done.failure = Some(failure);
        }
    }
}

/// Returns the error with its causes, and the way out if a disk is too full even for a prune.
fn failure_text(error: &PruneError) -> String {
    let mut text = with_causes(error);
    if is_full(error) {
        text += ". Make some 64 KiB of room there (delete or move a file that is not Sealift's, or raise the quota), \
                 then run `sealift prune` again";
    }
    text
}

/// Requires that each named snapshot is on some target; else nothing is deleted anywhere.
fn require_found(forget: &[String], done: &[Pruned]) -> Result<(), JobError> {
    let plans: Vec<&PrunePlan> = done.iter().filter_map(|one| one.plan.as_ref()).collect();
    let is_nowhere = |name: &&String| plans.iter().all(|plan| plan.not_here.contains(name));
    match forget.iter().find(is_nowhere) {
        Some(name) if !plans.is_empty() => {
            let text = format!("no target that was looked at has a snapshot {name}");
            Err(JobError::work(text).with_next(
                "`sealift list --target NAME` shows them; delete snapshots of this host with --local",
            ))
        }
        _ => Ok(()),
    }
}

/// Notes in the catalog what was deleted, for `list`. If a backup holds the state directory, the
/// next backup notes it.
fn note_all(config: Option<&Config>, asked: &[Asked], done: &[Pruned], front: &dyn FrontEnd) {
    let state = config.and_then(|config| State::open(&config.state).ok());
    let Some(state) = state else { return };
    for (asked, done) in asked.iter().zip(done) {
        if let (Some(name), Some(plan), Some(report)) = (&asked.name, &done.plan, &done.report)
            && let Err(error) = note_pruned(&state, name, plan, report)
        {
            front.warn(&error.with_causes());
        }
    }
}

/// Notes in the catalog what a prune deleted on the target `name`.
fn note_pruned(
    state: &State,
    name: &str,
    plan: &PrunePlan,
    report: &PruneReport,
) -> Result<(), JobError> {
    let gone = plan.forgotten();
    for one in gone.filter(|one| report.forgotten.contains(&one.stamp)) {
        let known = state.catalog.publication(name, &one.core)?;
        // Also of snapshots that `sync` brought there without this host.
        if known != Some(PublicationState::Pruned) {
            let now = clock::now();
            state
                .catalog
                .set_publication(name, &one.core, PublicationState::Pruned, now)?;
        }
    }
    Ok(())
}

/// Applies the policy of a configured target after a backup, to snapshots that are a day old or
/// older. Returns a note on what was deleted, `None` if nothing was.
pub(crate) fn retain_on(
    config: &Config,
    state: &State,
    (settings, target): (&TargetConfig, &Target),
    signer: &Signer,
    runtime: &Runtime,
    front: &dyn FrontEnd,
) -> Result<Option<String>, JobError> {
    let Some(policy) = config.retention_of(settings) else {
        return Ok(None);
    };
    let mut asked = [Asked {
        name: Some(settings.name.clone()),
        request: PruneRequest {
            folder: HostFolder::new(target.target.clone(), config.host.clone()),
            trust: own_trust(config, front)?,
            policy: policy.and_young(),
            forget: Vec::new(),
            now: clock::now(),
            pins: pins_of(config)?,
            tags: kept_tags(&[], config.keep_tags_of(settings), Some(config))?,
            gone: false,
            confirmed: false,
            recovery: recovery_files(),
        },
    }];
    runtime.block_on(learn_proofs(Some(config), &mut asked, front));
    let [Asked { request, .. }] = asked;
    let plan = runtime.block_on(caught(request.plan()))??;
    if let unknown @ 1.. = plan.kept_for_unknown_tags() {
        let label = request.folder.target.label();
        front.note(&format!("{label}: {}", unknown_tags(unknown)));
    }
    if plan.is_empty() {
        return Ok(None);
    }
    let report = runtime.block_on(caught(request.run(&plan, signer)))??;
    note_pruned(state, &settings.name, &plan, &report)?;
    Ok(Some(retention_note(&report)))
}

/// Returns a sentence on `number` snapshots that stay because their tags are not known.
pub(crate) fn unknown_tags(number: u64) -> String {
    format!(
        "{} kept, since their tags are not known here and some tag keeps its snapshots; the key holder's `prune --from \
         URL --identity FILE` decrypts them, or `sealift catalog rebuild --identity FILE` on their host",
        count(number, "snapshot")
    )
}

fn retention_note(report: &PruneReport) -> String {
    let mut text = format!(
        "{} forgotten, {} freed, as [retention] says",
        count(report.forgotten.len() as u64, "older snapshot"),
        size(report.swept_bytes)
    );
    if let Some(first) = report.stuck.first() {
        let stuck = count(report.stuck.len() as u64, "object");
        text += &format!("; {stuck} could not be deleted (such as: {first})");
    }
    text
}

/// Returns why a run would be refused, and how to confirm it if that is possible.
fn refusal_text(refusal: &Refusal) -> String {
    match refusal.may_be_confirmed() {
        true => format!("{refusal} (--yes confirms it)"),
        false => refusal.to_string(),
    }
}
