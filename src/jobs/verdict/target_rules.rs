//! Findings about targets.
//!
//! A target that is away has one finding about that, the worst of three: its newest snapshot is
//! late (`target_stale`), it lacks a snapshot (`target_behind`), or it was not looked at
//! (`target_unknown`). If the whole host is late, `snapshot_stale` says so once for all targets.

use chrono::{DateTime, TimeDelta, Utc};

use super::observed::{Observed, ObservedProblem, ObservedSnapshot, ObservedTarget, TargetReach};
use super::raised::Raised;
use super::words::{every, first_of, joined, moment, span};
use super::{FindingCode, NewestPublished, Severity};
use crate::base::units::count;
use crate::keys::recipients::short;

/// Intervals without a snapshot after which a target is red.
const MOST_INTERVALS: i32 = 3;
/// For how long a look counts on a host without a schedule.
const LOOK_COUNTS: TimeDelta = TimeDelta::days(7);
/// Most problems of one code that a finding names.
const MOST_PROBLEMS: usize = 3;
/// The codes of problems with what a target stores.
const PROBLEMS: [FindingCode; 4] = [
    FindingCode::Chain,
    FindingCode::Fork,
    FindingCode::LostArchives,
    FindingCode::ForeignManifest,
];

/// Returns the findings about targets; `newest`: the newest snapshot on any of them.
pub(super) fn all(observed: &Observed, newest: Option<&NewestPublished>) -> Vec<Raised> {
    let mut raised = Vec::new();
    raised.extend(match newest {
        None => Some(never(observed)),
        Some(newest) => snapshot_stale(observed, newest),
    });
    let host_is_late = newest.is_some() && !raised.is_empty();
    for target in &observed.targets {
        let is_newest = newest.is_some_and(|newest| {
            let sequence = target.newest.map(|newest| newest.sequence);
            sequence == Some(newest.sequence)
        });
        if !is_excused(target, observed.now) {
            let is_covered = newest.is_none() || (host_is_late && is_newest);
            raised.extend(absence(observed, target, is_covered));
        }
        raised.extend(PROBLEMS.iter().filter_map(|code| problems(target, *code)));
        raised.extend(verify_overdue(observed, target));
    }
    raised.extend(partial_recipients(observed));
    raised
}

/// Whether the target may be away: its newest snapshot is not older than `max_age`.
fn is_excused(target: &ObservedTarget, now: DateTime<Utc>) -> bool {
    let newest = target.newest.map(|newest| newest.stamp.time());
    newest
        .zip(target.max_age)
        .is_some_and(|(made, most)| now - made <= most)
}

fn never(observed: &Observed) -> Raised {
    let (text, next) = match observed.targets.is_empty() {
        true => (
            "no target is configured, so nothing is backed up off this host",
            "sealift target add",
        ),
        false => ("nothing was ever backed up to a target", "sealift backup"),
    };
    let code = FindingCode::NeverBackedUp;
    Raised::new(code, Severity::Red, text).next(next)
}

fn snapshot_stale(observed: &Observed, newest: &NewestPublished) -> Option<Raised> {
    let mut all = observed.targets.iter().filter_map(|target| target.newest);
    let snapshot = all.find(|one| one.sequence == newest.sequence)?;
    let due = snapshot.due?;
    if observed.now <= due + observed.schedule.grace {
        return None;
    }
    let old = span(TimeDelta::seconds(newest.age_seconds));
    let text = format!(
        "the newest snapshot is {old} old; the next snapshot was due by {}",
        moment(due)
    );
    let raised = Raised::new(FindingCode::SnapshotStale, Severity::Red, text)
        .since(Some(due))
        .brief(format!(
            "no backup for {old}{}",
            due_every(observed, &snapshot)
        ))
        .next("does the schedule run here? `sealift backup` makes one now");
    Some(raised)
}

fn due_every(observed: &Observed, newest: &ObservedSnapshot) -> String {
    let interval = interval(observed, newest);
    interval.map_or_else(String::new, |interval| {
        format!(" (due {})", every(interval))
    })
}

/// Returns the time between two backups: as scheduled here, or else as the snapshot promised.
fn interval(observed: &Observed, newest: &ObservedSnapshot) -> Option<TimeDelta> {
    let promised = newest.due.map(|due| due - newest.stamp.time());
    observed.schedule.interval.or(promised)
}

/// Returns the finding that the target is away or lags; `is_covered`: a finding about the whole
/// host says that its snapshot is late.
fn absence(observed: &Observed, target: &ObservedTarget, is_covered: bool) -> Option<Raised> {
    let stale = match &target.newest {
        Some(newest) if !is_covered => stale(observed, target, newest),
        None if !is_covered && target.waiting.is_none() => Some(empty(target)),
        _ => None,
    };
    stale
        .or_else(|| behind(target))
        .or_else(|| unknown(observed, target, is_covered))
        .map(|raised| raised.about_target(&target.name))
}

fn stale(
    observed: &Observed,
    target: &ObservedTarget,
    newest: &ObservedSnapshot,
) -> Option<Raised> {
    let made = newest.stamp.time();
    let grace = observed.schedule.grace;
    let late = newest.due.map(|due| due + grace);
    let red = match target.max_age {
        Some(most) => Some(made + most),
        None => newest
            .due
            .and_then(|_| interval(observed, newest))
            .map(|interval| made + interval * MOST_INTERVALS + grace),
    };
    let is_red = red.is_some_and(|red| observed.now > red);
    let is_late = target.max_age.is_none() && late.is_some_and(|late| observed.now > late);
    let (severity, since) = match (is_red, is_late) {
        (true, _) => (
            Severity::Red,
            newest.due.filter(|_| target.max_age.is_none()).or(red),
        ),
        (false, true) => (Severity::Amber, newest.due),
        (false, false) => return None,
    };
    let (name, old) = (&target.name, span(observed.now - made));
    let due = match newest.due {
        Some(due) => format!("; the next snapshot was due by {}", moment(due)),
        None => String::new(),
    };
    let text = format!(
        "the newest snapshot on {name} is {old} old{due}{}{}",
        cause(target),
        remembered(target)
    );
    let raised = Raised::new(FindingCode::TargetStale, severity, text)
        .since(since)
        .became_red(red.filter(|_| is_red))
        .brief(format!(
            "{name} has had no backup for {old}{}",
            due_every(observed, newest)
        ))
        .next(format!("is {name} switched on? The next backup catches up"));
    Some(raised)
}

/// Returns why the target is away, if that is known.
fn cause(target: &ObservedTarget) -> String {
    let failing = target.failing.as_ref().map(|failing| &failing.error);
    let waiting = target
        .waiting
        .as_ref()
        .and_then(|waiting| waiting.cause.as_ref());
    failing
        .or(waiting)
        .map_or_else(String::new, |cause| format!(": {cause}"))
}

fn remembered(target: &ObservedTarget) -> &'static str {
    match target.access {
        TargetReach::Readable => "",
        TargetReach::WriteOnly => ", as this host remembers",
    }
}

fn empty(target: &ObservedTarget) -> Raised {
    let text = format!("no snapshot is on {}{}", target.name, cause(target));
    Raised::new(FindingCode::TargetStale, Severity::Amber, text).next("sealift backup")
}

fn behind(target: &ObservedTarget) -> Option<Raised> {
    let waiting = target.waiting.as_ref()?;
    let snapshots = count(waiting.snapshots, "snapshot");
    let name = &target.name;
    let text = format!(
        "{name} is {snapshots} behind{}{}",
        cause(target),
        remembered(target)
    );
    let raised = Raised::new(FindingCode::TargetBehind, Severity::Amber, text)
        .since(Some(waiting.since))
        .brief(format!("{name} is {snapshots} behind"))
        .next(match waiting.snapshots {
            1 => "the next backup sends it",
            _ => "the next backup sends them",
        });
    Some(raised)
}

fn unknown(observed: &Observed, target: &ObservedTarget, is_covered: bool) -> Option<Raised> {
    if target.access == TargetReach::WriteOnly {
        return None;
    }
    let name = &target.name;
    let raised = |text: String, since| {
        Raised::new(FindingCode::TargetUnknown, Severity::Amber, text)
            .since(since)
            .next(format!("sealift status --target {name}"))
    };
    if let Some(failing) = &target.failing {
        let text = format!("{name} cannot be looked at: {}", failing.error);
        let brief = format!("{name} cannot be looked at");
        return Some(raised(text, Some(failing.since)).brief(brief));
    }
    let Some(looked_at) = target.looked_at else {
        // Before the first backup there is nothing to look at.
        let is_new = is_covered && target.newest.is_none();
        return (!is_new).then(|| raised(format!("{name} was never looked at"), None));
    };
    let interval = target
        .newest
        .as_ref()
        .and_then(|newest| interval(observed, newest));
    let interval = observed.schedule.interval.or(interval);
    let counts = interval.map_or(LOOK_COUNTS, |interval| interval + observed.schedule.grace);
    let ends = looked_at + counts;
    let ago = span(observed.now - looked_at);
    (observed.now > ends).then(|| raised(format!("{name} was not looked at for {ago}"), Some(ends)))
}

/// Returns the finding about the target's problems of this code.
fn problems(target: &ObservedTarget, code: FindingCode) -> Option<Raised> {
    let problems = target
        .problems
        .iter()
        .filter(|problem| problem.code == code);
    let problems: Vec<&ObservedProblem> = problems.collect();
    let first = problems.first()?;
    let name = &target.name;
    let texts: Vec<&str> = problems
        .iter()
        .map(|problem| problem.text.as_str())
        .collect();
    let brief = match code {
        FindingCode::Fork => format!("two machines push to {name} as this host"),
        FindingCode::LostArchives => format!("archives on {name} are missing or damaged"),
        FindingCode::ForeignManifest => format!("an unknown key signed snapshots on {name}"),
        _ => format!("the history on {name} is not sound"),
    };
    let text = format!("on {name}: {}", first_of(&texts, MOST_PROBLEMS));
    let raised = Raised::new(code, Severity::Red, text)
        .about_target(name)
        .identity(texts.join("\n"))
        .brief(brief)
        .next(first.next.clone());
    Some(raised)
}

fn verify_overdue(observed: &Observed, target: &ObservedTarget) -> Option<Raised> {
    let most = observed.verify_max_age?;
    target.newest?;
    if target.access == TargetReach::WriteOnly {
        return None;
    }
    let ends = target.read_since.map(|since| since + most);
    if ends.is_some_and(|ends| observed.now <= ends) {
        return None;
    }
    let name = &target.name;
    let text = format!(
        "not every archive on {name} was read back within {}",
        span(most)
    );
    let raised = Raised::new(FindingCode::VerifyOverdue, Severity::Amber, text)
        .about_target(name)
        .since(ends)
        .next(format!("sealift verify --data=10% --target {name}"));
    Some(raised)
}

fn partial_recipients(observed: &Observed) -> Option<Raised> {
    // Those that lack the newest snapshot have another one.
    let newest = observed.targets.iter().filter_map(|target| target.newest);
    let newest = newest.map(|newest| newest.sequence).max();
    let targets = observed.targets.iter();
    let targets = targets.filter(|target| target.newest.map(|one| one.sequence) == newest);
    let all = targets.flat_map(|target| target.partial_recipients.iter());
    let mut all: Vec<&str> = all.map(String::as_str).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return None;
    }
    let names: Vec<String> = all.iter().map(|recipient| short(recipient)).collect();
    let names = joined(names.iter().map(String::as_str));
    let open = if all.len() == 1 { "opens" } else { "open" };
    let text = format!("{names} {open} the newest snapshot only in part");
    let raised = Raised::new(FindingCode::PartialRecipient, Severity::Amber, text)
        .identity(all.join("\n"))
        .next("the next backups pack the rest again for all recipients");
    Some(raised)
}
