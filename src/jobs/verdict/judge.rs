//! The function that makes the verdict. It is pure.

use chrono::{DateTime, Utc};

use super::observed::{Observed, ObservedTarget, SeenKey, TargetReach};
use super::raised::Raised;
use super::words::{age, joined};
use super::{
    FindingCode, KeyAlive, NewestPublished, Severity, Verdict, VerdictFinding, host_rules,
    proof_rules, run_rules, target_rules,
};
use crate::base::clock;
use crate::base::units::count;

/// The verdict, and what must be remembered for the next one.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// Findings that were acknowledged, the worst first.
    pub(crate) acknowledged: Vec<VerdictFinding>,
    /// The new value of [`Observed::first_seen`].
    pub(crate) first_seen: Vec<(SeenKey, DateTime<Utc>)>,
}

/// Makes the verdict from the facts.
pub(crate) fn judge(observed: &Observed) -> Judged {
    let newest = newest(observed);
    let mut raised = target_rules::all(observed, newest.as_ref());
    raised.extend(run_rules::all(observed));
    raised.extend(host_rules::all(observed, newest.as_ref()));
    raised.extend(proof_rules::all(observed));
    let mut first_seen = Vec::new();
    for one in &mut raised {
        if one.finding.since.is_none() {
            let key = one.key();
            let since = observed.first_seen.get(&key).copied();
            let since = clock::in_seconds(since.unwrap_or(observed.now));
            one.finding.since = Some(since);
            first_seen.push((key, since));
        }
    }
    raised.sort_by_key(rank);
    let (acknowledged, open): (Vec<_>, Vec<_>) = raised
        .into_iter()
        .partition(|one| is_acknowledged(observed, one));
    let state = open
        .first()
        .map_or(Severity::Green, |worst| worst.finding.severity);
    let is_worst = |one: &&Raised| one.finding.severity == state;
    let since = open
        .iter()
        .filter(is_worst)
        .filter_map(|one| one.finding.since);
    let verdict = Verdict {
        state,
        sentence: sentence(observed, state, &open, acknowledged.len()),
        since: since.min(),
        newest,
        proof: proof_rules::newest(observed).cloned(),
        keys: keys(observed),
        findings: open.into_iter().map(|one| one.finding).collect(),
    };
    Judged {
        verdict,
        acknowledged: acknowledged.into_iter().map(|one| one.finding).collect(),
        first_seen,
    }
}

/// Returns the order of the findings: the worst first.
fn rank(one: &Raised) -> (std::cmp::Reverse<Severity>, FindingCode, String) {
    let finding = &one.finding;
    (
        std::cmp::Reverse(finding.severity),
        finding.code,
        finding.about().to_owned(),
    )
}

/// Whether the operator acknowledged exactly this finding, as bad as it is now.
fn is_acknowledged(observed: &Observed, one: &Raised) -> bool {
    let finding = &one.finding;
    let mut all = observed.acknowledgements.iter();
    all.any(|ack| {
        ack.code == finding.code.as_str()
            && ack.target == finding.about()
            && finding.since == Some(clock::in_seconds(ack.since))
            && one.became_red.is_none_or(|at| ack.made_at >= at)
    })
}

/// Returns the newest snapshot that any target has.
fn newest(observed: &Observed) -> Option<NewestPublished> {
    let all = observed.targets.iter().filter_map(|target| target.newest);
    let newest = all.max_by_key(|newest| newest.sequence)?;
    Some(NewestPublished {
        stamp: newest.stamp,
        sequence: newest.sequence,
        age_seconds: (observed.now - newest.stamp.time()).num_seconds(),
    })
}

fn keys(observed: &Observed) -> Vec<KeyAlive> {
    let keys = observed.proof.keys.iter();
    keys.map(|key| KeyAlive {
        recipient: key.recipient.clone(),
        alive_after: key.alive_after.map(clock::in_seconds),
    })
    .collect()
}

fn sentence(observed: &Observed, state: Severity, open: &[Raised], acknowledged: usize) -> String {
    let Some(worst) = open.first() else {
        return reason(observed, acknowledged);
    };
    let more = match open.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let begin = match state {
        Severity::Red => "Not safe",
        _ => "Attention",
    };
    format!("{begin}: {}{more}.", worst.brief)
}

/// Returns why all is well.
fn reason(observed: &Observed, acknowledged: usize) -> String {
    let begin = match acknowledged {
        0 => "Safe".to_owned(),
        number => format!(
            "Safe, with {} acknowledged",
            count(number as u64, "finding")
        ),
    };
    let all = observed.targets.iter();
    let newest = all
        .filter_map(|target| target.newest)
        .max_by_key(|newest| newest.sequence);
    let Some(newest) = newest else {
        // Only if the operator acknowledged that nothing was backed up.
        return format!("{begin}: nothing is backed up.");
    };
    let has_it = |target: &&ObservedTarget| {
        let sequence = target.newest.map(|newest| newest.sequence);
        sequence == Some(newest.sequence)
    };
    let there: Vec<&ObservedTarget> = observed.targets.iter().filter(has_it).collect();
    let names = joined(there.iter().map(|target| target.name.as_str()));
    let is_remembered = there
        .iter()
        .all(|target| target.access == TargetReach::WriteOnly);
    let remembered = match is_remembered {
        true => ", as this host remembers",
        false => "",
    };
    let made = age(observed.now - newest.stamp.time());
    let proven = proof_rules::newest(observed).map_or_else(String::new, |proof| {
        let ago = age(observed.now - proof.proven_at);
        format!("; restored for proof {ago}")
    });
    format!(
        "{begin}: snapshot {} of {made} is on {names}{remembered}{proven}.",
        newest.sequence
    )
}
