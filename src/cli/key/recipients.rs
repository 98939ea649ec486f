//! `key recipients`: who opens which snapshots on a target.

use clap::Args;

use super::super::failure::{Failure, Outcome};
use super::super::output::{self, count, size};
use super::super::target_args::RemoteArgs;
use super::super::{Context, verdict};
use crate::jobs::context::runtime;
use crate::jobs::recipients::{self, Opens, RecipientReach, RecipientsReport};
use crate::keys::recipients::short;

#[derive(Debug, Args)]
pub(in crate::cli) struct RecipientsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(context: &Context, args: &RecipientsArgs) -> Result<Outcome, Failure> {
    let report = runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        let surveyed = recipients::survey(&remote.folder, &remote.chain).await;
        surveyed.map_err(Failure::from)
    })?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(&report)?,
    }
    let opens_latest = |one: &RecipientReach| !one.is_current || one.latest == Opens::Full;
    Ok(match report.recipients.iter().all(opens_latest) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(report: &RecipientsReport) -> Result<(), Failure> {
    output::print_line(format_args!(
        "{}, host {}: {}",
        report.target,
        report.host,
        count(report.snapshots, "snapshot")
    ))?;
    report.recipients.iter().try_for_each(print_reach)
}

fn print_reach(reach: &RecipientReach) -> Result<(), Failure> {
    let former = match reach.is_current {
        true => "",
        false => " (former)",
    };
    output::print_line(format_args!("{}{former}", short(&reach.recipient)))?;
    let latest = match reach.latest {
        Opens::Full => "the newest in full",
        Opens::Part => "the newest only in part",
        Opens::Nothing => "nothing of the newest",
    };
    let older = match reach.oldest {
        Some(oldest) => format!(
            "; {} in full, the oldest {}",
            count(reach.full_snapshots, "snapshot"),
            oldest.stamp
        ),
        None => "; no snapshot in full".to_owned(),
    };
    let part = match reach.part_snapshots {
        0 => String::new(),
        n => format!(", {n} in part"),
    };
    output::print_line(format_args!("  decrypts {latest}{older}{part}"))?;
    if reach.only_bytes > 0 {
        output::print_line(format_args!(
            "  {} that no other recipient decrypts",
            size(reach.only_bytes)
        ))?;
    }
    let next = match (reach.is_current, reach.latest) {
        (true, Opens::Full) | (false, Opens::Nothing) => None,
        (true, _) => Some("the next `sealift backup` encrypts the rest for it again".to_owned()),
        (false, _) => Some("`sealift backup --reseal` closes new snapshots to it".to_owned()),
    };
    let still = !reach.is_current && reach.full_snapshots + reach.part_snapshots > 0;
    let next = next.or_else(|| {
        still.then(|| {
            format!(
                "`sealift prune --sealed-to {}` shows what would go",
                output::shell_word(std::path::Path::new(&reach.recipient))
            )
        })
    });
    match next {
        Some(next) => Ok(verdict::print_line(format_args!("  next: {next}"))?),
        None => Ok(()),
    }
}
