//! `list --target` and `list --from`: the snapshots on a target.

use std::sync::Arc;

use super::super::Context;
use super::super::failure::{Failure, Outcome};
use super::super::key::prompt;
use super::super::output::{self, printable, size};
use super::{ListArgs, has_local_time, note_unknown_tags};
use crate::base::local_time;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::chain::Chain;
use crate::jobs::context::runtime;
use crate::jobs::list::remote::{RemoteListReport, RemoteListing, RemoteSnapshot};
use crate::restore::open::Identities;

/// Most findings that are shown: an attacker may plant thousands.
const MOST_FINDINGS: usize = 20;

pub(super) fn run(
    context: &Context,
    args: &ListArgs,
    choice: &SnapshotChoice,
) -> Result<Outcome, Failure> {
    let identities = match args.identity.as_slice() {
        [] => None,
        files => Some(Arc::new(Identities::load(files, &prompt())?)),
    };
    // Without --target this machine need not be the host, though it may have a configuration.
    let config = args.remote.target.is_some();
    let config = config.then(|| context.load_config()).transpose()?;
    if identities.is_none() && config.is_none() && !choice.tags().is_empty() {
        return Err(
            Failure::usage("the tags of snapshots on a target are encrypted")
                .hint("give the key holder's identity with --identity FILE"),
        );
    }
    let report = runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        tell_findings(&remote.chain);
        let host = &remote.folder.host;
        let listing = RemoteListing {
            folder: &remote.folder,
            chain: &remote.chain,
            identities: identities.as_ref(),
            config: config.as_ref().filter(|config| config.host == *host),
        };
        Ok::<_, Failure>(listing.run(choice, context).await?)
    })?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(context, choice, &report)?,
    }
    Ok(match report.findings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Prints the irregularities of a folder, and the next step for each kind that has one.
pub(in super::super) fn tell_findings(chain: &Chain) {
    let mut steps: Vec<&str> = Vec::new();
    for finding in chain.findings.iter().take(MOST_FINDINGS) {
        output::tell(format_args!("warning: {finding}"));
        steps.extend(finding.next());
    }
    if let more @ 1.. = chain.findings.len().saturating_sub(MOST_FINDINGS) {
        output::tell(format_args!("warning: and {more} more; --json has all"));
    }
    steps.dedup();
    for step in steps {
        output::tell(format_args!("  next: {step}"));
    }
}

fn print(
    context: &Context,
    choice: &SnapshotChoice,
    report: &RemoteListReport,
) -> Result<(), Failure> {
    if report.snapshots.is_empty() {
        context.note(format_args!("no snapshot is {choice}"));
    }
    let all = &report.snapshots;
    let columns = RemoteColumns {
        local_time: has_local_time(all.iter().map(|one| one.time)),
        pinned: all.iter().any(|one| one.pinned == Some(true)),
        about: all.iter().any(|one| one.tags.is_some()),
    };
    let rows: Vec<Vec<String>> = all.iter().map(|one| columns.row(one)).collect();
    let table = output::table(&columns.header(), &rows);
    output::write_stdout(table.as_bytes())?;
    note_unknown_tags(context, report.without_known_tags);
    Ok(())
}

/// The columns of the table that are not always there.
struct RemoteColumns {
    local_time: bool,
    pinned: bool,
    /// Tags and sources are known.
    about: bool,
}

impl RemoteColumns {
    fn header(&self) -> Vec<&'static str> {
        let mut header = vec!["STAMP"];
        header.extend(self.local_time.then_some("LOCAL TIME"));
        header.extend(["SEQUENCE", "FILES", "SIZE", "NEW", "MANIFEST"]);
        header.extend(self.pinned.then_some("KEPT"));
        if self.about {
            header.extend(["SOURCES", "TAGS"]);
        }
        header
    }

    fn row(&self, one: &RemoteSnapshot) -> Vec<String> {
        let mut row = vec![one.stamp.to_string()];
        if self.local_time {
            row.push(local_time::minute(one.time));
        }
        let hash16 = one.manifest.rsplit('-').next().unwrap_or_default();
        row.extend([
            one.sequence.to_string(),
            one.totals.files.to_string(),
            size(one.totals.bytes),
            size(one.totals.new_bytes),
            hash16.to_owned(),
        ]);
        if self.pinned {
            let pinned = one.pinned == Some(true);
            row.push(if pinned { "pinned" } else { "-" }.to_owned());
        }
        if self.about {
            let shown = |known: &Option<Vec<String>>, separator: &str| match known {
                Some(all) => printable(all.join(separator).as_bytes()),
                None => "?".to_owned(),
            };
            row.push(shown(&one.sources, ","));
            row.push(shown(&one.tags, " "));
        }
        row
    }
}
