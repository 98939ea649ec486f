//! A message as text.

use std::fmt::Write as _;

use super::item::{MessageRun, NotifyMessage, ReportedFinding};
use crate::config::NotifyEvent;

/// Returns the title: one line of ASCII.
pub(crate) fn title(message: &NotifyMessage) -> String {
    let run = message.run.as_ref().map_or("run", |run| run.kind.as_str());
    let what = match message.event {
        NotifyEvent::Red => "not safe".to_owned(),
        NotifyEvent::Amber => "needs attention".to_owned(),
        NotifyEvent::Recovered => match message.verdict.state.as_str() {
            "green" => "recovered".to_owned(),
            _ => "recovered in part".to_owned(),
        },
        NotifyEvent::Started => format!("{run} started"),
        NotifyEvent::Complete => format!("{run} complete"),
        NotifyEvent::Proof => "a restore was proven".to_owned(),
        NotifyEvent::Weekly => "weekly report".to_owned(),
        NotifyEvent::Test => "test message".to_owned(),
    };
    format!("sealift {}: {what}", message.host)
}

/// Returns the text: the verdict's sentence, then what the message reports.
pub(crate) fn body(message: &NotifyMessage) -> String {
    let mut text = format!("{}\n", message.verdict.sentence);
    for line in &message.lines {
        let _ = writeln!(text, "{line}");
    }
    if let Some(run) = &message.run {
        let _ = writeln!(text, "{}", line_of(run));
    }
    for (heading, findings) in sections(message) {
        let _ = write!(text, "\n{heading}:\n");
        for one in findings {
            let _ = writeln!(text, "- {}", one.text);
            if !one.next.is_empty() && heading != RESOLVED {
                let _ = writeln!(text, "  next: {}", one.next);
            }
        }
    }
    text
}

const RESOLVED: &str = "Ended";

/// Returns what the message reports, without empty sections.
pub(super) fn sections(message: &NotifyMessage) -> Vec<(&'static str, Vec<&ReportedFinding>)> {
    let is_named = |one: &&ReportedFinding| {
        let mut named = message.new.iter().chain(&message.lasting);
        !named.any(|named| {
            (&named.code, &named.target, &named.source) == (&one.code, &one.target, &one.source)
        })
    };
    let others = message.verdict.findings.iter().filter(is_named);
    let sections = [
        ("New", message.new.iter().collect::<Vec<_>>()),
        ("Still so", message.lasting.iter().collect()),
        (RESOLVED, message.resolved.iter().collect()),
        ("Also open", others.collect()),
    ];
    let sections = sections.into_iter();
    sections
        .filter(|(_, findings)| !findings.is_empty())
        .collect()
}

/// Returns the run in one line.
pub(super) fn line_of(run: &MessageRun) -> String {
    let mut line = format!("{} {}", run.kind, run.id);
    match (&run.outcome, run.exit_code) {
        (None, _) => line.push_str(" is under way"),
        (Some(outcome), Some(code)) => {
            let _ = write!(line, ": {outcome} (exit code {code})");
        }
        (Some(outcome), None) => {
            let _ = write!(line, ": {outcome}");
        }
    }
    if let Some(ended_at) = run.ended_at {
        let seconds = (ended_at - run.started_at).num_seconds().max(0);
        let _ = write!(line, ", {seconds} s");
    }
    if let Some(stamp) = &run.stamp {
        let _ = write!(line, ", snapshot {stamp}");
    }
    line
}

/// Returns the text as a minimal HTML page.
pub(super) fn html(message: &NotifyMessage) -> String {
    let mut html = format!(
        "<!doctype html><html><body><p><strong>{}</strong></p>",
        escaped(&message.verdict.sentence)
    );
    let run = message.run.as_ref().map(line_of);
    for line in message.lines.iter().chain(&run) {
        let _ = write!(html, "<p>{}</p>", escaped(line));
    }
    for (heading, findings) in sections(message) {
        let _ = write!(html, "<p>{heading}:</p><ul>");
        for one in findings {
            let _ = write!(html, "<li>{}", escaped(&one.text));
            if !one.next.is_empty() && heading != RESOLVED {
                let _ = write!(html, "<br>next: {}", escaped(&one.next));
            }
            html.push_str("</li>");
        }
        html.push_str("</ul>");
    }
    html.push_str("</body></html>\n");
    html
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
