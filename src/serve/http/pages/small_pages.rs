//! The pages of one run, one snapshot, one target, and of the proof.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::super::HttpParts;
use super::super::api::runs::read_log;
use super::super::api::snapshots::find as find_snapshot;
use super::super::call::HttpCall;
use super::super::problem::HttpProblem;
use super::super::views::runs::find as find_run;
use super::super::views::{status, targets};
use super::layout::{PageParts, age, outcome_mark, time};
use super::main_page::{kept, on_targets, read_back, segment};
use crate::base::units::size;

/// Bytes of a log's end on a page.
const LOG_BYTES: u64 = 16 << 10;
/// Receipts on the page of the proof.
const SHOWN_RECEIPTS: usize = 50;
/// Skipped paths on a page.
const SKIPPED: usize = 100;

/// The page of one run.
pub(in super::super) async fn run(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let (config, id) = (http.state().config, call.text().to_owned());
    let found = http.disk.run(move || {
        let run = find_run(&config, &id)?;
        let path = config.state.join("logs").join(format!("{id}.log"));
        let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let (log, _) = read_log(&config.state, &id, bytes.saturating_sub(LOG_BYTES))?;
        Ok((run, String::from_utf8_lossy(&log).into_owned()))
    });
    let (full, log) = found.await?;
    let (run, report) = (&full.run, full.report.unwrap_or_default());
    let page = PageParts { http, call };
    let is_running = run.outcome.is_none();
    let content = html! {
        h1 { (run.kind) " of " (time(run.started_at)) }
        p { (outcome_mark(run.outcome.as_deref()))
            @if let Some(end) = run.ended_at { " after " (age((end - run.started_at).num_seconds())) }
            ", begun by: " (run.trigger)
        }
        @if !run.message.is_empty() { p { (run.message) } }
        @if let Some(note) = &run.note { p { "Note: " (note) } }
        @if let Some(stamp) = &run.stamp {
            p { "Snapshot " a href=(call.link(&format!("/snapshots/{}", segment(stamp)))) { (stamp) } }
        }
        @if is_running && page.may_write() {
            p { a href=(call.link(&format!("/runs/{}/cancel", run.id))) { "Cancel\u{2026}" } }
        }
        (errors(&report))
        (targets_of(&report))
        (skipped(&report))
        h2 { "Log" }
        @if log.is_empty() { p { "There is no log." } } @else { pre tabindex="0" { (log) } }
    };
    Ok(page.page("Run", &content))
}

/// The page that asks whether a run is to be cancelled.
pub(in super::super) async fn cancel(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let (config, id) = (http.state().config, call.text().to_owned());
    let full = http.disk.run(move || find_run(&config, &id)).await?;
    let run = &full.run;
    let page = PageParts { http, call };
    let content = html! {
        h1 { "Cancel this " (run.kind) "?" }
        @if run.outcome.is_some() {
            p { "It has ended: " (outcome_mark(run.outcome.as_deref())) "." }
        } @else {
            p {
                "It began " (time(run.started_at)) ". What is on a target stays there, and what is in the spool \
                 is sent by the next backup."
            }
            @if page.may_write() {
                (page.form(&format!("/api/v1/runs/{}/cancel", run.id), "Cancel it", &[]))
            } @else {
                p { "Your token may not change anything." }
            }
        }
        p { a href=(call.link(&format!("/runs/{}", run.id))) { "Back to the run" } }
    };
    Ok(page.page("Cancel", &content))
}

fn members<'v>(report: &'v Value, name: &str) -> &'v [Value] {
    report[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn errors(report: &Value) -> Markup {
    let errors = members(report, "errors");
    html! {
        @if !errors.is_empty() {
            h2 { "Errors" }
            ul { @for error in errors { li {
                (text(error, "text"))
                @for cause in members(error, "causes") { ": " (cause.as_str().unwrap_or_default()) }
                @if let Some(next) = error["next"].as_str() { br; "Next: " (next) }
            } } }
        }
    }
}

fn targets_of(report: &Value) -> Markup {
    let targets = members(report, "targets");
    html! {
        @if !targets.is_empty() {
            h2 { "Targets" }
            ul { @for target in targets { li {
                strong { (text(target, "name")) } ": " (text(target, "state"))
                ", " (size(target["sent_bytes"].as_u64().unwrap_or_default())) " sent"
                @if let Some(error) = target["error"].as_str() { br; (error) }
            } } }
        }
    }
}

fn skipped(report: &Value) -> Markup {
    let skipped = members(report, "skipped");
    html! {
        @if !skipped.is_empty() {
            h2 { "Skipped (" (skipped.len()) ")" }
            ul { @for one in skipped.iter().take(SKIPPED) { li {
                (text(one, "path")) ": " (text(one, "reason"))
            } } }
        }
    }
}

/// The page of one snapshot.
pub(in super::super) async fn snapshot(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let one = find_snapshot(http, call.text().to_owned()).await?;
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "not known".to_owned(), size);
    let content = html! {
        h1 { "Snapshot " (one.stamp) @if let Some(sequence) = one.sequence { " #" (sequence) } }
        ul {
            li { "Size: " (bytes(one.bytes)) ", new: " (bytes(one.new_bytes)) ", stored: " (bytes(one.stored_bytes)) }
            li { "Targets: " (on_targets(&one)) }
            li { "Kept: " (kept(&one)) }
            li { @if one.pinned { "Pinned" @if let Some(note) = &one.pin_note { ": " (note) } } @else { "Not pinned" } }
            li { @if one.local { "Its directory is on this host" } @else { "It is not on this host any more" } }
            @if let Some(proof) = &one.proven { li { "Restored for proof by " (proof.by) " on " (time(proof.proven_at)) } }
        }
        h2 { "Commands" }
        pre tabindex="0" { "sealift ls " (one.stamp) "\nsealift restore " (one.stamp) " --to DIR" }
    };
    Ok(PageParts { http, call }.page("Snapshot", &content))
}

/// The page of one target.
pub(in super::super) async fn target(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let (config, name) = (http.state().config, call.text().to_owned());
    let one = http.disk.run(move || targets::find(&config, &name)).await?;
    let page = PageParts { http, call };
    let content = html! {
        h1 { "Target " (one.name) }
        ul {
            li { (one.url) @if one.write_only { " (write-only: this is what the host remembers)" } }
            li { "Newest: " @match &one.newest {
                Some(newest) => { (newest.stamp) " #" (newest.sequence) ", " (age(newest.age_seconds)) " old" },
                None => { "never" },
            } }
            li { "Behind: " (one.behind) }
            li { "Archives: " (one.archives) ", " (size(one.bytes)) }
            li { "Read back: " (read_back(&one)) }
            li { "Last look: " @match &one.look {
                Some(look) => { (time(look.at)) @if let Some(error) = &look.error { ": " (error) } },
                None => { "never" },
            } }
        }
        @if page.may_write() {
            (page.form(&format!("/api/v1/targets/{}/probe", segment(&one.name)), "Look now", &[]))
        }
        @if !one.errors.is_empty() {
            h2 { "Errors of the last 30 days" }
            ul { @for error in &one.errors { li {
                a href=(call.link(&format!("/runs/{}", error.run))) { (time(error.at)) } ": " (error.text)
            } } }
        }
    };
    Ok(page.page("Target", &content))
}

/// The page of the proof.
pub(in super::super) async fn proof(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let known = status::proof(http).await?;
    let content = html! {
        h1 { "Proof" }
        @match &known.newest {
            Some(proof) => p {
                "Snapshot #" (proof.sequence) " was restored from " (proof.target) " by " (proof.by) " on "
                (time(proof.proven_at)) ", " (size(proof.bytes)) " in " (proof.seconds) " s."
            },
            None => p { "No backup of this host was restored for proof." },
        }
        @if !known.receipts.is_empty() {
            table {
                caption { "Receipts, the newest first" }
                thead { tr {
                    th scope="col" { "Snapshot" }
                    th scope="col" { "Time" }
                    th scope="col" { "From" }
                    th scope="col" { "By" }
                    th scope="col" { "Result" }
                } }
                tbody { @for one in known.receipts.iter().take(SHOWN_RECEIPTS) { tr {
                    td { "#" (one.proven.sequence) }
                    td { (time(one.proven.proven_at)) }
                    td { (one.proven.target) }
                    td { (one.proven.by) }
                    td { (one.result.words()) }
                } } }
            }
        }
        h2 { "Keys" }
        ul { @for key in &known.keys { li {
            code { (key.recipient) } ": "
            @match key.alive_after {
                Some(at) => { "opened a snapshot of " (time(at)) },
                None => { "never proven" },
            }
        } } }
    };
    Ok(PageParts { http, call }.page("Proof", &content))
}
