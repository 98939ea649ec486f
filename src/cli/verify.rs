//! `verify`: what the targets store, held against the signed manifests. No identity is needed.

use std::collections::HashMap;

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::remote::{self, RemoteArgs};
use super::terminal::SyncDisplay;
use super::{Context, output, status};
use crate::bandwidth::Timetable;
use crate::catalog::Catalog;
use crate::clock;
use crate::config::{Config, parse_size};
use crate::error::with_causes;
use crate::manifest::ArchiveRow;
use crate::manifest::chain::Chain;
use crate::manifest::signature::Trust;
use crate::repository::HostFolder;
use crate::scrub::{self, Divergence, Examined, Problem, Share};
use crate::shipper::Watcher as _;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Also read archives and hash them: all, or a share such as 5%, those first that were read longest ago
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "all",
          value_parser = Share::parse)]
    data: Option<Share>,
    /// Bytes a second to read, at the most, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    rate: Option<u64>,
    /// Bring archives that are missing or damaged from another target of the config that has them whole
    #[arg(long, conflicts_with = "from")]
    repair: bool,
    /// The newest snapshot must have this sequence or a higher one
    #[arg(long, value_name = "SEQUENCE")]
    at_least: Option<u64>,
}

/// One target to verify.
struct Subject {
    name: String,
    folder: HostFolder,
    trust: Trust,
    concurrency: usize,
}

/// What came of one.
struct Verdict {
    name: String,
    label: String,
    examined: Option<Examined>,
    read_archives: u64,
    read_bytes: u64,
    /// Each a line.
    problems: Vec<String>,
    /// Archives that are not what they should be.
    lost: Vec<ArchiveRow>,
    /// What was mended, each a line.
    repaired: Vec<String>,
    /// It could not be looked at.
    failure: Option<String>,
}

impl Verdict {
    fn take(&mut self, problems: &[Problem]) {
        self.problems
            .extend(problems.iter().map(ToString::to_string));
        self.lost
            .extend(problems.iter().filter_map(Problem::lost).cloned());
    }
}

pub fn run(context: &Context, args: &VerifyArgs) -> Result<Outcome, Failure> {
    let runtime = remote::runtime()?;
    let (subjects, catalog) = subjects(context, args, &runtime)?;
    let mut verdicts = Vec::new();
    for subject in &subjects {
        verdicts.push(runtime.block_on(verify(context, args, subject, catalog.as_ref()))?);
    }
    add_divergences(&mut verdicts);
    if args.repair {
        runtime.block_on(repair(&subjects, &mut verdicts))?;
    }
    match context.json {
        true => print_json(&verdicts)?,
        false => print(args, &verdicts)?,
    }
    if verdicts.iter().all(|verdict| verdict.failure.is_some()) {
        return Err(Failure::from_error("no target could be verified"));
    }
    let clean = |verdict: &Verdict| verdict.problems.is_empty() && verdict.failure.is_none();
    Ok(match verdicts.iter().all(clean) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// The target that is named, or all of the configuration; and the memory of what was read when.
fn subjects(
    context: &Context,
    args: &VerifyArgs,
    runtime: &tokio::runtime::Runtime,
) -> Result<(Vec<Subject>, Option<Catalog>), Failure> {
    let download = args.rate.map(Timetable::constant);
    if args.remote.from.is_some() {
        let opened = runtime.block_on(args.remote.open_limited(context, download))?;
        let subject = Subject {
            name: opened.folder.target.label().to_owned(),
            folder: opened.folder,
            trust: opened.trust,
            concurrency: 4,
        };
        return Ok((vec![subject], None));
    }
    let config = context
        .load_config()
        .map_err(|failure| failure.hint("on a machine without a config, give --from URL"))?;
    let subjects = configured(&config, args, download)?;
    let catalog = status::open_catalog(&config)?;
    Ok((subjects, catalog))
}

fn configured(
    config: &Config,
    args: &VerifyArgs,
    download: Option<Timetable>,
) -> Result<Vec<Subject>, Failure> {
    let host = args
        .remote
        .host
        .clone()
        .unwrap_or_else(|| config.host.clone());
    let trust = match &args.remote.signer {
        Some(text) => Trust::parse(text).map_err(Failure::usage)?,
        None if host == config.host => remote::own_trust(config)?,
        None => Trust::FirstSeen,
    };
    let mut subjects = Vec::new();
    for target in &config.targets {
        let is_named = args
            .remote
            .target
            .as_ref()
            .is_none_or(|name| *name == target.name);
        // What can only be written to is verified where it lies.
        if !is_named || target.write_only {
            continue;
        }
        let mut target = target.clone();
        target.download = download.clone().or(target.download);
        let named = remote::open_target(&target)?;
        subjects.push(Subject {
            name: named.name,
            folder: HostFolder::new(named.target, host.clone()),
            trust: trust.clone(),
            concurrency: named.concurrency,
        });
    }
    if subjects.is_empty() {
        let text = match &args.remote.target {
            Some(name) => format!("no target is named {name}, or it can only be written to"),
            None => "no target is configured that can be read".to_owned(),
        };
        return Err(Failure::usage(text));
    }
    Ok(subjects)
}

async fn verify(
    context: &Context,
    args: &VerifyArgs,
    subject: &Subject,
    catalog: Option<&Catalog>,
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict {
        name: subject.name.clone(),
        label: subject.folder.target.label().to_owned(),
        examined: None,
        read_archives: 0,
        read_bytes: 0,
        problems: Vec::new(),
        lost: Vec::new(),
        repaired: Vec::new(),
        failure: None,
    };
    let now = clock::now();
    let examined = match scrub::examine(&subject.folder, &subject.trust, now).await {
        Ok(examined) => examined,
        Err(error) => {
            verdict.failure = Some(with_causes(&error));
            return Ok(verdict);
        }
    };
    verdict.take(&examined.problems);
    let head = examined.chain.snapshots.last().map_or(0, |s| s.sequence());
    if let Some(least) = args.at_least
        && head < least
    {
        let text = format!("it ends at sequence {head}, {least} was to be there: it was set back");
        verdict.problems.push(text);
    }
    if let Some(catalog) = catalog {
        verdict
            .problems
            .extend(remembered_and_gone(catalog, subject, &examined.chain).await?);
    }
    if let Some(share) = args.data {
        read(context, share, subject, &examined, catalog, &mut verdict).await?;
    }
    verdict.examined = Some(examined);
    Ok(verdict)
}

/// Snapshots that this host published there and that are not there any more, though nobody signed for that.
async fn remembered_and_gone(
    catalog: &Catalog,
    subject: &Subject,
    chain: &Chain,
) -> Result<Vec<String>, Failure> {
    let mut gone = Vec::new();
    for row in catalog.snapshots()? {
        let published = catalog.publication(&subject.name, &row.known.core)?;
        let is_there = || {
            let mut snapshots = chain.snapshots.iter();
            snapshots.any(|s| s.manifest.core_hash == row.known.core)
        };
        if published.as_deref() == Some("published") && !is_there() {
            gone.push(row.known);
        }
    }
    let names = gone
        .iter()
        .map(|known| (known.sequence, known.stamp))
        .collect();
    let (folder, signers) = (&subject.folder, chain.signers());
    let deleted = folder.deletions(&subject.trust, &signers, &names).await?;
    let stolen = gone
        .into_iter()
        .filter(|known| !deleted.contains(&known.core));
    let words = stolen.map(|known| {
        format!(
            "snapshot {} (sequence {}) was published there and is gone: it was deleted, or the target set back",
            known.stamp, known.sequence
        )
    });
    Ok(words.collect())
}

async fn read(
    context: &Context,
    share: Share,
    subject: &Subject,
    examined: &Examined,
    catalog: Option<&Catalog>,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let checked = match catalog {
        Some(catalog) => Some(catalog.checked(&subject.name)?),
        None => None,
    };
    let chosen = scrub::choose(&examined.whole, share, checked.as_ref(), clock::now());
    let bytes = chosen.iter().map(|needed| needed.row.bytes).sum();
    let quiet = context.quiet || context.json;
    let display = SyncDisplay::start(quiet, &subject.folder.host, "read", bytes);
    let mut noted = Ok(());
    let done = scrub::read_archives(
        &subject.folder,
        chosen,
        subject.concurrency,
        |needed, problem| {
            display.shipped(&needed.row.key(), needed.row.bytes);
            verdict.read_archives += 1;
            verdict.read_bytes += needed.row.bytes;
            // Each as it comes: a run that breaks off goes on there.
            if let (Some(catalog), None, Ok(())) = (catalog, problem, &noted) {
                noted = catalog.set_checked(&subject.name, &needed.row.blake3, clock::now());
            }
        },
    )
    .await;
    display.finish();
    noted?;
    match done {
        Ok(problems) => {
            verdict.take(&problems);
        }
        Err(error) => verdict.problems.push(format!(
            "reading broke off after {}: {}; run it again, it goes on from there",
            output::count(verdict.read_archives, "archive"),
            with_causes(&error)
        )),
    }
    Ok(())
}

/// From each other target that was looked at and has the archive in full.
async fn repair(subjects: &[Subject], verdicts: &mut [Verdict]) -> Result<(), Failure> {
    let scratch = tempfile::Builder::new()
        .prefix("sealift-repair-")
        .tempdir()?;
    for at in 0..verdicts.len() {
        for row in std::mem::take(&mut verdicts[at].lost) {
            let has = |other: &usize| {
                let examined = verdicts[*other].examined.as_ref();
                *other != at && examined.is_some_and(|e| e.whole.contains_key(&row.blake3))
            };
            let others: Vec<usize> = (0..verdicts.len()).filter(has).collect();
            let donors: Vec<&HostFolder> = others.iter().map(|n| &subjects[*n].folder).collect();
            let folder = &subjects[at].folder;
            let line = match scrub::repair(folder, &row, &donors, scratch.path()).await {
                Ok(donor) => {
                    let from = &verdicts[others[donor]].name;
                    format!("{} was brought from {from} and is whole again", row.key())
                }
                Err(why) if why.is_empty() => {
                    verdicts[at].lost.push(row);
                    continue;
                }
                Err(why) => {
                    let key = row.key();
                    verdicts[at].lost.push(row);
                    format!("{key} could not be mended: {}", why.join("; "))
                }
            };
            verdicts[at].repaired.push(line);
        }
    }
    Ok(())
}

fn add_divergences(verdicts: &mut [Verdict]) {
    let chains: Vec<(usize, &str, &Chain)> = verdicts
        .iter()
        .enumerate()
        .filter_map(|(at, v)| Some((at, v.name.as_str(), &v.examined.as_ref()?.chain)))
        .collect();
    let named: Vec<(&str, &Chain)> = chains
        .iter()
        .map(|(_, name, chain)| (*name, *chain))
        .collect();
    let odd: Vec<(usize, Divergence)> = scrub::compare_heads(&named)
        .into_iter()
        .map(|(at, odd)| (chains[at].0, odd))
        .collect();
    for (at, odd) in odd {
        verdicts[at].problems.push(odd.to_string());
    }
}

fn print(args: &VerifyArgs, verdicts: &[Verdict]) -> Result<(), Failure> {
    for verdict in verdicts {
        let line = match (&verdict.failure, &verdict.examined) {
            (Some(failure), _) => format!("{}: NOT VERIFIED: {failure}", verdict.label),
            (None, Some(examined)) => summary(args, verdict, examined),
            (None, None) => continue,
        };
        output::print_line(line)?;
        for problem in &verdict.problems {
            output::print_line(format_args!("  {problem}"))?;
        }
        for line in &verdict.repaired {
            output::print_line(format_args!("  repair: {line}"))?;
        }
        if !verdict.lost.is_empty() {
            output::print_line(match args.repair {
                false => {
                    "  next: `sealift verify --data --repair` brings them from another target that has them whole"
                }
                true => {
                    "  next: no target that can be read has these whole. Delete the damaged ones there: the next backup then \
                     stores anew what today's snapshot needs of them; older snapshots stay incomplete"
                }
            })?;
        }
    }
    Ok(())
}

fn summary(args: &VerifyArgs, verdict: &Verdict, examined: &Examined) -> String {
    let state = match verdict.problems.is_empty() {
        true => "ok",
        false => "ATTENTION",
    };
    let whole = examined.whole.values().map(|needed| needed.row.bytes).sum();
    let mut text = format!(
        "{}: {state}: {}, {} ({}) there in full",
        verdict.label,
        output::count(examined.chain.snapshots.len() as u64, "snapshot"),
        output::count(examined.whole.len() as u64, "archive"),
        output::size(whole),
    );
    if args.data.is_some() {
        let (archives, bytes) = (verdict.read_archives, verdict.read_bytes);
        let read = output::count(archives, "archive");
        text += &format!("; {read} ({}) read and hashed", output::size(bytes));
    }
    if examined.stray.0 > 0 {
        let (count, bytes) = examined.stray;
        let strays = output::count(count, "object");
        text += &format!(
            "; {strays} ({}) that no snapshot needs",
            output::size(bytes)
        );
    }
    text
}

fn print_json(verdicts: &[Verdict]) -> Result<(), Failure> {
    let targets: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            let mut facts: HashMap<&str, serde_json::Value> = HashMap::new();
            if let Some(examined) = &verdict.examined {
                let whole: u64 = examined.whole.values().map(|n| n.row.bytes).sum();
                let head = examined.chain.snapshots.last();
                facts.insert("snapshots", json!(examined.chain.snapshots.len()));
                facts.insert("sequence", json!(head.map(|s| s.sequence())));
                facts.insert("archives", json!(examined.whole.len()));
                facts.insert("archive_bytes", json!(whole));
                facts.insert("stray_objects", json!(examined.stray.0));
                facts.insert("stray_bytes", json!(examined.stray.1));
            }
            json!({
                "name": verdict.name, "label": verdict.label, "found": facts,
                "read_archives": verdict.read_archives, "read_bytes": verdict.read_bytes,
                "problems": verdict.problems, "repaired": verdict.repaired,
                "lost_archives": verdict.lost.len(), "failure": verdict.failure,
            })
        })
        .collect();
    Ok(output::print_json(&json!({ "targets": targets }))?)
}
