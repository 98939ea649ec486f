//! `versions`: each content that a path ever had.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::choose::snapshot_path;
use super::failure::{Failure, Outcome};
use super::output::{self, count, printable, shell_word};
use super::search_args::{SearchArgs, Searched};
use super::version_lines::{content_line, put_bytes, span_json};
use crate::browse::find::{FindRequest, FindResult};
use crate::browse::query::FindQuery;
use crate::browse::versions::{VersionKind, VersionSpan, by_content};

#[derive(Debug, Args)]
pub(super) struct VersionsArgs {
    /// The path of a file in the snapshots, as `ls` and `find` show it
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    search: SearchArgs,
}

pub(super) fn run(context: &Context, args: &VersionsArgs) -> Result<Outcome, Failure> {
    let path = snapshot_path(&args.path);
    let request = FindRequest {
        query: FindQuery::exactly(&path),
        rows: None,
    };
    let mut searched = args.search.search(context, request)?;
    let found = &mut searched.found;
    found.versions = by_content(std::mem::take(&mut found.versions));
    if context.json {
        output::print_json(&report(&searched, &path, args))?;
    }
    if searched.found.versions.is_empty() {
        let text = format!("no snapshot that was searched has {}", printable(&path));
        return Err(Failure::from_error(text)
            .hint("`sealift find NAME` finds it in all snapshots, wherever it is"));
    }
    if !context.json {
        print(&searched, &path, args)?;
    }
    Ok(searched.outcome())
}

fn report(searched: &Searched, path: &[u8], args: &VersionsArgs) -> Value {
    let found = &searched.found;
    let version = |span: &VersionSpan| {
        let mut value = span_json(span, &found.snapshots);
        value["command"] = json!(command("cat", found, span, args));
        if let Value::Object(members) = &mut value {
            members.retain(|name, _| !name.starts_with("path"));
        }
        value
    };
    let mut members = serde_json::Map::new();
    put_bytes(&mut members, "path", path);
    let versions: Vec<Value> = found.versions.iter().map(version).collect();
    members.insert("versions".to_owned(), json!(versions));
    members.insert("unseen".to_owned(), json!(searched.unseen_json()));
    members.insert("findings".to_owned(), json!(searched.findings));
    Value::Object(members)
}

/// Returns a command that gets the newest snapshot's copy of a version. `None`: it has no content.
fn command(
    verb: &str,
    found: &FindResult,
    span: &VersionSpan,
    args: &VersionsArgs,
) -> Option<String> {
    if span.version.kind != VersionKind::File {
        return None;
    }
    let stamp = found.snapshots[span.last as usize].stamp;
    let (path, place) = (shell_word(&args.path), args.search.place_words());
    Some(format!("sealift {verb} {stamp} {path}{place}"))
}

fn print(searched: &Searched, path: &[u8], args: &VersionsArgs) -> Result<(), Failure> {
    let found = &searched.found;
    output::print_line(format_args!(
        "{}: {} in {}",
        printable(path),
        count(found.versions.len() as u64, "version"),
        count(searched.count(), "snapshot"),
    ))?;
    for span in &found.versions {
        output::print_entry(content_line(found, span))?;
        if let Some(target) = &span.version.target {
            output::print_entry(format_args!("    -> {}", printable(target)))?;
        }
        if let Some(command) = command("cat", found, span, args) {
            output::print_entry(format_args!("    {command}"))?;
        }
    }
    let newest = found.versions.iter().max_by_key(|span| span.last);
    if let Some(command) = newest.and_then(|span| command("restore", found, span, args)) {
        output::print_line(format_args!("to restore one: {command} --to DIR"))?;
    }
    Ok(())
}
