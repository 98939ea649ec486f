//! `status --from URL`: every host that pushes to one target.

use std::time::Duration;

use super::failure::Failure;
use super::target_args::{self, Side};
use super::{Context, output, verdict};
use crate::base::progress::Stage;
use crate::jobs::context::FrontEnd as _;
use crate::jobs::signer_memory::RememberedPlace;
use crate::jobs::status::hosts::{self, HostsReport, Member, NewestSnapshot, WatcherLimits};
use crate::jobs::verdict::SAME_TIME_SECONDS;

/// Looks at the hosts on the target that `side` names.
pub(super) fn look(
    context: &Context,
    side: &Side<'_>,
    signer: Option<&str>,
    limits: WatcherLimits,
) -> Result<HostsReport, Failure> {
    let target = side.open_for_reading(context)?;
    let named = side.remote(context)?.and_then(|remote| remote.signer);
    let given = signer.or(named.as_deref());
    let given = given.map(target_args::trust_of).transpose()?;
    let remembered = RememberedPlace {
        memory: context.signers(),
        place: side.place(context)?,
    };
    context.stage(Stage::InspectingTargets, Some(target.label()));
    Ok(hosts::run(&target, given.as_ref(), &remembered, limits)?)
}

pub(super) fn print(report: &HostsReport) -> Result<(), Failure> {
    output::print_line(&report.target)?;
    let header = [
        "HOST", "NEWEST", "AGE", "SEQ", "COUNT", "SIZE", "STORED", "STATE",
    ];
    let rows: Vec<Vec<String>> = report.hosts.iter().map(row).collect();
    verdict::print_table(&header, &rows)?;
    for member in &report.hosts {
        for problem in &member.problems {
            output::print_line(format_args!("{}: {problem}", member.host))?;
        }
    }
    Ok(())
}

fn row(member: &Member) -> Vec<String> {
    let state = match member.problems.is_empty() {
        true => "ok",
        false => "ATTENTION",
    };
    let newest = member.newest.as_ref();
    let cell = |text: fn(&NewestSnapshot) -> String| newest.map_or("-".to_owned(), text);
    vec![
        member.host.to_string(),
        cell(|newest| newest.stamp.to_string()),
        cell(|newest| age(newest.age_seconds)),
        cell(|newest| newest.sequence.to_string()),
        member.snapshots.to_string(),
        cell(|newest| output::size(newest.bytes)),
        output::size(member.stored_bytes),
        state.to_owned(),
    ]
}

fn age(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => output::duration(Duration::from_secs(seconds)),
        Err(_) if seconds >= -SAME_TIME_SECONDS => "just now".to_owned(),
        Err(_) => "in the future".to_owned(),
    }
}
