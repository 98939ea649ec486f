//! A retention policy on the command line, and its use on this host's own snapshots.

use std::collections::BTreeSet;

use super::backup::recovery_files;
use super::failure::Failure;
use super::output::{count, size};
use super::target_args;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::panics::caught;
use crate::config::{Config, Retention, TargetConfig, parse_age};
use crate::format::signature::Signer;
use crate::jobs::forget_local::LocalForget;
use crate::jobs::local_retention::{LocalPruned, LocalRetention, LocalRetentionError};
use crate::jobs::push::Target;
use crate::prune::{PrunePlan, PruneReport, PruneRequest};
use crate::repository::HostFolder;
use crate::retention::Pins;
use crate::state::State;
use crate::state::catalog::PublicationState;
use crate::state::figures;
use crate::state::pins;

/// How the snapshots of this host are pruned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local {
    pub confirmed: bool,
    pub dry_run: bool,
}

/// The snapshots that stay on this host and on its targets, by what its state directory says.
pub fn pins_of(config: &Config) -> Result<Pins, Failure> {
    let memory = figures::load(&config.state)?.unwrap_or_default();
    Ok(Pins {
        by_hand: pins::read(&config.state)?,
        before_shrink: memory.before_shrink(),
        before_failure: memory.before_failure(),
    })
}

/// Deletes the snapshots of this host that `[retention]` does not keep.
pub fn retain_local(config: &Config, state: &State, how: Local) -> Result<LocalPruned, Failure> {
    let Some(policy) = config.retention else {
        return Ok(LocalPruned::default());
    };
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let local = LocalRetention {
        dir: &config.snapshots_dir,
        policy,
        pins: &pins_of(config)?,
        targets: &targets,
        now: clock::now(),
        confirmed: how.confirmed,
        dry_run: how.dry_run,
    };
    local.apply(state).map_err(|error| {
        let may_be_confirmed =
            matches!(&error, LocalRetentionError::Retention(refusal) if refusal.may_be_confirmed());
        let failure = Failure::from(error);
        match may_be_confirmed {
            true => failure.hint("if what it would delete is right, say --yes"),
            false => failure,
        }
    })
}

/// Deletes the named snapshots of this host and no other; returns their stamps.
pub fn forget_local(
    config: &Config,
    state: &State,
    named: &[String],
    how: Local,
) -> Result<Vec<Stamp>, Failure> {
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let forget = LocalForget {
        dir: &config.snapshots_dir,
        named,
        pins: &pins_of(config)?,
        targets: &targets,
        now: clock::now(),
        confirmed: how.confirmed,
        dry_run: how.dry_run,
    };
    Ok(forget.apply(state)?)
}

/// Notes in the catalog what a prune of the target `name` forgot.
pub fn note_pruned(
    state: &State,
    name: &str,
    plan: &PrunePlan,
    report: &PruneReport,
) -> Result<(), Failure> {
    let gone = plan.forgotten();
    for one in gone.filter(|one| report.forgotten.contains(&one.stamp)) {
        let known = state.catalog.publication(name, &one.core)?;
        // Also of what `sync` had brought there without this host.
        if known != Some(PublicationState::Pruned) {
            let now = clock::now();
            state
                .catalog
                .set_publication(name, &one.core, PublicationState::Pruned, now)?;
        }
    }
    Ok(())
}

/// Deletes on a target what retention lets go there, of what is a day old or older; says what it did, if anything.
pub fn retain_on(
    config: &Config,
    state: &State,
    target: &TargetConfig,
    named: &Target,
    signer: &Signer,
) -> Result<Option<String>, Failure> {
    let Some(policy) = config.retention_of(target) else {
        return Ok(None);
    };
    let request = PruneRequest {
        folder: HostFolder::new(named.target.clone(), config.host.clone()),
        trust: target_args::own_trust(config)?,
        policy: policy.and_young(),
        forget: Vec::new(),
        now: clock::now(),
        pins: pins_of(config)?,
        gone: false,
        confirmed: false,
        recovery: recovery_files(),
    };
    let runtime = target_args::runtime()?;
    let plan = runtime.block_on(caught(request.plan()))??;
    if plan.is_empty() {
        return Ok(None);
    }
    let report = runtime.block_on(caught(request.run(&plan, signer)))??;
    note_pruned(state, &target.name, &plan, &report)?;
    Ok(Some(told(&report)))
}

fn told(report: &PruneReport) -> String {
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

/// `daily=7,weekly=4,within=2d`: the keys of `[retention]`.
pub fn parse(text: &str) -> Result<Retention, String> {
    let mut policy = Retention::default();
    let mut seen = BTreeSet::new();
    for part in text.split(',') {
        let wrong = || format!("{part:?} is not like \"daily=7\" or \"within=2d\"");
        let (key, value) = part.trim().split_once('=').ok_or_else(wrong)?;
        if !seen.insert(key) {
            return Err(format!("{key} is given twice"));
        }
        let place = match key {
            "last" => &mut policy.last,
            "hourly" => &mut policy.hourly,
            "daily" => &mut policy.daily,
            "weekly" => &mut policy.weekly,
            "monthly" => &mut policy.monthly,
            "yearly" => &mut policy.yearly,
            "within" => {
                policy.within = Some(parse_age(value)?);
                continue;
            }
            _ => return Err(wrong()),
        };
        *place = value.parse().map_err(|_| wrong())?;
    }
    match policy == Retention::default() {
        true => Err(format!("{text:?} keeps nothing")),
        false => Ok(policy),
    }
}
