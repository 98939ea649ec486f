//! The main page: verdict, findings, targets, snapshots, runs.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use maud::{Markup, html};

use super::super::HttpParts;
use super::super::api::snapshots::newest;
use super::super::call::HttpCall;
use super::super::problem::HttpProblem;
use super::super::views::runs::{RunView, list};
use super::super::views::snapshots::SnapshotView;
use super::super::views::status::{AgentStatusView, status};
use super::super::views::targets::{self, TargetDetail, TargetView};
use super::layout::{PageParts, age, outcome_mark, state_mark, time};
use crate::base::clock;
use crate::base::units::size;
use crate::jobs::verdict::VerdictFinding;
use crate::state::history::RunFilter;

/// Rows of the tables of snapshots and of runs.
const ROWS: usize = 20;

/// The main page.
pub(in super::super) async fn main(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let config = http.state().config;
    let now = status(http).await?;
    let tables = http.disk.run(move || {
        let filter = RunFilter {
            limit: Some(ROWS as u32),
            ..RunFilter::default()
        };
        Ok((
            targets::list(&config, TargetDetail::Brief)?,
            list(&config, &filter)?,
        ))
    });
    let (targets, runs) = tables.await?;
    let snapshots = newest(http, None, ROWS).await?;
    let page = PageParts { http, call };
    let content = html! {
        (verdict(&page, &now))
        (running(&page, &now))
        (findings(&page, &now.verdict.findings))
        (targets_table(&page, &targets))
        (proof(&now))
        (snapshots_table(&page, &snapshots))
        (runs_table(&page, &runs))
    };
    Ok(page.page("Status", &content))
}

fn verdict(page: &PageParts<'_>, now: &AgentStatusView) -> Markup {
    html! {
        h1 { (state_mark(now.verdict.state)) }
        p role="status" { (now.verdict.sentence) }
        @if let Some(until) = now.paused_until {
            p class="amber" { "Scheduled jobs are paused until " (time(until)) "." }
        }
        @if let Some(error) = &now.reload_error {
            p class="red" { "The configuration could not be read again: " (error) }
        }
        @for job in &now.schedule {
            @if let Some(next) = job.next {
                p class="muted" { "Next " (job.job) ": " (time(next)) }
            }
        }
        @if page.may_write() {
            (page.form("/api/v1/runs", "Back up now", &[("kind", "backup")]))
            (page.form("/api/v1/runs", "Verify now", &[("kind", "verify")]))
            @if now.paused_until.is_some() {
                (page.form("/api/v1/resume", "Resume", &[]))
            } @else {
                (page.form("/api/v1/pause", "Pause for a day", &[]))
            }
        }
    }
}

fn running(page: &PageParts<'_>, now: &AgentStatusView) -> Markup {
    let Some(run) = &now.running else {
        return html! {};
    };
    let kind = serde_json::json!(run.kind);
    html! {
        h2 { "Running" }
        p {
            a href=(page.call.link(&format!("/runs/{}", run.id))) { (kind.as_str().unwrap_or("run")) }
            " since " (time(run.started_at))
            @if let Some(stage) = &run.stage { ", " (stage) }
            @if let Some(subject) = &run.subject { " " (subject) }
        }
        @if page.may_write() {
            p { a href=(page.call.link(&format!("/runs/{}/cancel", run.id))) { "Cancel\u{2026}" } }
        }
    }
}

fn findings(page: &PageParts<'_>, findings: &[VerdictFinding]) -> Markup {
    if findings.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Attention (" (findings.len()) ")" }
        ul {
            @for finding in findings {
                li {
                    (state_mark(finding.severity)) ": "
                    @if let Some(name) = finding.target.as_ref().or(finding.source.as_ref()) { strong { (name) } " " }
                    (finding.text) "."
                    @if let Some(since) = finding.since { span class="muted" { " Since " (time(since)) "." } }
                    br;
                    "Next: " (finding.next)
                    @if page.may_write() { br; (silence(page, finding)) }
                }
            }
        }
    }
}

fn silence(page: &PageParts<'_>, finding: &VerdictFinding) -> Markup {
    let code = serde_json::json!(finding.code);
    let mut fields = vec![("code", code.as_str().unwrap_or_default())];
    fields.extend(finding.target.as_deref().map(|target| ("target", target)));
    fields.extend(finding.source.as_deref().map(|source| ("source", source)));
    page.form("/api/v1/ack", "Silence", &fields)
}

fn targets_table(page: &PageParts<'_>, targets: &[TargetView]) -> Markup {
    html! {
        h2 { "Targets" }
        table {
            caption { "As this host remembers them" }
            thead { tr {
                th scope="col" { "Target" } th scope="col" { "Newest" } th scope="col" { "Age" }
                th scope="col" { "Behind" } th scope="col" { "Stored" } th scope="col" { "Read back" }
            } }
            tbody { @for target in targets { tr {
                th scope="row" { a href=(page.call.link(&format!("/targets/{}", segment(&target.name)))) { (target.name) } }
                td data-label="Newest" { @match &target.newest {
                    Some(newest) => { (newest.stamp) " #" (newest.sequence) },
                    None => { "never" },
                } }
                td data-label="Age" { @if let Some(newest) = &target.newest { (age(newest.age_seconds)) } }
                td data-label="Behind" { (target.behind) }
                td data-label="Stored" { (size(target.bytes)) }
                td data-label="Read back" { (read_back(target)) }
            } } }
        }
    }
}

/// Returns how much of a target was read back, in words.
pub(super) fn read_back(target: &TargetView) -> String {
    let days = target.verify.read_within_days;
    match target.verify.share {
        Some(share) => format!("{:.0} % within {days} days", share * 100.0),
        None => "nothing is there".to_owned(),
    }
}

/// Returns `text` as a segment of a path.
pub(super) fn segment(text: &str) -> String {
    let bytes = text.bytes();
    let encoded = bytes.map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn proof(now: &AgentStatusView) -> Markup {
    let seconds = |at: chrono::DateTime<chrono::Utc>| (clock::now() - at).num_seconds();
    html! {
        h2 { "Proof" }
        @match &now.verdict.proof {
            Some(proof) => p {
                "Snapshot #" (proof.sequence) " was restored from " (proof.target) " by " (proof.by) " "
                (age(seconds(proof.proven_at))) " ago, " (size(proof.bytes)) " in " (proof.seconds) " s."
            },
            None => p { "No backup of this host was restored for proof." },
        }
    }
}

fn snapshots_table(page: &PageParts<'_>, snapshots: &[SnapshotView]) -> Markup {
    html! {
        h2 { "Snapshots" }
        table {
            caption { "The newest first" }
            thead { tr {
                th scope="col" { "Snapshot" } th scope="col" { "Size" } th scope="col" { "New" }
                th scope="col" { "Kept" } th scope="col" { "Targets" }
            } }
            tbody { @for one in snapshots { tr {
                th scope="row" { a href=(page.call.link(&format!("/snapshots/{}", id_of(one)))) {
                    (one.stamp) @if let Some(sequence) = one.sequence { " #" (sequence) }
                } }
                td data-label="Size" { @if let Some(bytes) = one.bytes { (size(bytes)) } }
                td data-label="New" { @if let Some(bytes) = one.new_bytes { (size(bytes)) } }
                td data-label="Kept" { (kept(one)) }
                td data-label="Targets" { (on_targets(one)) }
            } } }
        }
    }
}

/// Returns the name by which a page of the snapshot is found.
fn id_of(snapshot: &SnapshotView) -> String {
    let sequence = snapshot.sequence.map(|sequence| sequence.to_string());
    sequence.unwrap_or_else(|| snapshot.stamp.to_string())
}

/// Returns why a snapshot stays, in words.
pub(super) fn kept(snapshot: &SnapshotView) -> String {
    let rules = snapshot.keep.iter().map(|kept| match kept.until {
        Some(until) => format!("{} until {}", kept.rule, until.format("%F")),
        None => kept.rule.clone(),
    });
    rules.collect::<Vec<_>>().join(", ")
}

/// Returns where a snapshot is, in words.
pub(super) fn on_targets(snapshot: &SnapshotView) -> String {
    let states = snapshot.targets.iter();
    let states =
        states.map(|(name, state)| format!("{name}: {}", state.as_deref().unwrap_or("waits")));
    states.collect::<Vec<_>>().join(", ")
}

fn runs_table(page: &PageParts<'_>, runs: &[RunView]) -> Markup {
    html! {
        h2 { "Runs" }
        table {
            caption { "The newest first; /api/v1/runs has all" }
            thead { tr {
                th scope="col" { "Begin" } th scope="col" { "Kind" } th scope="col" { "Outcome" }
                th scope="col" { "Time" } th scope="col" { "Message" }
            } }
            tbody { @for run in runs { tr {
                th scope="row" { a href=(page.call.link(&format!("/runs/{}", run.id))) { (time(run.started_at)) } }
                td data-label="Kind" { (run.kind) }
                td data-label="Outcome" { (outcome_mark(run.outcome.as_deref())) }
                td data-label="Time" { @if let Some(end) = run.ended_at { (age((end - run.started_at).num_seconds())) } }
                td data-label="Message" { (run.message) }
            } } }
        }
    }
}
