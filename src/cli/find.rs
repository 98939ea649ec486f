//! `find`: files in many snapshots, by name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, count, printable};
use super::search_args::{SearchArgs, Searched};
use super::version_lines::{print_contents, size_of, span_json, with_target};
use crate::base::ids::Stamp;
use crate::base::local_time;
use crate::base::snapshot_choice::date;
use crate::browse::find::{FindRequest, FindResult};
use crate::browse::query::{FindQuery, KindFilter, SizeBound};
use crate::browse::row_counts::RowCondition;
use crate::browse::versions::{by_content, newest_only};
use crate::config::parse_size;

#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// Names, or paths from the top of a snapshot if they have a slash; globs as for `ls`:
    /// notes.txt, '*.jpg', 'photos/**/*.jpg'
    #[arg(value_name = "PATTERN", required_unless_present = "rows")]
    patterns: Vec<OsString>,
    /// Only the newest version of each path
    #[arg(long)]
    newest: bool,
    /// Show each content of a path once, with its hash
    #[arg(long, conflicts_with = "newest")]
    versions: bool,
    /// Only files (f), directories (d) or symbolic links (l)
    #[arg(long = "type", value_name = "f|d|l", value_parser = parse_kind)]
    kind: Option<KindFilter>,
    /// Only files larger than this (+10M), smaller (-10M), or of exactly this size
    #[arg(long, value_name = "[+-]SIZE", allow_hyphen_values = true, value_parser = parse_bound)]
    size: Option<SizeBound>,
    /// Only what was changed at this time or later: 2026-11-29, "3 days ago", a stamp
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    changed_since: Option<DateTime<Utc>>,
    /// Ignore upper and lower case
    #[arg(long)]
    ignore_case: bool,
    /// Show the snapshots in which a table of a database has such a number of rows, such as
    /// 'documents>1000'; patterns then choose databases
    #[arg(
        long,
        value_name = "TABLE>N",
        value_parser = RowCondition::parse,
        conflicts_with_all = ["newest", "versions", "kind", "size", "changed_since", "null"],
    )]
    rows: Option<RowCondition>,
    /// Print only paths, each once, with a zero byte behind each
    #[arg(short = '0', long = "null", conflicts_with = "json")]
    null: bool,
    #[command(flatten)]
    search: SearchArgs,
}

fn parse_kind(text: &str) -> Result<KindFilter, String> {
    match text {
        "f" => Ok(KindFilter::File),
        "d" => Ok(KindFilter::Dir),
        "l" => Ok(KindFilter::Link),
        _ => Err("f, d or l is needed".to_owned()),
    }
}

fn parse_bound(text: &str) -> Result<SizeBound, String> {
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(size), _) => parse_size(size).map(SizeBound::Above),
        (_, Some(size)) => parse_size(size).map(SizeBound::Below),
        _ => parse_size(text).map(SizeBound::Exactly),
    }
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(stamp) = text.parse::<Stamp>() {
        return Ok(stamp.time());
    }
    let span = date::parse(text, &local_time::now()).map_err(|error| error.to_string())?;
    let span = span.ok_or("a time is needed: 2026-11-29, \"3 days ago\", or a stamp")?;
    Ok(span.begin)
}

pub(super) fn run(context: &Context, args: &FindArgs) -> Result<Outcome, Failure> {
    let patterns = args.patterns.iter().map(|pattern| pattern.as_bytes());
    let since = args.changed_since.map(|time| {
        i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos())
    });
    let mut query = FindQuery::new(patterns, args.ignore_case);
    (query.kind, query.size, query.changed_since_ns) = (args.kind, args.size, since);
    let request = FindRequest {
        query,
        rows: args.rows.clone(),
    };
    let mut searched = args.search.search(context, request)?;
    let found = &mut searched.found;
    if args.rows.is_some() {
        found.versions = Vec::new();
    }
    let spans = std::mem::take(&mut found.versions);
    found.versions = match (args.newest, args.versions) {
        (true, _) => newest_only(spans),
        (_, true) => by_content(spans),
        _ => spans,
    };
    let found = &searched.found;
    if context.json {
        output::print_json(&report(&searched, args.rows.is_some()))?;
    } else if args.null {
        print_null(found)?;
    } else if args.rows.is_some() {
        print_rows(found)?;
    } else if args.versions {
        print_contents(found)?;
    } else {
        print(found)?;
    }
    if found.versions.is_empty() && found.rows.is_empty() {
        context.note(format_args!(
            "nothing found in {}",
            count(searched.count(), "snapshot")
        ));
    }
    Ok(searched.outcome())
}

fn report(searched: &Searched, has_rows: bool) -> Value {
    let found = &searched.found;
    let rows = found.rows.iter().map(|row| {
        let snapshot = &found.snapshots[row.snapshot as usize];
        json!({
            "stamp": snapshot.stamp, "sequence": snapshot.sequence,
            "database": row.database, "table": row.table, "rows": row.rows,
        })
    });
    let versions = found.versions.iter();
    let versions = versions.map(|span| span_json(span, &found.snapshots));
    json!({
        "versions": versions.collect::<Vec<Value>>(),
        "rows": has_rows.then(|| rows.collect::<Vec<Value>>()),
        "snapshots": searched.count(),
        "compared": found.compared,
        "unseen": searched.unseen_json(),
        "findings": searched.findings,
    })
}

fn print(found: &FindResult) -> Result<(), Failure> {
    if found.versions.is_empty() {
        return Ok(());
    }
    let name = |position: u32| found.snapshots[position as usize].stamp;
    let header = ["SIZE", "MODIFIED (UTC)", "FIRST", "LAST", "IN"];
    output::print_entry(line(header.map(str::to_owned), "PATH"))?;
    for span in &found.versions {
        let version = &span.version;
        let columns = [
            size_of(version),
            minute(version.mtime_ns),
            name(span.first).to_string(),
            name(span.last).to_string(),
            span.count.to_string(),
        ];
        output::print_entry(line(columns, &with_target(version)))?;
    }
    Ok(())
}

fn line([size, modified, first, last, count]: [String; 5], path: &str) -> String {
    format!("{size:>8}  {modified:<16}  {first:<16}  {last:<16}  {count:>3}  {path}")
}

/// Returns a time to the minute, UTC.
fn minute(mtime_ns: i128) -> String {
    let seconds = i64::try_from(mtime_ns.div_euclid(1_000_000_000)).ok();
    let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(
        || "beyond calendars".to_owned(),
        |time| time.format("%Y-%m-%d %H:%M").to_string(),
    )
}

fn print_null(found: &FindResult) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut last: Option<&[u8]> = None;
    for span in &found.versions {
        let path = span.version.path.as_slice();
        if last != Some(path) {
            text.extend_from_slice(path);
            text.push(0);
        }
        last = Some(path);
    }
    Ok(output::write_stdout(&text)?)
}

fn print_rows(found: &FindResult) -> Result<(), Failure> {
    if found.rows.is_empty() {
        return Ok(());
    }
    let rows = found.rows.iter().map(|row| {
        let snapshot = &found.snapshots[row.snapshot as usize];
        vec![
            snapshot.stamp.to_string(),
            snapshot.sequence.to_string(),
            row.rows.to_string(),
            printable(row.table.as_bytes()),
            printable(row.database.as_bytes()),
        ]
    });
    let header = ["SNAPSHOT", "SEQUENCE", "ROWS", "TABLE", "DATABASE"];
    let rows: Vec<Vec<String>> = rows.collect();
    Ok(output::write_stdout(
        output::table(&header, &rows).as_bytes(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_short_path_has_80_columns() {
        let columns = [
            "9.99 MB",
            "2026-04-06 12:00",
            "20260407T060000Z",
            "20260407T060000Z",
            "365",
        ];
        let line = line(columns.map(str::to_owned), "a/notes.txt");
        assert_eq!(line.chars().count(), 80);
    }

    #[test]
    fn sizes_have_a_sign_or_are_exact() {
        assert_eq!(parse_bound("+10M"), Ok(SizeBound::Above(10 << 20)));
        assert_eq!(parse_bound("-1kB"), Ok(SizeBound::Below(1000)));
        assert_eq!(parse_bound("0"), Ok(SizeBound::Exactly(0)));
        assert!(parse_bound("+").is_err() && parse_bound("big").is_err());
        assert!(parse_kind("x").is_err());
    }
}
