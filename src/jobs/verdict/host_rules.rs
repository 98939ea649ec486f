//! Findings about this host: its sources, disks, clock, messages, and what the operator said.

use super::observed::{
    Observed, ObservedDisk, ObservedRestore, ObservedShrink, ObservedSpool, RestoreProcess,
};
use super::raised::Raised;
use super::words::{joined, moment};
use super::{FindingCode, NewestPublished, Severity};
use crate::base::units::size;
use crate::state::history::OperatorMark;

/// A stamp may be this far ahead of the clock: several snapshots within one second get such stamps,
/// and clocks differ.
pub(crate) const SAME_TIME_SECONDS: i64 = 600;
/// A disk with more free bytes than this is never low.
const NEVER_LOW: u64 = 10 << 30;

/// Returns the findings about this host; `newest`: the newest snapshot on any target.
pub(super) fn all(observed: &Observed, newest: Option<&NewestPublished>) -> Vec<Raised> {
    let mut raised: Vec<Raised> = observed.shrunk.iter().map(shrunk).collect();
    raised.extend(observed.restore_open.as_ref().map(restore));
    raised.extend(observed.spool.as_ref().and_then(spool_full));
    raised.extend(disk_low(&observed.disks));
    raised.extend(clock(observed, newest));
    raised.extend(observed.config_refused.as_ref().map(config_changed));
    raised.extend(paused(observed));
    raised.extend(channels(observed));
    raised
}

fn shrunk(one: &ObservedShrink) -> Raised {
    let brief = match one.source.as_str() {
        "" => "it is not known which sources shrank".to_owned(),
        source => format!("{source} lost most of its content"),
    };
    Raised::new(FindingCode::Shrunk, Severity::Red, one.text.clone())
        .about_source(&one.source)
        .since(one.since)
        .brief(brief)
        .next(one.next.clone())
}

fn restore(one: &ObservedRestore) -> Raised {
    let (severity, brief) = match one.process {
        RestoreProcess::Running => (Severity::Amber, "a restore in place is running"),
        RestoreProcess::Gone => (Severity::Red, "a restore in place was not finished"),
    };
    Raised::new(FindingCode::RestoreOpen, severity, one.text.clone())
        .brief(brief)
        .next(one.next.clone())
}

fn spool_full(spool: &ObservedSpool) -> Option<Raised> {
    let severity = match spool.bytes {
        bytes if bytes >= spool.limit => Severity::Red,
        bytes if bytes / 9 >= spool.limit / 10 => Severity::Amber,
        _ => return None,
    };
    let (bytes, limit) = (size(spool.bytes), size(spool.limit));
    let text = format!("the spool holds {bytes} of at most {limit} that targets still lack");
    let raised = Raised::new(FindingCode::SpoolFull, severity, text)
        .brief("the spool is full")
        .next("bring back the targets that are behind, or raise [spool] limit");
    Some(raised)
}

/// Returns the finding about the fullest disk.
fn disk_low(disks: &[ObservedDisk]) -> Option<Raised> {
    let low = disks.iter().filter_map(|disk| Some((lowness(disk)?, disk)));
    let (severity, disk) = low.max_by_key(|(severity, disk)| (*severity, u64::MAX - disk.free))?;
    let free = size(disk.free);
    let text = format!("only {free} are free at {}", disk.path);
    let raised = Raised::new(FindingCode::DiskLow, severity, text)
        .identity(disk.path.clone())
        .brief(format!("the disk at {} is nearly full", disk.path))
        .next("make room there (disk or quota)");
    Some(raised)
}

fn lowness(disk: &ObservedDisk) -> Option<Severity> {
    if disk.total == 0 || disk.free > NEVER_LOW {
        return None;
    }
    match disk.free {
        free if free < disk.total / 100 => Some(Severity::Red),
        free if free < disk.total / 20 => Some(Severity::Amber),
        _ => None,
    }
}

fn clock(observed: &Observed, newest: Option<&NewestPublished>) -> Option<Raised> {
    let raised = |text: String, since, identity: String| {
        Raised::new(FindingCode::Clock, Severity::Amber, text)
            .since(since)
            .identity(identity)
            .next("check the clock of this machine (`timedatectl`)")
    };
    let mark = observed.clock_set_back.as_ref();
    let is_over = |mark: &&OperatorMark| mark.until.is_some_and(|until| until <= observed.now);
    if let Some(mark) = mark.filter(|mark| !is_over(mark)) {
        let text = mark.note.as_deref();
        let text = text.unwrap_or("the clock of this machine went back");
        return Some(raised(text.to_owned(), Some(mark.made_at), String::new()));
    }
    let newest = newest.filter(|newest| newest.age_seconds < -SAME_TIME_SECONDS)?;
    let stamp = newest.stamp;
    let text = format!("the timestamp of the newest snapshot, {stamp}, is in the future");
    Some(raised(text, None, stamp.to_string()))
}

fn config_changed(mark: &OperatorMark) -> Raised {
    let note = mark
        .note
        .as_deref()
        .map_or_else(String::new, |note| format!(": {note}"));
    let text =
        format!("the configuration changed and cannot be used, so the earlier one stays{note}");
    Raised::new(FindingCode::ConfigChanged, Severity::Amber, text)
        .since(Some(mark.made_at))
        .brief("the changed configuration cannot be used")
        .next("sealift config check")
}

fn paused(observed: &Observed) -> Option<Raised> {
    let mark = observed.pause.as_ref()?;
    if mark.until.is_some_and(|until| until <= observed.now) {
        return None;
    }
    let until = mark
        .until
        .map_or_else(String::new, |until| format!(" until {}", moment(until)));
    let brief = format!("scheduled jobs are paused{until}");
    let note = mark
        .note
        .as_deref()
        .map_or_else(String::new, |note| format!(" ({note})"));
    let raised = Raised::new(
        FindingCode::Paused,
        Severity::Amber,
        format!("{brief}{note}"),
    )
    .since(Some(mark.made_at))
    .brief(brief)
    .next("sealift resume");
    Some(raised)
}

fn channels(observed: &Observed) -> Option<Raised> {
    let channels = &observed.channels;
    let failing = channels.iter().filter_map(|channel| {
        let failing = channel.failing.as_ref()?;
        Some((channel.name.as_str(), failing))
    });
    let failing: Vec<_> = failing.collect();
    let (first, failure) = failing.first()?;
    let names = joined(failing.iter().map(|(name, _)| *name));
    let severity = match failing.len() == channels.len() {
        true => Severity::Red,
        false => Severity::Amber,
    };
    let since = failing.iter().map(|(_, failure)| failure.since).min()?;
    let day = since.format("%-d %B");
    let text = format!(
        "no message has reached {names} since {day}: {}",
        failure.error
    );
    let raised = Raised::new(FindingCode::ChannelFailed, severity, text)
        .identity(names.clone())
        .brief(format!("no message reaches {names}"))
        .next(format!("sealift notify test {first}"));
    Some(raised)
}
