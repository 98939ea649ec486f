//! `verify`: compares what the targets store with the signed manifests.

mod report;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::target_args::RemoteArgs;
use super::{Context, confinement, output};
use crate::base::ids::HostName;
use crate::base::openat::Dir;
use crate::base::rate_schedule::Timetable;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::parse_size;
use crate::jobs::context::runtime;
use crate::jobs::verify::{self, Repair, VerifyPlaces, VerifyRequest};
use crate::restore::open::Identities;
use crate::scrub::Share;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Only these snapshots: sequences, stamps, hashes, latest, or times [default: all; to restore:
    /// latest]
    #[arg(value_name = "SNAPSHOT", value_parser = SnapshotChoice::parse)]
    snapshots: Vec<SnapshotChoice>,
    /// The name of a [[target]] of the config; can be repeated [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    target: Vec<String>,
    /// A target's URL, such as s3://bucket/prefix or /backups, or a remote's name; needs no config
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// Trust only this signer: SHA256:... fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// With --from: trust the signer of the oldest snapshot there without asking, if none is
    /// remembered
    #[arg(long)]
    accept_signer: bool,
    /// S3 endpoint for --from
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// S3 region for --from
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// For rsync and sftp over ssh with --from: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    ssh: Option<String>,
    /// Also read archives and hash them: all, or a share such as 5%, least recently read first
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "all",
          value_parser = Share::parse)]
    data: Option<Share>,
    /// Most bytes per second to read, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Also do a trial restore, check every file, then delete it; an identity file, can be repeated
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Replace what is missing or damaged by a good copy on another target of the config, or in the
    /// spool
    #[arg(long, conflicts_with = "from")]
    repair: bool,
    /// Report a problem if the newest snapshot has a lower sequence
    #[arg(long, value_name = "SEQUENCE")]
    at_least: Option<u64>,
    /// Temporary directory for repaired archives and restored files [default: the system's]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<Outcome, Failure> {
    let identities = match args.identity.as_slice() {
        [] => None,
        files => Some(Arc::new(Identities::load(files, &prompt())?)),
    };
    // A repair writes to every target, so it is not confined.
    if let Some(identities) = identities.as_ref().filter(|_| !args.repair) {
        let scratch = args.scratch.iter().filter_map(|dir| Dir::open(dir).ok());
        confinement::confine(context, &remote_args(args), identities, scratch.collect())?;
    }
    let runtime = runtime()?;
    let request = VerifyRequest {
        snapshots: args.snapshots.clone(),
        data: args.data,
        rate: args.rate,
        identities,
        repair: match args.repair {
            true => Repair::FromOthers,
            false => Repair::Off,
        },
        at_least: args.at_least,
        scratch: args.scratch.clone(),
    };
    let remote = remote_args(args);
    let report = if args.from.is_some() {
        let download = args.rate.map(Timetable::constant);
        let opened = runtime.block_on(remote.open_limited(context, download))?;
        let places = VerifyPlaces::Opened(opened.folder, opened.trust);
        verify::run(places, &request, &runtime, context)?
    } else {
        let config = context
            .load_config()
            .map_err(|failure| failure.hint("on a machine without a config, give --from URL"))?;
        let (host, trust) = remote.whom(&config, context)?;
        let places = VerifyPlaces::Configured {
            config: &config,
            host,
            trust,
            names: &args.target,
        };
        verify::run(places, &request, &runtime, context)?
    };
    context.report_warnings(report.problem_lines());
    match context.json {
        true => output::print_json(&report)?,
        false => report::print(args, &report)?,
    }
    match report.is_clean() {
        _ if report.is_failed() => Err(Failure::from_error("no target could be verified")),
        true => Ok(Outcome::Complete),
        false => Ok(Outcome::Partial),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("0 bytes per second would read nothing".to_owned()),
        bytes => Ok(bytes),
    }
}

fn remote_args(args: &VerifyArgs) -> RemoteArgs {
    RemoteArgs {
        from: args.from.clone(),
        target: None,
        host: args.host.clone(),
        signer: args.signer.clone(),
        accept_signer: args.accept_signer,
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        ssh: args.ssh.clone(),
    }
}
