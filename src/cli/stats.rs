//! `stats`: sizes of the backups on each target.

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use super::target_args::RemoteArgs;
use crate::base::ids::HostName;
use crate::jobs::context::runtime;
use crate::jobs::stats::{
    self, ClassSize, GrowthPeriod, GrowthUnit, SnapshotSizes, StatsReport, StatsSource,
    StoredBackups,
};

/// Most snapshots that are shown.
const MOST_SNAPSHOTS: usize = 10;
/// Most periods that are shown.
const MOST_PERIODS: usize = 14;
/// Most findings that are shown.
const MOST_FINDINGS: usize = 20;

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(context: &Context, args: &StatsArgs) -> Result<Outcome, Failure> {
    let report = match args.remote.from.is_some() || args.remote.target.is_some() {
        true => measure(context, &args.remote)?,
        false => remember(context, args.remote.host.as_ref())?,
    };
    match context.json {
        true => output::print_json(&report)?,
        false => report.backups.iter().try_for_each(print)?,
    }
    let mut backups = report.backups.iter();
    Ok(match backups.all(|one| one.findings.is_empty()) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Takes the numbers from the catalog.
fn remember(context: &Context, host: Option<&HostName>) -> Result<StatsReport, Failure> {
    let config = context.load_config()?;
    if let Some(other) = host.filter(|host| **host != config.host) {
        let text = format!("this host is {}, and knows nothing of {other}", config.host);
        return Err(Failure::usage(text)
            .hint("name the target, too: `sealift stats --target NAME --host HOST`"));
    }
    Ok(stats::remembered(&config, None)?)
}

/// Takes the numbers from a target.
fn measure(context: &Context, remote: &RemoteArgs) -> Result<StatsReport, Failure> {
    let config = match &remote.from {
        Some(_) => None,
        None => Some(context.load_config()?),
    };
    // This host cannot read such a target.
    if let (Some(config), Some(name)) = (&config, &remote.target)
        && config.target(name).is_some_and(|target| target.write_only)
    {
        context.note(format_args!(
            "{name} is write-only: this is what this host remembers"
        ));
        return Ok(stats::remembered(config, Some(name))?);
    }
    let runtime = runtime()?;
    let mut backups = Vec::new();
    for one in runtime.block_on(remote.for_each_host(context))? {
        backups.push(runtime.block_on(async {
            let opened = one.open(context).await?;
            let measured = stats::measured(&opened.folder, &opened.chain, config.as_ref(), context);
            Ok::<_, Failure>(measured.await?)
        })?);
    }
    Ok(StatsReport { backups })
}

fn print(one: &StoredBackups) -> Result<(), Failure> {
    let stored = &one.stored;
    output::print_line(format_args!(
        "{}, host {}: {} of {} together, stored in {}",
        one.target,
        one.host,
        count(one.snapshots.len() as u64, "snapshot"),
        size(one.bytes),
        class(&stored.total),
    ))?;
    let known = [
        ("data archives", Some(stored.data_archives)),
        ("index archives", Some(stored.index_archives)),
        ("manifests and tables", stored.manifests_and_tables),
        ("archives that no snapshot needs", stored.unused_archives),
    ];
    for (name, known) in known {
        if let Some(known) = known {
            output::print_line(format_args!("  {name}: {}", class(&known)))?;
        }
    }
    if let Some(older) = one.older_only_bytes {
        output::print_line(format_args!(
            "  not needed by the newest snapshot: {}; freed as older ones are deleted",
            size(older)
        ))?;
    }
    if let Some(ratios) = ratios(one) {
        output::print_line(format_args!("  {ratios}"))?;
    }
    for text in &one.unknown {
        output::print_line(format_args!("  not known: {text}"))?;
    }
    print_growth(one)?;
    print_snapshots(one)?;
    for finding in one.findings.iter().take(MOST_FINDINGS) {
        output::tell(format_args!("warning: {finding}"));
    }
    if let more @ 1.. = one.findings.len().saturating_sub(MOST_FINDINGS) {
        output::tell(format_args!("warning: and {more} more; --json has all"));
    }
    Ok(())
}

fn class(class: &ClassSize) -> String {
    format!("{}, {}", count(class.objects, "object"), size(class.bytes))
}

fn ratios(one: &StoredBackups) -> Option<String> {
    let total = one.ratios.total?;
    let parts = match (one.ratios.deduplication, one.ratios.compression) {
        (Some(deduplication), Some(compression)) => {
            format!(
                "deduplication {deduplication:.2} : 1, compression {compression:.2} : 1, together "
            )
        }
        _ => "deduplication and compression together ".to_owned(),
    };
    Some(format!("{parts}{total:.2} : 1"))
}

fn print_growth(one: &StoredBackups) -> Result<(), Failure> {
    let unit = match one.growth_unit {
        GrowthUnit::Day => "DAY",
        GrowthUnit::Week => "WEEK OF",
        GrowthUnit::Month => "MONTH OF",
    };
    let row = |period: &GrowthPeriod| {
        vec![
            period.from.to_string(),
            period.snapshots.to_string(),
            size(period.new_bytes),
            known(period.stored_bytes),
        ]
    };
    let header = [unit, "SNAPSHOTS", "NEW", "STORED"];
    print_last(&header, &one.growth, MOST_PERIODS, row)
}

fn print_snapshots(one: &StoredBackups) -> Result<(), Failure> {
    let row = |snapshot: &SnapshotSizes| {
        vec![
            snapshot.stamp.to_string(),
            snapshot.sequence.to_string(),
            size(snapshot.bytes),
            size(snapshot.new_bytes),
            known(snapshot.unique_bytes),
        ]
    };
    if one.source == StatsSource::Catalog {
        // `list` shows the rest.
        return Ok(());
    }
    let header = ["SNAPSHOT", "SEQUENCE", "SIZE", "NEW", "UNIQUE"];
    print_last(&header, &one.snapshots, MOST_SNAPSHOTS, row)
}

/// Prints a table of the last rows, and how many there are before them.
fn print_last<T>(
    header: &[&str],
    all: &[T],
    most: usize,
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), Failure> {
    if all.is_empty() {
        return Ok(());
    }
    let before = all.len().saturating_sub(most);
    let rows: Vec<Vec<String>> = all[before..].iter().map(row).collect();
    output::write_stdout(output::table(header, &rows).as_bytes())?;
    if before > 0 {
        output::print_line(format_args!("and {before} before these; --json has all"))?;
    }
    Ok(())
}

fn known(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), size)
}
