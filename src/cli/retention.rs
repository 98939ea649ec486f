//! A retention policy on the command line, and its use on this host's own snapshots.

use super::failure::Failure;
use super::output::{count, size};
use super::remote;
use crate::agent::{LocalRetention, NamedTarget, State};
use crate::config::{Config, Retention, TargetConfig, parse_duration};
use crate::ids::Stamp;
use crate::manifest::signature::Signer;
use crate::prune::{PruneReport, PruneRequest};
use crate::repository::HostFolder;
use crate::{clock, pins};

/// Deletes the snapshots of this host that `[retention]` lets go; gives their stamps.
pub fn retain_local(
    config: &Config,
    state: &State,
    confirmed: bool,
    dry_run: bool,
) -> Result<Vec<Stamp>, Failure> {
    let Some(policy) = config.retention else {
        return Ok(Vec::new());
    };
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let local = LocalRetention {
        dir: &config.snapshots_dir,
        policy,
        pins: &pins::read(&config.state)?,
        targets: &targets,
        now: clock::now(),
        confirmed,
        dry_run,
    };
    Ok(local.apply(state)?)
}

/// Deletes on a target what retention lets go there, of what is a day old or older; says what it did, if anything.
pub fn retain_on(
    config: &Config,
    target: &TargetConfig,
    named: &NamedTarget,
    signer: &Signer,
) -> Result<Option<String>, Failure> {
    let Some(policy) = config.retention_of(target) else {
        return Ok(None);
    };
    let request = PruneRequest {
        folder: HostFolder::new(named.target.clone(), config.host.clone()),
        trust: remote::own_trust(config)?,
        policy: policy.and_young(),
        now: clock::now(),
        pins: pins::read(&config.state)?.into_iter().collect(),
        gone: false,
        confirmed: false,
    };
    let report = remote::runtime()?.block_on(async {
        let plan = request.plan().await?;
        match plan.is_empty() {
            true => Ok(None),
            false => request.run(&plan, signer).await.map(Some),
        }
    })?;
    Ok(report.map(|report| told(&report)))
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
    for part in text.split(',') {
        let wrong = || format!("{part:?} is not like \"daily=7\" or \"within=2d\"");
        let (key, value) = part.trim().split_once('=').ok_or_else(wrong)?;
        let place = match key {
            "last" => &mut policy.last,
            "hourly" => &mut policy.hourly,
            "daily" => &mut policy.daily,
            "weekly" => &mut policy.weekly,
            "monthly" => &mut policy.monthly,
            "yearly" => &mut policy.yearly,
            "within" => {
                policy.within = Some(parse_duration(value)?);
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
