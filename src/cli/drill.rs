//! `drill`: restores a snapshot for real on the key holder's machine, checks it, and leaves a
//! signed receipt.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Context;
use super::confinement;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, count, size};
use super::receipt_signer::{ReceiptSigner, SignerArgs, load_config, receipt_target};
use super::target_args::RemoteArgs;
use crate::base::ids::HostName;
use crate::base::openat::Dir;
use crate::config::{
    CHECK_TIMEOUT, CommandLine, DrillConfig, DrillSnapshot, PostCheck, PostCheckKind, RANDOM_OLDER,
    SERVICE_TIMEOUT,
};
use crate::format::receipt::ReceiptOutcome;
use crate::jobs::context::{FrontEnd as _, runtime};
use crate::jobs::drill::{
    self, AfterDrill, DrillPlace, DrillReport, DrillRequest, DrillService, DrillTurn, ReceiptUpload,
};
use crate::jobs::init::write_new_file;
use crate::restore::open::Identities;

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// A target's URL, such as s3://bucket/prefix or /backups, or a remote's name; can be repeated:
    /// then each has its turn [default: `from` of [drill]]
    #[arg(long, value_name = "URL")]
    from: Vec<String>,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// latest, random, a sequence, a stamp, a hash, or a time [default: `snapshot` of [drill], else
    /// latest; once in four drills an older one]
    #[arg(long, value_name = "SNAPSHOT", value_parser = DrillSnapshot::parse)]
    snapshot: Option<DrillSnapshot>,
    /// An identity file (age, age with a passphrase, OpenSSH, plugin); can be repeated
    #[arg(long, short, value_name = "FILE")]
    identity: Vec<PathBuf>,
    #[command(flatten)]
    signer: SignerArgs,
    /// Directory in which the snapshot is restored and removed again [default: the system's for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Keep the restored files
    #[arg(long)]
    keep: bool,
    /// Do not put the receipt on the target
    #[arg(long)]
    no_upload: bool,
    /// Write the receipt to this new file, too, for `key prove --upload`
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A shell line that starts a service on the restored files, which are in $SEALIFT_RESTORED
    #[arg(long, value_name = "COMMAND", requires = "stop")]
    start: Option<String>,
    /// A shell line that stops it
    #[arg(long, value_name = "COMMAND", requires = "start")]
    stop: Option<String>,
    /// The URL of that service, for HTTP checks
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Trust the snapshots of only this signer: SHA256:... fingerprint, or an allowed_signers or
    /// public key file
    #[arg(long = "signer", value_name = "SIGNER")]
    host_signer: Option<String>,
    /// Trust the signer of the oldest snapshot there without asking, if none is remembered
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
}

pub(super) fn run(context: &Context, args: &DrillArgs) -> Result<Outcome, Failure> {
    let config = load_config(context)?;
    let config = config.as_ref();
    let froms = match (args.from.is_empty(), config) {
        (false, _) => args.from.clone(),
        (true, Some(config)) => config.from.clone(),
        (true, None) => {
            return Err(Failure::usage("no place of backups is given")
                .hint("give --from URL, or write [drill] in the configuration (docs/proof.md)"));
        }
    };
    let signer = ReceiptSigner::load(&args.signer, config)?;
    let identities = identities(&args.identity, config)?;
    let settings = DrillSettings::of(args, config)?;
    let remotes: Vec<RemoteArgs> = froms
        .iter()
        .map(|from| remote(args, config, from))
        .collect();
    if !settings.runs_commands(config) {
        let dirs = written_dirs(args, &settings);
        confinement::confine_to_places(context, &remotes, &identities, dirs)?;
    }
    let runtime = runtime()?;
    let mut places: Vec<DrillPlace> = Vec::new();
    let mut away = Vec::new();
    for (from, remote) in froms.iter().zip(&remotes) {
        match runtime.block_on(open(context, remote)) {
            Ok(place) => places.push(place),
            // Another place may be drilled meanwhile.
            Err(failure) if froms.len() > 1 && failure.code() == 1 => {
                let text = failure.text();
                let causes = text.causes.iter().map(|cause| format!(": {cause}"));
                let causes: String = causes.collect();
                context.warn(&format!("{from}: {}{causes}", text.text));
                away.push(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    if places.is_empty()
        && let Some(failure) = away.pop()
    {
        return Err(failure);
    }
    require_one_host(&places)?;
    let request = DrillRequest {
        places,
        turn: settings.turn,
        identities: Arc::new(identities),
        signer: signer.signer,
        by: signer.by,
        scratch: settings.scratch,
        after: match args.keep {
            true => AfterDrill::Keep,
            false => AfterDrill::Remove,
        },
        upload: match args.no_upload {
            true => ReceiptUpload::Withhold,
            false => ReceiptUpload::Put,
        },
        service: settings.service,
        base_url: settings.base_url,
        checks: config
            .map(|config| config.checks.clone())
            .unwrap_or_default(),
        check_timeout: config.map_or(CHECK_TIMEOUT, |config| config.check_timeout),
        max_bytes: config.and_then(|config| config.max_bytes),
    };
    let report = drill::run(&request, &runtime, context)?;
    if let (Some(to), Some(signed)) = (&args.output, &report.signed) {
        write_new_file(to, &signed.file(), 0o644)?;
    }
    print(context, &report)?;
    Ok(match report.is_clean() && away.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn identities(given: &[PathBuf], config: Option<&DrillConfig>) -> Result<Identities, Failure> {
    let files = match (given.is_empty(), config) {
        (true, Some(config)) => config.identities.clone(),
        _ => given.to_vec(),
    };
    if files.is_empty() {
        return Err(
            Failure::usage("no identity is given: a drill decrypts the snapshot")
                .hint("give --identity FILE, or `identity` in [drill]"),
        );
    }
    Ok(Identities::load(&files, &prompt())?)
}

/// What the command line says, or else the configuration.
struct DrillSettings {
    turn: DrillTurn,
    scratch: Option<PathBuf>,
    service: Option<DrillService>,
    base_url: Option<String>,
}

impl DrillSettings {
    /// Whether the operator's commands run, which write wherever they like.
    fn runs_commands(&self, config: Option<&DrillConfig>) -> bool {
        let mut checks = config.iter().flat_map(|config| &config.checks);
        let is_command = |check: &PostCheck| matches!(check.kind, PostCheckKind::Command(_));
        self.service.is_some() || checks.any(is_command)
    }

    fn of(args: &DrillArgs, config: Option<&DrillConfig>) -> Result<Self, Failure> {
        let latest = || DrillSnapshot::parse("latest").map_err(Failure::usage);
        let snapshot = match (&args.snapshot, config) {
            (Some(given), _) => given.clone(),
            (None, Some(config)) => config.snapshot.clone(),
            (None, None) => latest()?,
        };
        let random_older = match (&args.snapshot, config) {
            // The operator chose one.
            (Some(_), _) => None,
            (None, Some(config)) => config.random_older,
            (None, None) => Some(RANDOM_OLDER),
        };
        let given = args.start.as_ref().zip(args.stop.as_ref());
        let given = given.map(|(start, stop)| {
            let line = |text: &String| CommandLine::Shell(text.clone());
            (line(start), line(stop))
        });
        let configured = || config.and_then(|one| one.start.clone().zip(one.stop.clone()));
        let timeout = config.map_or(SERVICE_TIMEOUT, |config| config.service_timeout);
        let service = given.or_else(configured);
        let base_url = args.base_url.clone();
        let base_url = base_url.or_else(|| config.and_then(|config| config.base_url.clone()));
        let asks = |config: &DrillConfig| {
            let mut checks = config.checks.iter();
            checks.any(|check| matches!(check.kind, PostCheckKind::Http(_)))
        };
        if base_url.is_none() && config.is_some_and(asks) {
            return Err(Failure::usage(
                "a check asks a service, and no `base_url` is given",
            ));
        }
        Ok(Self {
            turn: DrillTurn {
                snapshot,
                every_target: config.is_none_or(|config| config.every_target),
                random_older,
            },
            scratch: args
                .scratch
                .clone()
                .or_else(|| config.and_then(|config| config.scratch.clone())),
            service: service.map(|(start, stop)| DrillService {
                start,
                stop,
                timeout,
            }),
            base_url: base_url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }
}

/// Returns the options that lead to one place.
fn remote(args: &DrillArgs, config: Option<&DrillConfig>, from: &str) -> RemoteArgs {
    let host = args.host.clone();
    RemoteArgs {
        from: Some(from.to_owned()),
        target: None,
        host: host.or_else(|| config.and_then(|config| config.host.clone())),
        signer: args.host_signer.clone(),
        accept_signer: args.accept_signer,
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        ssh: args.ssh.clone(),
    }
}

/// Returns the directories in which a drill writes, in addition to the places.
fn written_dirs(args: &DrillArgs, settings: &DrillSettings) -> Vec<Dir> {
    let output = args.output.as_ref().map(|file| match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    });
    let dirs = settings.scratch.iter().chain(output.iter());
    dirs.filter_map(|dir| Dir::open(dir).ok()).collect()
}

/// Opens one place, and verifies its manifests.
async fn open(context: &Context, remote: &RemoteArgs) -> Result<DrillPlace, Failure> {
    let target = receipt_target(remote)?;
    let opened = remote.open(context).await?;
    super::list::remote::tell_findings(&opened.chain);
    Ok(DrillPlace {
        target,
        folder: opened.folder,
        chain: opened.chain,
    })
}

fn require_one_host(places: &[DrillPlace]) -> Result<(), Failure> {
    let mut hosts = places.iter().map(|place| &place.chain.host);
    let first = hosts.next();
    match hosts.find(|host| Some(*host) != first) {
        None => Ok(()),
        Some(other) => {
            let first = first.map(ToString::to_string).unwrap_or_default();
            Err(Failure::usage(format!(
                "these places hold different hosts: {first} and {other}"
            ))
            .hint("choose one with --host; a host needs a configuration of its own for its drills"))
        }
    }
}

fn print(context: &Context, report: &DrillReport) -> Result<(), Failure> {
    for note in &report.notes {
        context.note(format_args!("note: {}", output::printable(note.as_bytes())));
    }
    for check in &report.checks {
        let passed = if check.passed { "passed" } else { "FAILED" };
        let found = output::printable(check.found.as_bytes());
        context.note(format_args!("check {}: {passed}: {found}", check.name));
        if let Some(why) = check.explanation.as_ref().filter(|_| !check.passed) {
            context.note(format_args!("  {why}"));
        }
    }
    for problem in &report.errors {
        let text = output::printable(problem.text.as_bytes());
        output::tell(format_args!("{}: {text}", problem.code));
    }
    if let Some(kept) = &report.kept {
        context.note(format_args!(
            "the restored files stay in {kept}: remove them"
        ));
    }
    if context.json {
        output::print_json(report)?;
        return Ok(());
    }
    output::print_line(format_args!("{}", sentence(report)))?;
    match report.uploaded {
        true => output::print_line(format_args!(
            "receipt: {} on {}",
            report.receipt, report.place
        ))?,
        false => context.note("the receipt was not put on the target (--no-upload)"),
    }
    Ok(())
}

fn sentence(report: &DrillReport) -> String {
    let snapshot = format!(
        "snapshot {} (sequence {}) of {} from {}",
        report.stamp, report.sequence, report.host, report.place
    );
    if report.outcome != ReceiptOutcome::Passed {
        let codes: Vec<&str> = report.errors.iter().map(|one| one.code.as_str()).collect();
        return format!("the drill FAILED: {snapshot}: {}", codes.join(", "));
    }
    let restored = report.restored.unwrap_or_default();
    let times = report.milliseconds;
    let seconds = (times.fetch + times.restore + times.checks) as f64 / 1000.0;
    let checks = match report.checks.len() as u64 {
        0 => String::new(),
        n => format!(", {} passed", count(n, "check")),
    };
    format!(
        "restored {snapshot}: {}, {}, in {seconds:.1} s; every byte verified, {} checked in full{checks}",
        count(restored.files, "file"),
        size(restored.bytes),
        count(restored.databases, "database"),
    )
}
