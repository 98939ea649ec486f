//! `sync FROM TO`: whole hosts or single snapshots from target to target, as ciphertext.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::scratch::Scratch;
use super::target_args::{self, Side};
use super::terminal::SyncDisplay;
use super::{Context, output, status};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::panics::caught;
use crate::config::TargetConfig;
use crate::format::signature::Trust;
use crate::repository::{self, HostFolder};
use crate::shipper::publish_recovery;
use crate::shipper::sync::{SyncPlan, SyncReport, SyncRequest};
use crate::state::State;
use crate::state::catalog::PublicationState;

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Where to read: the name of a [[target]] of the config, or a URL
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to write: the name of a [[target]], or a URL; a folder is made
    #[arg(value_name = "TO")]
    to: String,
    /// Only these snapshots, as `list` names them [default: all]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Only this host's; may be given again [default: every host on FROM]
    #[arg(long, value_name = "NAME")]
    host: Vec<HostName>,
    /// Copy only what this signer signed: SHA256:… fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// Archives moved at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// Print what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,
    /// S3 endpoint of FROM, if that is a URL
    #[arg(long, value_name = "URL")]
    from_endpoint: Option<String>,
    /// S3 endpoint of TO, if that is a URL
    #[arg(long, value_name = "URL")]
    to_endpoint: Option<String>,
    /// S3 region of FROM, if that is a URL
    #[arg(long, value_name = "REGION")]
    from_region: Option<String>,
    /// S3 region of TO, if that is a URL
    #[arg(long, value_name = "REGION")]
    to_region: Option<String>,
    /// For rsync and sftp URLs: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    ssh: Option<String>,
    /// Where archives lie on their way [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// One host's part.
struct Done {
    host: HostName,
    plan_bytes: u64,
    plan_archives: usize,
    plan_snapshots: usize,
    report: SyncReport,
    warnings: Vec<String>,
    /// Why nothing of it is known to be there. It keeps no other host from being copied.
    failure: Option<Failure>,
}

impl Done {
    fn failed(host: HostName, failure: Failure) -> Self {
        Self {
            host,
            plan_bytes: 0,
            plan_archives: 0,
            plan_snapshots: 0,
            report: SyncReport::default(),
            warnings: Vec::new(),
            failure: Some(failure),
        }
    }
}

pub fn run(context: &Context, args: &SyncArgs) -> Result<Outcome, Failure> {
    let from = Side {
        text: &args.from,
        endpoint: &args.from_endpoint,
        region: &args.from_region,
        ssh: &args.ssh,
    };
    let to = Side {
        text: &args.to,
        endpoint: &args.to_endpoint,
        region: &args.to_region,
        ssh: &args.ssh,
    };
    if from.place(context)? == to.place(context)? {
        return Err(Failure::usage("FROM and TO are the same target"));
    }
    let from = from.open_for_reading(context)?;
    let to = match args.dry_run {
        true => to.open_if_there(context)?,
        false => to.open_for_writing(context)?,
    };
    let runtime = target_args::runtime()?;
    let hosts = match args.host.as_slice() {
        [] => runtime.block_on(repository::hosts(&from))?,
        named => named.to_vec(),
    };
    if hosts.is_empty() {
        let text = format!("no host's backups are on {}", from.label());
        return Err(Failure::from_error(text)
            .hint("check the URL: it is the folder that holds the host's folder"));
    }
    if hosts.len() > 1 && !args.snapshots.is_empty() {
        return Err(Failure::usage("snapshots of which host?").hint("choose one with --host"));
    }
    let scratch = Scratch::make("sync", args.scratch.as_deref())?;
    let is_alone = hosts.len() == 1;
    let mut done = Vec::new();
    for host in hosts {
        let synced = trust(context, args, &host).and_then(|trust| {
            let request = SyncRequest {
                from: HostFolder::new(from.clone(), host.clone()),
                trust,
                to: HostFolder::new(to.clone(), host.clone()),
                scratch: scratch.path().to_owned(),
                concurrency: args.concurrency,
            };
            let done = runtime.block_on(caught(one_host(context, args, &request)));
            let done = done.unwrap_or_else(|panicked| Err(panicked.into()))?;
            if !args.dry_run {
                runtime.block_on(remember(context, args, &request.to));
            }
            Ok(done)
        });
        done.push(match synced {
            Err(failure) if is_alone => return Err(failure),
            Err(failure) => Done::failed(host, failure),
            Ok(done) => done,
        });
    }
    print(context, args, &done)?;
    conclude(&done)
}

async fn one_host(
    context: &Context,
    args: &SyncArgs,
    request: &SyncRequest,
) -> Result<Done, Failure> {
    let plan = request.plan(&args.snapshots).await?;
    let mut done = Done {
        host: request.from.host.clone(),
        plan_bytes: plan.bytes,
        plan_archives: plan.snapshots.iter().map(|s| s.archives.len()).sum(),
        plan_snapshots: incomplete(&plan),
        report: SyncReport::default(),
        warnings: plan.findings.iter().map(ToString::to_string).collect(),
        failure: None,
    };
    if args.dry_run {
        return Ok(done);
    }
    let display = SyncDisplay::start(
        context.quiet || context.json,
        &done.host,
        "copied",
        plan.bytes,
    );
    let run = request.run(plan, &*display).await;
    display.finish();
    done.report = run?;
    done.warnings.append(&mut done.report.unread);
    if done.report.copied > 0 {
        let put = publish_recovery(&request.to, &super::backup::recovery_files()).await;
        if let Err(error) = put {
            let text = format!(
                "the recovery guide could not be put there: {}",
                with_causes(&error)
            );
            done.warnings.push(text);
        }
        // A full target says so by itself, soon enough.
        let to = &request.to;
        if let Err(error) = to.target.keep_reserve(to.host.as_str()).await {
            tracing::info!(%error, "no room is kept for a prune of a full disk");
        }
    }
    Ok(done)
}

/// Notes in the catalog what is on a target of this host now, so that `list` says so. Where that cannot be, the next
/// backup notes it.
async fn remember(context: &Context, args: &SyncArgs, to: &HostFolder) {
    let Ok(config) = context.load_config() else {
        return;
    };
    let is_to = |target: &&TargetConfig| target.name == args.to || target.url == args.to;
    let target = config.targets.iter().find(is_to);
    let Some(target) = target.filter(|_| config.host == to.host) else {
        return;
    };
    let has_catalog = status::open_catalog(&config).is_ok_and(|catalog| catalog.is_some());
    let Some(state) = has_catalog
        .then(|| State::open(&config.state).ok())
        .flatten()
    else {
        return;
    };
    let (Ok(there), Ok(rows)) = (to.manifest_names().await, state.catalog.snapshots()) else {
        return;
    };
    for row in rows.iter().filter(|row| there.contains(&row.name)) {
        let (core, now) = (&row.known.core, clock::now());
        let noted =
            state
                .catalog
                .set_publication(&target.name, core, PublicationState::Published, now);
        if let Err(error) = noted {
            output::tell(format_args!("warning: {}", with_causes(&error)));
        }
    }
}

/// Snapshots of which something is to be moved.
fn incomplete(plan: &SyncPlan) -> usize {
    let lacking = plan
        .snapshots
        .iter()
        .filter(|snapshot| !snapshot.is_complete());
    lacking.count()
}

/// Whose manifests are copied: the pinned signer's; this host's own; else whoever signed the oldest, for
/// who restores decides anew whom to believe.
fn trust(context: &Context, args: &SyncArgs, host: &HostName) -> Result<Trust, Failure> {
    if let Some(text) = &args.signer {
        return target_args::trust_of(text);
    }
    match context.load_config() {
        Ok(config) if config.host == *host => target_args::own_trust(&config),
        _ => Ok(Trust::FirstSeen),
    }
}

fn conclude(done: &[Done]) -> Result<Outcome, Failure> {
    let failed = |done: &Done| done.failure.is_some() || !done.report.failed.is_empty();
    let nothing = |done: &Done| done.report.copied == 0 && done.report.were_there == 0;
    if done.iter().all(|done| failed(done) && nothing(done)) {
        let hint = "see to what is said above and run it again";
        return Err(Failure::from_error("nothing of it could be copied").hint(hint));
    }
    let odd = done
        .iter()
        .any(|done| failed(done) || !done.warnings.is_empty());
    Ok(match odd {
        true => Outcome::Partial,
        false => Outcome::Complete,
    })
}

fn print(context: &Context, args: &SyncArgs, done: &[Done]) -> Result<(), Failure> {
    for one in done {
        for warning in &one.warnings {
            output::tell(format_args!("warning: {}: {warning}", one.host));
        }
        if let Some(failure) = &one.failure {
            let why = failure.with_causes();
            output::tell(format_args!("failed: {}: {why}", one.host));
            let look = format!(
                "look at it there: `sealift verify --from URL --host {}`",
                one.host
            );
            output::tell(format_args!("  next: {}", failure.next().unwrap_or(&look)));
        }
        for (stamp, why) in &one.report.failed {
            output::tell(format_args!(
                "failed: {}: snapshot {stamp} was not copied: {why}",
                one.host
            ));
        }
    }
    if context.json {
        let hosts: Vec<_> = done.iter().map(|one| to_json(args, one)).collect();
        return Ok(output::print_json(&json!({
            "dry_run": args.dry_run, "at": clock::now(), "hosts": hosts,
        }))?);
    }
    for one in done.iter().filter(|one| one.failure.is_none()) {
        let report = &one.report;
        let line = match args.dry_run {
            true => format!(
                "{}: {} to copy, {} in {}",
                one.host,
                output::count(one.plan_snapshots as u64, "snapshot"),
                output::size(one.plan_bytes),
                output::count(one.plan_archives as u64, "archive"),
            ),
            false => format!(
                "{}: {} copied ({} in {}), {} there already",
                one.host,
                output::count(report.copied, "snapshot"),
                output::size(report.bytes),
                output::count(report.archives, "archive"),
                report.were_there,
            ),
        };
        output::print_line(line)?;
    }
    Ok(())
}

fn to_json(args: &SyncArgs, done: &Done) -> serde_json::Value {
    let failed = done.report.failed.iter();
    let failed: Vec<_> = failed
        .map(|(stamp, why)| json!({ "stamp": stamp, "cause": why }))
        .collect();
    json!({
        "host": done.host, "snapshots_to_copy": done.plan_snapshots,
        "archives_to_copy": done.plan_archives, "archive_bytes_to_copy": done.plan_bytes,
        "copied": (!args.dry_run).then_some(done.report.copied),
        "were_there": (!args.dry_run).then_some(done.report.were_there),
        "archives": done.report.archives, "bytes": done.report.bytes,
        "failed": failed, "warnings": done.warnings,
        "error": done.failure.as_ref().map(Failure::with_causes),
    })
}
