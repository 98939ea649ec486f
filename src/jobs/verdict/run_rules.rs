//! Findings about runs.

use chrono::TimeDelta;

use super::observed::{Observed, ObservedOpenRun, ObservedRun, RunEnding};
use super::raised::Raised;
use super::words::{moment, span};
use super::{FindingCode, Severity};

/// A run is overlong if it takes this many times as long as usual.
const USUAL_TIMES: i32 = 4;
/// A shorter run is never overlong.
const NEVER_OVERLONG: TimeDelta = TimeDelta::hours(1);
/// The command whose runs must end before the next one is due.
const BACKUP: &str = "backup";

pub(super) fn all(observed: &Observed) -> Vec<Raised> {
    let mut raised: Vec<Raised> = observed
        .last_backup
        .iter()
        .filter_map(last_finding)
        .collect();
    let open = observed.open_runs.iter();
    raised.extend(open.filter_map(|run| overlong(observed, run)));
    let refusal = observed.refusal.as_deref();
    raised.extend(refusal.map(|refusal| refused(refusal, observed.last_backup.as_ref())));
    raised
}

fn last_finding(run: &ObservedRun) -> Option<Raised> {
    let (code, severity, brief) = match run.ending {
        RunEnding::Complete | RunEnding::TargetsBehind => return None,
        RunEnding::Partial => (
            FindingCode::RunPartial,
            Severity::Amber,
            "the last backup lacks something",
        ),
        RunEnding::Failed => (
            FindingCode::RunFailed,
            Severity::Red,
            "the last backup failed",
        ),
        RunEnding::Interrupted => (
            FindingCode::RunFailed,
            Severity::Red,
            "the last backup was interrupted",
        ),
        RunEnding::Killed => (
            FindingCode::RunFailed,
            Severity::Red,
            "the last backup did not finish: it was killed, or the machine went down",
        ),
    };
    let colon = if run.message.is_empty() { "" } else { ": " };
    let next = match run.ending {
        RunEnding::Partial => "mend the cause; the next backup takes the rest",
        _ => "sealift backup",
    };
    let raised = Raised::new(code, severity, format!("{brief}{colon}{}", run.message))
        .since(run.since)
        .identity(run.message.clone())
        .brief(brief)
        .next(run.next.as_deref().unwrap_or(next));
    Some(raised)
}

fn overlong(observed: &Observed, run: &ObservedOpenRun) -> Option<Raised> {
    let took = observed.now - run.started_at;
    let usual = run
        .usual
        .map(|usual| (usual * USUAL_TIMES).max(NEVER_OVERLONG));
    let interval = observed.schedule.interval.filter(|_| run.kind == BACKUP);
    let severity = match (interval, usual) {
        (Some(interval), _) if took > interval => Severity::Red,
        (_, Some(usual)) if took > usual => Severity::Amber,
        _ => return None,
    };
    let kind = &run.kind;
    let usually = match run.usual {
        Some(usual) => format!("; it usually takes {}", span(usual)),
        None => String::new(),
    };
    let text = format!(
        "a run of {kind} goes on since {}{usually}",
        moment(run.started_at)
    );
    let raised = Raised::new(FindingCode::RunOverlong, severity, text)
        .since(Some(run.started_at))
        .became_red(interval.map(|interval| run.started_at + interval))
        .brief(format!("a run of {kind} goes on for {}", span(took)))
        .next(format!("sealift runs {}", run.id));
    // An amber one may be acknowledged before it turns red.
    Some(match severity {
        Severity::Red => raised,
        _ => raised.became_red(None),
    })
}

/// Returns the finding that the next backup would be refused; `last`: the last one.
fn refused(refusal: &str, last: Option<&ObservedRun>) -> Raised {
    let is_said = last.is_some_and(|run| last_finding(run).is_some() && run.message == refusal);
    let text = match is_said {
        true => "the next backup would be refused for the same reason".to_owned(),
        false => format!("the next backup would be refused: {refusal}"),
    };
    Raised::new(FindingCode::BackupRefused, Severity::Red, text)
        .identity(refusal)
        .brief("the next backup would be refused")
        .next("`sealift backup` prints the steps")
}
