//! `sync FROM TO`: copies whole hosts or single snapshots from target to target, as ciphertext.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Outcome, advice};
use super::target_args::{self, Side};
use super::{Context, output};
use crate::base::ids::HostName;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::jobs::signer_memory::RememberedPlace;
use crate::jobs::sync::{self, SyncExtent, SyncJobReport, SyncJobRequest, SyncedHost};

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Where to read: the name of a [[target]] of the config or of a remote, or a URL
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to write: the name of a [[target]] or of a remote, or a URL; a missing folder is made
    #[arg(value_name = "TO")]
    to: String,
    /// Only these snapshots: sequences, stamps, hashes, latest, or times [default: all]
    #[arg(value_name = "SNAPSHOT", value_parser = SnapshotChoice::parse)]
    snapshots: Vec<SnapshotChoice>,
    /// Only this host's snapshots; can be repeated [default: every host on FROM]
    #[arg(long, value_name = "NAME")]
    host: Vec<HostName>,
    /// Copy only what this signer signed: SHA256:... fingerprint, or an allowed_signers or public
    /// key file
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// Most archives that are copied at once
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
    /// Temporary directory for archives on their way [default: the system's]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl SyncArgs {
    /// Whether it changes nothing.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

pub(super) fn run(context: &Context, args: &SyncArgs) -> Result<Outcome, Failure> {
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
    let remembered = RememberedPlace {
        memory: context.signers(),
        place: from.place(context)?,
    };
    let remote = from.remote(context)?;
    let (host, signer) = remote.map_or((None, None), |remote| (remote.host, remote.signer));
    let hosts = match args.host.as_slice() {
        [] => host.into_iter().collect(),
        named => named.to_vec(),
    };
    // Before the other side, for which a folder may be made.
    let from = from.open_for_reading(context)?;
    let (extent, to) = match args.dry_run {
        true => (SyncExtent::PlanOnly, to.open_if_there(context)?),
        false => (SyncExtent::Copy, to.open_for_writing(context)?),
    };
    let signer = args.signer.as_ref().or(signer.as_ref());
    let trust = signer.map(|text| target_args::trust_of(text));
    // It only adds whose manifests are believed, and what is noted of a target.
    let config = context.load_config_if_any().unwrap_or_else(|failure| {
        output::tell(format_args!(
            "warning: going on without the configuration: {failure}"
        ));
        None
    });
    let request = SyncJobRequest {
        from,
        to,
        to_name: &args.to,
        to_endpoint: args.to_endpoint.as_deref(),
        hosts: &hosts,
        snapshots: &args.snapshots,
        trust: trust.transpose()?,
        remembered,
        concurrency: args.concurrency,
        extent,
        scratch: args.scratch.clone(),
        config: config.as_ref(),
    };
    let report = sync::run(&request, context)?;
    conclude(context, &report)
}

/// Prints the report and picks the outcome.
fn conclude(context: &Context, report: &SyncJobReport) -> Result<Outcome, Failure> {
    for host in &report.hosts {
        tell_messages(host);
        context.report_warnings(problem_lines(host));
    }
    match context.json {
        true => output::print_json(report)?,
        false => print(report)?,
    }
    let is_lost = |host: &SyncedHost| host.has_failed() && host.is_absent();
    let is_odd = |host: &SyncedHost| host.has_failed() || !host.warnings.is_empty();
    match report.hosts.iter().any(is_odd) {
        _ if report.hosts.iter().all(is_lost) => {
            Err(Failure::from_error("nothing could be copied")
                .hint("fix what the messages above name, then run it again"))
        }
        true => Ok(Outcome::Partial),
        false => Ok(Outcome::Complete),
    }
}

/// Returns what needs attention, in a line each.
fn problem_lines(host: &SyncedHost) -> Vec<String> {
    let name = &host.host;
    let error = host.error.as_ref().map(|error| error.with_causes());
    let failed = host.failed.iter();
    let failed = failed.map(|one| format!("snapshot {} was not copied: {}", one.stamp, one.cause));
    let all = host.warnings.iter().cloned().chain(error).chain(failed);
    all.map(|line| format!("{name}: {line}")).collect()
}

fn tell_messages(host: &SyncedHost) {
    for warning in &host.warnings {
        output::tell(format_args!("warning: {}: {warning}", host.host));
    }
    if let Some(error) = &host.error {
        let (name, why) = (&host.host, error.with_causes());
        output::tell(format_args!("failed: {name}: {why}"));
        let look = format!("look at it there: `sealift verify --from URL --host {name}`");
        let next = error.next().or_else(|| advice(error.error()));
        output::tell(format_args!("  next: {}", next.unwrap_or(&look)));
    }
    for failed in &host.failed {
        output::tell(format_args!(
            "failed: {}: snapshot {} was not copied: {}",
            host.host, failed.stamp, failed.cause
        ));
    }
}

fn print(report: &SyncJobReport) -> Result<(), Failure> {
    for host in report.hosts.iter().filter(|host| host.error.is_none()) {
        let line = match (host.copied, host.were_there) {
            (Some(copied), Some(were_there)) => format!(
                "{}: {} copied ({} in {}), {were_there} there already",
                host.host,
                output::count(copied, "snapshot"),
                output::size(host.bytes),
                output::count(host.archives, "archive"),
            ),
            _ => format!(
                "{}: {} to copy, {} in {}",
                host.host,
                output::count(host.snapshots_to_copy as u64, "snapshot"),
                output::size(host.archive_bytes_to_copy),
                output::count(host.archives_to_copy as u64, "archive"),
            ),
        };
        output::print_line(line)?;
    }
    Ok(())
}
