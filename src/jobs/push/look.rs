//! The look at every target with which a push begins.

use tokio::runtime::Runtime;

use super::error::PushError;
use super::inspect_targets::{InspectedTarget, InspectionResult, inspect_targets};
use super::looks::LookPlan;
use super::request::Target;
use super::uploads::report_activity;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::progress::{Progress, TargetActivity};
use crate::format::signature::Trust;
use crate::state::State;

/// Looks at the archives that a new snapshot may reuse and at a share of the others, or at
/// everything if any target holds something else than expected.
pub(super) fn look(
    runtime: &Runtime,
    state: &State,
    host: &HostName,
    targets: &[Target],
    trust: &Trust,
    progress: &dyn Progress,
) -> Result<(Vec<InspectedTarget>, LookPlan), PushError> {
    let inspect = |looks: &LookPlan| {
        let on_answer = |at: usize, looked: &InspectionResult| {
            let activity = match looked {
                Ok(_) => TargetActivity::Waiting,
                Err(error) => TargetActivity::Away {
                    reason: with_causes(error),
                },
            };
            report_activity(progress, &targets[at].name, &activity);
        };
        let inspection = inspect_targets(state, host, targets, trust, looks, &on_answer);
        runtime.block_on(inspection)
    };
    let looks = LookPlan::choose(state, targets)?;
    for target in targets {
        report_activity(progress, &target.name, &TargetActivity::Looking);
    }
    let inspected_targets = inspect(&looks)?;
    if !inspected_targets.iter().any(InspectedTarget::asks_for_more) {
        return Ok((inspected_targets, looks));
    }
    let looks = LookPlan::whole(targets);
    Ok((inspect(&looks)?, looks))
}
