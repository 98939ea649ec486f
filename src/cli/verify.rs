//! `verify`: what the targets store, held against the signed manifests. No identity is needed, unless for
//! restoring to nowhere.

mod look;
mod read;
mod repair;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::Args;

use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::scratch::Scratch;
use super::target_args::{self, RemoteArgs};
use super::terminal::RestoreDisplay;
use super::{Context, confinement, status};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::openat::Dir;
use crate::base::panics::caught;
use crate::base::rate_schedule::Timetable;
use crate::config::{Config, TargetConfig, parse_size};
use crate::format::chain::VerifiedSnapshot;
use crate::format::signature::Trust;
use crate::jobs::test_restore::{TestRestore, test_restore};
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::scrub::{Examined, Problem, Share};
use crate::state::catalog::Catalog;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only these snapshots, as `list` names them [default: all; to restore: latest]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The name of a [[target]] of the config; may be given again [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    target: Vec<String>,
    /// A target's URL, such as s3://bucket/prefix or /backups; needs no config
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Whose backups, where a target holds several hosts'
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// Trust only this signer: SHA256:… fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// With --from: trust whoever signed the oldest snapshot there, without asking
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
    /// Also read archives and hash them: all, or a share such as 5%, those first that were read longest ago
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "all",
          value_parser = Share::parse)]
    data: Option<Share>,
    /// Bytes a second to read, at the most, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Also restore, prove every file, and remove it all again; an identity file, may be given again
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Bring what is missing or damaged from another target of the config that has it whole, or from the spool
    #[arg(long, conflicts_with = "from")]
    repair: bool,
    /// The newest snapshot must have this sequence or a higher one
    #[arg(long, value_name = "SEQUENCE")]
    at_least: Option<u64>,
    /// Where archives that are repaired and files that are restored lie meanwhile [default: the system's
    /// directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// One target to verify.
struct Subject {
    name: String,
    folder: HostFolder,
    trust: Trust,
    concurrency: usize,
}

/// What came of one.
#[derive(Default)]
struct Verdict {
    name: String,
    label: String,
    examined: Option<Examined>,
    read_archives: u64,
    read_bytes: u64,
    /// Archives that an earlier run, which this one went on with, had read.
    read_before: u64,
    /// Archives that were to be read and lie in cold storage, and their bytes.
    frozen: (u64, u64),
    problems: Vec<Problem>,
    rehearsals: Vec<TestRestore>,
    /// What was mended, or why not, each a line.
    repaired: Vec<String>,
    /// Archives that are still not what they should be.
    lost: u64,
    /// Nothing to see to.
    notes: Vec<String>,
    /// It could not be looked at.
    failure: Option<String>,
}

impl Verdict {
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

    /// Snapshots to restore: those that were named, else the newest.
    fn to_rehearse(&self, wanted: &[String]) -> Vec<VerifiedSnapshot> {
        let Some(examined) = &self.examined else {
            return Vec::new();
        };
        let chain = &examined.chain;
        match wanted {
            [] => chain.snapshots.last().cloned().into_iter().collect(),
            named => {
                let found = named.iter().filter_map(|text| chain.resolve(text).ok());
                found.cloned().collect()
            }
        }
    }
}

/// What all steps need.
struct Run<'a> {
    context: &'a Context,
    args: &'a VerifyArgs,
    subjects: Vec<Subject>,
    /// The memory of what was read when, and of what was pushed; of this host only.
    catalog: Option<Catalog>,
    /// Of a run that mends.
    donors: Vec<crate::jobs::repair::Donor>,
    scratch: Option<Scratch>,
    now: DateTime<Utc>,
}

pub fn run(context: &Context, args: &VerifyArgs) -> Result<Outcome, Failure> {
    let identities = match args.identity.as_slice() {
        [] => None,
        files => Some(Arc::new(Identities::load(files, &prompt())?)),
    };
    // A repair writes to every target.
    if let Some(identities) = identities.as_ref().filter(|_| !args.repair) {
        let scratch = args.scratch.iter().filter_map(|dir| Dir::open(dir).ok());
        confinement::confine(context, &remote_args(args), identities, scratch.collect())?;
    }
    let runtime = target_args::runtime()?;
    let run = Run::prepare(context, args, &runtime)?;
    let mut verdicts = Vec::new();
    for subject in &run.subjects {
        let looked = runtime.block_on(caught(run.look(subject)));
        verdicts.push(match looked {
            Ok(verdict) => verdict?,
            Err(panicked) => Verdict::failed(subject, &panicked),
        });
    }
    if args.repair {
        runtime.block_on(run.mend_small(&mut verdicts))?;
    }
    for (subject, verdict) in run.subjects.iter().zip(&mut verdicts) {
        if let Some(share) = args.data {
            match runtime.block_on(caught(run.read(share, subject, verdict))) {
                Ok(read) => read?,
                Err(panicked) => verdict.failure = Some(panicked.to_string()),
            }
        }
        run.recall_damage(subject, verdict)?;
    }
    run.add_divergences(&mut verdicts)?;
    if args.repair {
        runtime.block_on(run.mend_archives(&mut verdicts))?;
    }
    if let Some(identities) = &identities {
        for (subject, verdict) in run.subjects.iter().zip(&mut verdicts) {
            let done = runtime.block_on(caught(run.rehearse(subject, identities, verdict)));
            if let Err(panicked) = done {
                verdict.failure = Some(panicked.to_string());
            }
        }
    }
    match context.json {
        true => report::print_json(&verdicts)?,
        false => report::print(args, &verdicts)?,
    }
    conclude(&verdicts)
}

fn conclude(verdicts: &[Verdict]) -> Result<Outcome, Failure> {
    if verdicts.iter().all(|verdict| verdict.failure.is_some()) {
        return Err(Failure::from_error("no target could be verified"));
    }
    let clean = |verdict: &Verdict| verdict.problems.is_empty() && verdict.failure.is_none();
    Ok(match verdicts.iter().all(clean) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("it would let nothing through".to_owned()),
        bytes => Ok(bytes),
    }
}

impl<'a> Run<'a> {
    /// The targets that are named, or all of the configuration; and the memory of what was read when.
    fn prepare(
        context: &'a Context,
        args: &'a VerifyArgs,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Self, Failure> {
        let mut run = Self {
            context,
            args,
            subjects: Vec::new(),
            catalog: None,
            donors: Vec::new(),
            scratch: None,
            now: clock::now(),
        };
        if args.repair || !args.identity.is_empty() {
            run.scratch = Some(Scratch::make("verify", args.scratch.as_deref())?);
        }
        if args.from.is_some() {
            let download = args.rate.map(Timetable::constant);
            let opened = runtime.block_on(remote_args(args).open_limited(context, download))?;
            run.subjects.push(Subject {
                name: opened.folder.target.label().to_owned(),
                folder: opened.folder,
                trust: opened.trust,
                concurrency: 4,
            });
            return Ok(run);
        }
        let config = context
            .load_config()
            .map_err(|failure| failure.hint("on a machine without a config, give --from URL"))?;
        let (host, trust) = remote_args(args).whom(&config)?;
        for target in run.chosen(&config)? {
            run.subjects.push(subject(args, target, &host, &trust)?);
        }
        if run.subjects.is_empty() {
            return Err(Failure::usage(
                "no target is configured that can be read: verify what is written only with other credentials, or \
                 where it lies (--from)",
            ));
        }
        // Another host's snapshots are none that this one remembers.
        if host == config.host {
            run.catalog = status::open_catalog(&config)?;
        }
        if args.repair {
            run.donors = repair::donors(&config, &host)?;
        }
        Ok(run)
    }

    fn chosen<'c>(&self, config: &'c Config) -> Result<Vec<&'c TargetConfig>, Failure> {
        let named = &self.args.target;
        if let Some(unknown) = named.iter().find(|name| config.target(name).is_none()) {
            return Err(target_args::no_such_target(config, unknown));
        }
        let is_named = |target: &&TargetConfig| named.is_empty() || named.contains(&target.name);
        let (blind, chosen): (Vec<_>, Vec<_>) = config
            .targets
            .iter()
            .filter(is_named)
            .partition(|target| target.write_only);
        for target in blind {
            self.context.note(format_args!(
                "{} is write-only, nobody can look there with its credentials: verify it where it lies",
                target.name
            ));
        }
        Ok(chosen)
    }

    async fn rehearse(
        &self,
        subject: &Subject,
        identities: &Arc<Identities>,
        verdict: &mut Verdict,
    ) {
        let Some(scratch) = &self.scratch else { return };
        for snapshot in verdict.to_rehearse(&self.args.snapshots) {
            let chain = verdict
                .examined
                .as_ref()
                .map(|examined| examined.chain.clone());
            let Some(chain) = chain else { continue };
            let display = RestoreDisplay::start(self.context.quiet || self.context.json);
            let done = test_restore(
                &subject.folder,
                &snapshot,
                Arc::clone(identities),
                chain,
                scratch.private(),
                display.clone(),
            )
            .await;
            display.finish();
            match done {
                TestRestore::Wrong(problem) => verdict.problems.push(*problem),
                done => verdict.rehearsals.push(done),
            }
        }
    }
}

fn subject(
    args: &VerifyArgs,
    target: &TargetConfig,
    host: &HostName,
    trust: &Trust,
) -> Result<Subject, Failure> {
    let mut target = target.clone();
    if let Some(rate) = args.rate {
        target.download = Some(match target.download {
            Some(limit) => limit.capped(rate),
            None => Timetable::constant(rate),
        });
    }
    let named = target_args::open_target(&target)?;
    Ok(Subject {
        name: named.name,
        folder: HostFolder::new(named.target, host.clone()),
        trust: trust.clone(),
        concurrency: named.concurrency,
    })
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
