//! What is new to one channel: a pure decision.

use chrono::{DateTime, Utc};

use crate::config::{NotifyChannel, NotifyEvent};
use crate::notify::ReportedFinding;
use crate::state::history::ChannelFinding;

/// How long a finding must last that is not the result of a run.
const HOLD: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// The findings that are the result of a run.
const OF_RUNS: [&str; 4] = ["run_failed", "run_partial", "shrunk", "backup_refused"];
/// The finding about channels.
const CHANNEL_FAILED: &str = "channel_failed";

/// When findings are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeTiming {
    /// Once they have lasted for as long as the channel says, and all of 30 seconds in one message.
    Settled,
    /// Now: this process ends, and there is no agent that would come back to them.
    AtOnce,
}

/// When the decision is made, and for whom.
pub(super) struct EdgeView<'a> {
    pub(super) channel: &'a NotifyChannel,
    /// The channel's last try failed.
    pub(super) is_failing: bool,
    pub(super) is_quiet: bool,
    pub(super) timing: EdgeTiming,
    pub(super) now: DateTime<Utc>,
}

/// What is reported now, and what the channel knows after that.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Edges {
    pub(super) new: Vec<ReportedFinding>,
    pub(super) resolved: Vec<ReportedFinding>,
    pub(super) lasting: Vec<ReportedFinding>,
    /// Ids of the messages that reported the begin of the resolved and the lasting ones.
    pub(super) threads: Vec<String>,
    /// What the channel knows then.
    pub(super) known: Vec<ChannelFinding>,
}

impl Edges {
    /// Returns whether there is nothing to report.
    pub(super) fn are_none(&self) -> bool {
        self.new.is_empty() && self.resolved.is_empty() && self.lasting.is_empty()
    }
}

/// Returns the number of a severity: 1 amber, 2 red.
pub(super) fn level_of(severity: &str) -> u8 {
    match severity {
        "red" => 2,
        "amber" => 1,
        _ => 0,
    }
}

/// Returns what identifies the finding while it lasts.
pub(super) fn key_of(finding: &ReportedFinding) -> String {
    serde_json::json!([finding.code, finding.target, finding.source]).to_string()
}

/// Compares the findings that are true now with what the channel knows. `id`: the id of the message
/// that will report the difference.
pub(super) fn plan(
    view: &EdgeView<'_>,
    known: Vec<ChannelFinding>,
    findings: &[ReportedFinding],
    id: &str,
) -> Edges {
    let mut planner = EdgePlanner {
        view,
        id,
        entries: known.into_iter().map(|known| (known, Edge::None)).collect(),
    };
    let wanted: Vec<&ReportedFinding> = findings
        .iter()
        .filter(|finding| planner.is_wanted(finding))
        .collect();
    for finding in &wanted {
        planner.see(finding);
    }
    planner.miss(&wanted);
    planner.finish()
}

/// What is to be reported of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    None,
    /// New, and not old enough to be reported unless a message is sent anyway.
    Held,
    New,
    Lasting,
    Resolved,
}

struct EdgePlanner<'a> {
    view: &'a EdgeView<'a>,
    id: &'a str,
    entries: Vec<(ChannelFinding, Edge)>,
}

impl EdgePlanner<'_> {
    fn wants(&self, event: NotifyEvent) -> bool {
        self.view.channel.events.contains(&event)
    }

    fn is_wanted(&self, finding: &ReportedFinding) -> bool {
        let is_of_interest = match level_of(&finding.severity) {
            2 => self.wants(NotifyEvent::Red),
            1 => self.wants(NotifyEvent::Amber),
            _ => false,
        };
        is_of_interest && !self.is_about_itself(finding)
    }

    /// Whether it says that the channel itself does not work, which the channel cannot report; or
    /// that some channel does not while this one does not either.
    fn is_about_itself(&self, finding: &ReportedFinding) -> bool {
        let name = Some(self.view.channel.name.as_str());
        let is_named = finding.target.as_deref() == name || finding.source.as_deref() == name;
        let key = key_of(finding);
        let mut entries = self.entries.iter();
        let is_reported = entries.any(|(known, _)| known.finding == key && known.reported > 0);
        finding.code == CHANNEL_FAILED && (is_named || self.view.is_failing) && !is_reported
    }

    /// Notes a finding that is true now.
    fn see(&mut self, finding: &ReportedFinding) {
        let now = self.view.now;
        let key = key_of(finding);
        let level = level_of(&finding.severity);
        let place = self
            .entries
            .iter()
            .position(|(known, _)| known.finding == key);
        let place = place.unwrap_or_else(|| {
            let entry = ChannelFinding {
                finding: key,
                seen_at: now,
                level: 0,
                reported: 0,
                reported_at: None,
                thread: None,
                content: String::new(),
            };
            self.entries.push((entry, Edge::None));
            self.entries.len() - 1
        });
        let edge = {
            let entry = &mut self.entries[place].0;
            if entry.level == 0 && entry.reported == 0 {
                entry.seen_at = now;
                entry.thread = None;
            }
            entry.level = level;
            // A struct of texts can always be written.
            entry.content = serde_json::to_string(finding).unwrap_or_default();
            edge_of(self.view, entry, finding)
        };
        self.entries[place].1 = edge;
    }

    /// Notes the findings that are true no more.
    fn miss(&mut self, wanted: &[&ReportedFinding]) {
        let keys: Vec<String> = wanted.iter().map(|finding| key_of(finding)).collect();
        let reports_end = self.wants(NotifyEvent::Recovered);
        for (entry, edge) in &mut self.entries {
            if keys.contains(&entry.finding) {
                continue;
            }
            entry.level = 0;
            match reports_end {
                true if entry.reported > 0 => *edge = Edge::Resolved,
                _ => entry.reported = 0,
            }
        }
    }

    fn finish(self) -> Edges {
        let view = self.view;
        let is_red = |(entry, edge): &(ChannelFinding, Edge)| match edge {
            Edge::New => entry.level == 2,
            Edge::Lasting => true,
            Edge::None | Edge::Held | Edge::Resolved => false,
        };
        // In quiet hours amber and recovered wait, unless a message is sent anyway.
        let is_sent = !view.is_quiet || self.entries.iter().any(is_red);
        let has_new = self.entries.iter().any(|(_, edge)| *edge == Edge::New);
        let mut edges = Edges::default();
        for (mut entry, edge) in self.entries {
            let edge = match edge {
                _ if !is_sent => Edge::None,
                Edge::Held if has_new => Edge::New,
                Edge::Held => Edge::None,
                edge => edge,
            };
            if edge != Edge::None {
                let finding = serde_json::from_str(&entry.content).ok();
                let list = match edge {
                    Edge::Resolved => &mut edges.resolved,
                    Edge::Lasting => &mut edges.lasting,
                    _ => &mut edges.new,
                };
                list.extend(finding);
                edges.threads.extend(entry.thread.clone());
                entry.reported = entry.level;
                match edge {
                    Edge::Resolved => entry.thread = None,
                    _ => {
                        entry.reported_at = Some(view.now);
                        entry.thread.get_or_insert_with(|| self.id.to_owned());
                    }
                }
            }
            if entry.level > 0 || entry.reported > 0 || !has_passed(view, &entry) {
                edges.known.push(entry);
            }
        }
        for list in [&mut edges.new, &mut edges.resolved, &mut edges.lasting] {
            list.sort_by_key(|one| std::cmp::Reverse(level_of(&one.severity)));
        }
        edges.threads.sort();
        edges.threads.dedup();
        edges
    }
}

/// Whether the least time since the last report of the finding has passed.
fn has_passed(view: &EdgeView<'_>, entry: &ChannelFinding) -> bool {
    let since = entry.reported_at.map(|at| age(view.now, at));
    since.is_none_or(|age| age >= view.channel.min_interval)
}

/// Returns the time from `at` to `now`. A time in the future counts as long ago: the clock was set
/// back.
fn age(now: DateTime<Utc>, at: DateTime<Utc>) -> std::time::Duration {
    (now - at).to_std().unwrap_or(std::time::Duration::MAX)
}

fn edge_of(view: &EdgeView<'_>, entry: &ChannelFinding, finding: &ReportedFinding) -> Edge {
    let got_worse = entry.reported > 0 && entry.level > entry.reported;
    if got_worse {
        return Edge::New;
    }
    if entry.level != entry.reported {
        let is_held = entry.reported == 0 && !has_lasted(view, entry, finding);
        return match (has_passed(view, entry), is_held) {
            (true, false) => Edge::New,
            (true, true) => Edge::Held,
            (false, _) => Edge::None,
        };
    }
    let repeat = view.channel.repeat.filter(|_| entry.level == 2);
    let reported_at = entry.reported_at.unwrap_or(entry.seen_at);
    match repeat.is_some_and(|repeat| age(view.now, reported_at) >= repeat) {
        true => Edge::Lasting,
        false => Edge::None,
    }
}

/// Whether the finding has been true for long enough to be reported.
fn has_lasted(view: &EdgeView<'_>, entry: &ChannelFinding, finding: &ReportedFinding) -> bool {
    if view.timing == EdgeTiming::AtOnce {
        return true;
    }
    let default = match OF_RUNS.contains(&finding.code.as_str()) {
        true => std::time::Duration::ZERO,
        false => HOLD,
    };
    let began = finding
        .since
        .map_or(entry.seen_at, |since| since.min(entry.seen_at));
    age(view.now, began) >= view.channel.hold.unwrap_or(default)
}
