//! `status`: how fresh and how whole every target is, as this host and the target itself tell it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::hosts;
use super::output;
use super::shrunk::{self, Alarm};
use super::target_args::{self, Side};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, Stamp};
use crate::base::panics::caught;
use crate::config::{Config, Source, SourceKind, TargetConfig};
use crate::format::chain::{ChainError, Finding};
use crate::format::signature::Trust;
use crate::jobs::push::Target;
use crate::repository::{HostFolder, RepositoryError};
use crate::state::catalog::{Catalog, PublicationState, RunRecord};

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Do not ask the targets; tell what this host remembers
    #[arg(long)]
    offline: bool,
    /// Every host on this target instead: the name of a [[target]], or a URL; needs no config
    #[arg(long, value_name = "URL", conflicts_with = "offline")]
    from: Option<String>,
    /// With --from: only what these signed counts: an allowed_signers file, a public key or a fingerprint
    #[arg(long, value_name = "SIGNER", requires = "from")]
    signer: Option<String>,
    /// S3 endpoint for --from
    #[arg(long, value_name = "URL", requires = "from")]
    endpoint: Option<String>,
    /// S3 region for --from
    #[arg(long, value_name = "REGION", requires = "from")]
    region: Option<String>,
    /// For rsync and sftp with --from: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND", requires = "from")]
    ssh: Option<String>,
}

/// The catalog, without taking the state directory's lock: a backup may be at work. `None` before
/// the first one.
pub fn open_catalog(config: &Config) -> Result<Option<Catalog>, Failure> {
    let path = config.state.join("catalog.db");
    Ok(path.exists().then(|| Catalog::open(&path)).transpose()?)
}

pub fn is_in_place(source: &Source) -> bool {
    matches!(&source.kind, SourceKind::Tree(tree) if !tree.stage)
}

/// One target's health.
struct Health {
    name: String,
    url: String,
    /// Stamp and sequence of the newest snapshot there.
    newest: Option<(Stamp, u64)>,
    age_seconds: Option<i64>,
    /// Snapshots that this host made and the target has not got.
    behind: HashSet<Hash>,
    /// Snapshots that the target will never have: it came later, or what they need was lost.
    given_up: HashSet<Hash>,
    /// What each recipient can open of the newest snapshot.
    recipients: Vec<(String, bool)>,
    problems: Vec<String>,
    /// Nothing to see to.
    notes: Vec<String>,
}

pub fn run(context: &Context, args: &StatusArgs) -> Result<Outcome, Failure> {
    if let Some(from) = &args.from {
        let side = Side {
            text: from,
            endpoint: &args.endpoint,
            region: &args.region,
            ssh: &args.ssh,
        };
        return hosts::run(context, &side, args.signer.as_deref());
    }
    let config = context.load_config()?;
    let now = clock::now();
    let catalog = open_catalog(&config)?;
    let mut healths = Vec::new();
    let runtime = target_args::runtime()?;
    for target in &config.targets {
        let mut health = remembered(&config, catalog.as_ref(), target, now)?;
        if target.write_only {
            let text = "write-only: nobody can look there, this is what the host remembers";
            health.notes.push(text.to_owned());
        } else if !args.offline {
            match target_args::open_target(target) {
                Ok(named) => runtime.block_on(look(&config, &named, now, &mut health))?,
                Err(failure) => health.problems.push(failure.to_string()),
            }
        }
        report_behind(&mut health);
        healths.push(health);
    }
    let run = match &catalog {
        Some(catalog) => catalog.last_run()?,
        None => None,
    };
    let findings = shrunk::read(&config, catalog.as_ref(), now);
    let failed_run = run
        .as_ref()
        .and_then(|run| run.outcome.as_deref())
        .is_some_and(|outcome| outcome != "complete");
    match context.json {
        true => print_json(&config, &findings, &healths, &run)?,
        false => print(&config, &findings, &healths, &run)?,
    }
    let well = healths
        .iter()
        .all(|health| health.problems.is_empty() && health.newest.is_some());
    Ok(
        match well && findings.is_empty() && !failed_run && !healths.is_empty() {
            true => Outcome::Complete,
            false => Outcome::Partial,
        },
    )
}

/// What the catalog says of a target.
fn remembered(
    config: &Config,
    catalog: Option<&Catalog>,
    target: &TargetConfig,
    now: DateTime<Utc>,
) -> Result<Health, Failure> {
    let mut health = Health {
        name: target.name.clone(),
        url: target.url.clone(),
        newest: None,
        age_seconds: None,
        behind: HashSet::new(),
        given_up: HashSet::new(),
        recipients: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let Some(catalog) = catalog else {
        health
            .problems
            .push("nothing was ever pushed from here".to_owned());
        return Ok(health);
    };
    for snapshot in catalog.snapshots()?.iter() {
        let state = catalog.publication(&target.name, &snapshot.known.core)?;
        match state {
            None => drop(health.behind.insert(snapshot.known.core)),
            Some(PublicationState::GivenUp) => drop(health.given_up.insert(snapshot.known.core)),
            Some(_) => {}
        }
    }
    if let Some(newest) = catalog.last_published(&target.name)? {
        age(config, &mut health, newest.stamp.time(), None, now);
        health.newest = Some((newest.stamp, newest.sequence));
    }
    Ok(health)
}

/// What the target itself does not show either.
fn report_behind(health: &mut Health) {
    if !health.behind.is_empty() {
        let snapshots = output::count(health.behind.len() as u64, "snapshot");
        let text = format!("{snapshots} behind; the next backup ships them");
        health.problems.insert(0, text);
    }
}

/// Notes the age, and that the next snapshot is overdue if it is.
fn age(
    config: &Config,
    health: &mut Health,
    made: DateTime<Utc>,
    promised: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) {
    health.age_seconds = Some((now - made).num_seconds());
    health
        .problems
        .retain(|problem| !problem.starts_with(STALE));
    if let Some(due) = promised.or_else(|| config.schedule.next_by(made))
        && due < now
    {
        let due = due.format("%Y-%m-%d %H:%M");
        health
            .problems
            .push(format!("{STALE}: the next snapshot was due by {due} UTC"));
    }
}

const STALE: &str = "STALE";

/// What the target itself shows.
async fn look(
    config: &Config,
    named: &Target,
    now: DateTime<Utc>,
    health: &mut Health,
) -> Result<(), Failure> {
    let folder = HostFolder::new(named.target.clone(), config.host.clone());
    let trust = target_args::own_trust(config)?;
    match caught(examine(config, &folder, &trust, now, health)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if let RepositoryError::Chain(ChainError::Empty(_)) = error {
                // What is remembered to be there is not.
                (health.newest, health.age_seconds) = (None, None);
            }
            health.problems.push(with_causes(&error));
        }
        Err(panicked) => health.problems.push(panicked.to_string()),
    }
    Ok(())
}

async fn examine(
    config: &Config,
    folder: &HostFolder,
    trust: &Trust,
    now: DateTime<Utc>,
    health: &mut Health,
) -> Result<(), RepositoryError> {
    let chain = folder.chain(trust).await?;
    // However they got there: `sync` brings what this host's catalog does not know to be there.
    for snapshot in &chain.snapshots {
        health.behind.remove(&snapshot.manifest.core_hash);
    }
    for finding in &chain.findings {
        match finding {
            Finding::Missing(known) if health.given_up.contains(&known.core) => {}
            _ => health.problems.push(finding.to_string()),
        }
    }
    let Some(newest) = chain.snapshots.last() else {
        return Ok(());
    };
    let core = &newest.manifest.core;
    if let Some((stamp, sequence)) = health.newest.take()
        && sequence > core.sequence
    {
        let text = format!("snapshot {stamp} was published there and is gone");
        health.problems.push(text);
    }
    health.newest = Some((core.stamp, core.sequence));
    age(config, health, core.stamp.time(), core.next_by, now);
    let table = folder.table(&newest.manifest).await?;
    let present = folder.archives_present().await?;
    let missing = table
        .rows
        .values()
        .filter(|row| present.get(&row.blake3) != Some(&row.bytes));
    match missing.count() {
        0 => {}
        n => health.problems.push(format!(
            "{} of the newest snapshot missing or cut short",
            output::count(n as u64, "archive")
        )),
    }
    for recipient in &core.recipients {
        let opens = |set: &String| {
            table
                .sets
                .get(set)
                .is_some_and(|set| set.contains(recipient))
        };
        let all = table.rows.values().all(|row| opens(&row.recipient_set));
        health.recipients.push((recipient.clone(), all));
    }
    Ok(())
}

fn print(
    config: &Config,
    findings: &[Alarm],
    healths: &[Health],
    run: &Option<RunRecord>,
) -> Result<(), Failure> {
    output::print_line(format_args!("host {}", config.host))?;
    match run {
        Some(run) => {
            let started = run
                .started_at
                .as_deref()
                .map_or_else(|| "?".to_owned(), readable_time);
            let outcome = run
                .outcome
                .as_deref()
                .unwrap_or("under way, or it was killed");
            let message = run.message.as_deref().unwrap_or_default();
            let colon = if message.is_empty() { "" } else { ": " };
            output::print_line(format_args!(
                "last run {started}: {outcome}{colon}{message}"
            ))?;
        }
        None => output::print_line("no run yet")?,
    }
    if let Some(next) = config.schedule.next(clock::now()) {
        output::print_line(format_args!(
            "next run due {}",
            next.format("%Y-%m-%d %H:%M UTC")
        ))?;
    }
    for finding in findings {
        output::print_line(format_args!("shrunk: ATTENTION: {}", finding.text))?;
        output::print_line(format_args!("  next: {}", finding.next))?;
    }
    if healths.is_empty() {
        output::print_line("no target is configured: nothing leaves this host")?;
    }
    for health in healths {
        let verdict = match health.problems.is_empty() {
            true => "ok",
            false => "ATTENTION",
        };
        output::print_line(format_args!("{} ({}): {verdict}", health.name, health.url))?;
        match &health.newest {
            Some((stamp, sequence)) => {
                let age = health.age_seconds.unwrap_or_default();
                let age = match u64::try_from(age) {
                    Ok(age) => format!(
                        "{} ago",
                        output::duration(std::time::Duration::from_secs(age))
                    ),
                    Err(_) => "in the future: look at the clock".to_owned(),
                };
                output::print_line(format_args!(
                    "  newest: {stamp}, sequence {sequence}, {age}"
                ))?;
            }
            None => output::print_line("  newest: none")?,
        }
        for (recipient, all) in &health.recipients {
            let what = if *all { "in full" } else { "in part only" };
            output::print_line(format_args!("  opened {what} by {recipient}"))?;
        }
        for problem in health.problems.iter().chain(&health.notes) {
            output::print_line(format_args!("  {problem}"))?;
        }
    }
    Ok(())
}

/// An RFC 3339 time as people read it.
fn readable_time(text: &str) -> String {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc().format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => text.to_owned(),
    }
}

fn print_json(
    config: &Config,
    findings: &[Alarm],
    healths: &[Health],
    run: &Option<RunRecord>,
) -> Result<(), Failure> {
    let targets: Vec<_> = healths
        .iter()
        .map(|health| {
            let recipients: Vec<_> = health
                .recipients
                .iter()
                .map(|(recipient, all)| json!({ "recipient": recipient, "opens_in_full": all }))
                .collect();
            json!({
                "name": health.name, "url": health.url,
                "newest": health.newest.as_ref().map(|(stamp, _)| stamp),
                "sequence": health.newest.as_ref().map(|(_, sequence)| sequence),
                "age_seconds": health.age_seconds, "behind": health.behind.len(),
                "recipients": recipients, "problems": health.problems, "notes": health.notes,
            })
        })
        .collect();
    let run = run.as_ref().map(|run| {
        json!({ "started_at": run.started_at, "ended_at": run.ended_at, "outcome": run.outcome, "message": run.message })
    });
    let next = config.schedule.next(clock::now());
    Ok(output::print_json(&json!({
        "host": config.host, "last_run": run, "next_run": next, "targets": targets,
        "findings": findings.iter().map(shrunk::to_json).collect::<Vec<_>>(),
    }))?)
}
