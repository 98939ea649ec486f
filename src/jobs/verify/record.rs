//! Records what a verification found as looks at the targets.

use super::{Run, TargetVerdict};
use crate::jobs::status::record::{VerifiedContent, VerifiedLook, record_verify};
use crate::jobs::status::shown::{ShownProblem, ShownSnapshot};
use crate::scrub::Problem;

impl Run<'_> {
    /// Records the looks, if this host's snapshots were verified, and all of them. If that fails,
    /// warns: the verification does not depend on it.
    pub(super) fn record_looks(&self, verdicts: &[TargetVerdict]) {
        let Some(config) = self.config.filter(|_| self.request.snapshots.is_empty()) else {
            return;
        };
        let looks = verdicts.iter().map(look).collect();
        if let Err(error) = record_verify(config, self.catalog.as_ref(), looks, self.now) {
            let error = error.with_causes();
            let text = format!("what this run saw of the targets is not recorded: {error}");
            self.front.warn(&text);
        }
    }
}

fn look(verdict: &TargetVerdict) -> VerifiedLook {
    let found = match (&verdict.failure, &verdict.examined) {
        (None, Some(examined)) => {
            let newest = examined.chain.snapshots.last().map(|newest| ShownSnapshot {
                stamp: newest.stamp(),
                sequence: newest.sequence(),
                next_by: newest.manifest.core.next_by,
            });
            let open = verdict.problems.iter();
            let open = open.filter(|problem| !verdict.mended.contains(problem));
            let (seen, verified): (Vec<&Problem>, Vec<&Problem>) = open.partition(|problem| {
                matches!(problem, Problem::Chain(_) | Problem::SignerChange(_))
            });
            let shown = |problems: Vec<&Problem>| {
                problems.into_iter().filter_map(ShownProblem::of).collect()
            };
            let whole = examined.whole.values();
            let bytes = whole.map(|needed| needed.row.bytes).sum();
            Ok(VerifiedContent {
                newest,
                problems: shown(seen),
                verified: shown(verified),
                stored: (examined.whole.len() as u64, bytes),
            })
        }
        (failure, _) => {
            let text = failure.as_deref().unwrap_or("it could not be read");
            Err(text.to_owned())
        }
    };
    VerifiedLook {
        target: verdict.name.clone(),
        found,
    }
}
