//! `status --from URL`: every host that pushes to one place, as the place itself shows them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::target_args::{self, Side};
use super::{Context, output};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{HostName, Stamp};
use crate::base::panics::caught;
use crate::format::signature::Trust;
use crate::repository::{self, HostFolder, RepositoryError};

/// Hosts looked at at once.
const AT_ONCE: usize = 4;

/// One host, as its folder shows it.
struct Member {
    host: HostName,
    snapshots: usize,
    newest: Option<Newest>,
    /// Bytes of its archives.
    stored_bytes: u64,
    problems: Vec<String>,
}

struct Newest {
    stamp: Stamp,
    sequence: u64,
    age: chrono::Duration,
    /// Of its files.
    bytes: u64,
    signer: String,
    next_by: Option<DateTime<Utc>>,
}

pub fn run(context: &Context, side: &Side<'_>, signer: Option<&str>) -> Result<Outcome, Failure> {
    let target = side.open_for_reading(context)?;
    let trust = match signer {
        Some(text) => target_args::trust_of(text)?,
        None => Trust::FirstSeen,
    };
    let runtime = target_args::runtime()?;
    let hosts = runtime.block_on(repository::hosts(&target))?;
    if hosts.is_empty() {
        let text = format!("no host's backups are on {}", target.label());
        return Err(Failure::from_error(text)
            .hint("check the URL: it is the folder that holds the hosts' folders"));
    }
    let now = clock::now();
    let looks = hosts.into_iter().map(|host| {
        let folder = HostFolder::new(target.clone(), host);
        look(folder, &trust, now)
    });
    let looks = futures::stream::iter(looks).buffered(AT_ONCE);
    let members: Vec<Member> = runtime.block_on(looks.collect());
    match context.json {
        true => print_json(target.label(), &members)?,
        false => print(target.label(), &members)?,
    }
    Ok(
        match members.iter().all(|member| member.problems.is_empty()) {
            true => Outcome::Complete,
            false => Outcome::Partial,
        },
    )
}

async fn look(folder: HostFolder, trust: &Trust, now: DateTime<Utc>) -> Member {
    let mut member = Member {
        host: folder.host.clone(),
        snapshots: 0,
        newest: None,
        stored_bytes: 0,
        problems: Vec::new(),
    };
    match caught(examine(&folder, trust, now, &mut member)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => member.problems.push(with_causes(&error)),
        Err(panicked) => member.problems.push(panicked.to_string()),
    }
    member
}

async fn examine(
    folder: &HostFolder,
    trust: &Trust,
    now: DateTime<Utc>,
    member: &mut Member,
) -> Result<(), RepositoryError> {
    let chain = folder.chain(trust).await?;
    member.snapshots = chain.snapshots.len();
    let findings = chain.findings.iter().map(ToString::to_string);
    member.problems.extend(findings);
    let present = folder.archives_present().await?;
    member.stored_bytes = present.values().sum();
    let Some(newest) = chain.snapshots.last() else {
        return Ok(());
    };
    let core = &newest.manifest.core;
    if let Some(due) = core.next_by.filter(|due| *due < now) {
        let due = due.format("%Y-%m-%d %H:%M");
        let text = format!("STALE: the next snapshot was due by {due} UTC");
        member.problems.push(text);
    }
    member.newest = Some(Newest {
        stamp: core.stamp,
        sequence: core.sequence,
        age: now - core.stamp.time(),
        bytes: core.totals.bytes,
        signer: newest.signer.clone(),
        next_by: core.next_by,
    });
    let table = folder.table(&newest.manifest).await?;
    let rows = table.rows.values();
    let missing = rows.filter(|row| present.get(&row.blake3) != Some(&row.bytes));
    match missing.count() {
        0 => {}
        n => member.problems.push(format!(
            "{} of the newest snapshot missing or cut short",
            output::count(n as u64, "archive")
        )),
    }
    Ok(())
}

fn print(label: &str, members: &[Member]) -> Result<(), Failure> {
    output::print_line(label)?;
    let header = [
        "HOST",
        "NEWEST",
        "AGE",
        "SEQUENCE",
        "SNAPSHOTS",
        "SIZE",
        "STORED",
        "STATE",
    ];
    let rows: Vec<Vec<String>> = members.iter().map(row).collect();
    output::write_stdout(output::table(&header, &rows).as_bytes())?;
    for member in members {
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
    let told = |tell: fn(&Newest) -> String| newest.map_or("-".to_owned(), tell);
    vec![
        member.host.to_string(),
        told(|newest| newest.stamp.to_string()),
        told(|newest| age(newest.age)),
        told(|newest| newest.sequence.to_string()),
        member.snapshots.to_string(),
        told(|newest| output::size(newest.bytes)),
        output::size(member.stored_bytes),
        state.to_owned(),
    ]
}

fn age(age: chrono::Duration) -> String {
    match u64::try_from(age.num_seconds()) {
        Ok(seconds) => output::duration(Duration::from_secs(seconds)),
        Err(_) => "in the future".to_owned(),
    }
}

fn print_json(label: &str, members: &[Member]) -> Result<(), Failure> {
    let hosts: Vec<_> = members
        .iter()
        .map(|member| {
            let newest = member.newest.as_ref().map(|newest| {
                json!({
                    "stamp": newest.stamp, "sequence": newest.sequence,
                    "age_seconds": newest.age.num_seconds(), "bytes": newest.bytes,
                    "signer": newest.signer, "next_by": newest.next_by,
                })
            });
            json!({
                "host": member.host, "snapshots": member.snapshots, "newest": newest,
                "stored_bytes": member.stored_bytes, "problems": member.problems,
            })
        })
        .collect();
    Ok(output::print_json(
        &json!({ "target": label, "hosts": hosts }),
    )?)
}
