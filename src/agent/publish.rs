//! Publishing on one target what it lacks, oldest first, once its archives are there.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::push::PushRequest;
use super::survey::Survey;
use super::{AgentError, Reporter, State};
use crate::catalog::SnapshotRow;
use crate::error::with_causes;
use crate::ids::ObjectKey;
use crate::manifest::{Manifest, ManifestName};
use crate::packer::Packed;
use crate::repository::parse_page;
use crate::shipper::{Publication, ShipError, publish, publish_recovery};

/// A version of the recovery documents; a target gets them once per version.
const RECOVERY_VERSION: &str = "1";

#[derive(Default)]
pub(super) struct Publishing {
    pub failure: Option<String>,
    pub warnings: Vec<String>,
}

pub(super) fn publish_pending(
    runtime: &Runtime,
    state: &mut State,
    request: &PushRequest<'_>,
    survey: &Survey,
    packed: &Packed,
    shipped: &mut Vec<(ObjectKey, u64)>,
    reporter: &Arc<dyn Reporter>,
) -> Result<Publishing, AgentError> {
    let mut publishing = Publishing::default();
    let newest = packed.manifest.name();
    if let Err(error) = runtime.block_on(put_recovery(state, request, survey)) {
        publishing.failure = Some(error);
        return Ok(publishing);
    }
    for row in state.catalog.snapshots()? {
        let publication = state.catalog.publication(&survey.name, &row.known.core)?;
        if publication.is_some() {
            continue;
        }
        if !state.spool.contains(&row.name.key()) {
            settle_unshippable(state, survey, &row)?;
            continue;
        }
        let Some(pending) = pending_publication(state, &row.name) else {
            let cause = format!("what the spool holds of {} is damaged", row.name);
            if row.name == newest {
                publishing.failure = Some(cause);
                return Ok(publishing);
            }
            let (core, now) = (&row.known.core, crate::clock::now());
            state
                .catalog
                .set_publication(&survey.name, core, "given up", now)?;
            publishing.warnings.push(format!(
                "{cause}: {} will not have that one",
                survey.folder.target.label()
            ));
            continue;
        };
        let published = {
            let gathered = std::sync::Mutex::new(&mut *shipped);
            let note = |key: &ObjectKey, bytes: u64| {
                reporter.shipped(&survey.name, bytes);
                if let Ok(mut shipped) = gathered.lock() {
                    shipped.push((key.clone(), bytes));
                }
            };
            runtime.block_on(publish(&survey.folder, &state.spool, &pending, note))
        };
        let (core, now) = (&row.known.core, crate::clock::now());
        match published {
            Ok(done) => {
                state
                    .catalog
                    .set_publication(&survey.name, core, "published", now)?;
                if !done.siblings.is_empty() {
                    publishing
                        .warnings
                        .push(fork_warning(survey, &row.name, &done.siblings));
                }
            }
            // An older snapshot that this target can never have whole: the newer one stands alone.
            Err(ShipError::Incomplete { .. }) if row.name != newest => {
                state
                    .catalog
                    .set_publication(&survey.name, core, "given up", now)?;
                publishing.warnings.push(format!(
                    "{} lacks archives of snapshot {} that are no longer here: it will not have that one",
                    survey.folder.target.label(),
                    row.known.stamp
                ));
            }
            Err(error) => {
                publishing.failure = Some(with_causes(&error));
                return Ok(publishing);
            }
        }
    }
    Ok(publishing)
}

fn fork_warning(survey: &Survey, name: &ManifestName, siblings: &[ManifestName]) -> String {
    let others: Vec<String> = siblings.iter().map(ManifestName::to_string).collect();
    format!(
        "{}: {} was published beside {name}, under the same sequence: two machines push under one name. \
         Stop one of them, or give it another `host`; then run `sealift adopt` on the one that stays",
        survey.folder.target.label(),
        others.join(", ")
    )
}

/// A snapshot that the spool lacks is on the target already (another state directory put it there), or
/// will never be: a target that is new gets no history.
fn settle_unshippable(state: &State, survey: &Survey, row: &SnapshotRow) -> Result<(), AgentError> {
    let is_there = survey
        .seen
        .as_ref()
        .is_ok_and(|seen| seen.manifests.contains(&row.name));
    let outcome = match is_there {
        true => "published",
        false => "given up",
    };
    let (core, now) = (&row.known.core, crate::clock::now());
    Ok(state
        .catalog
        .set_publication(&survey.name, core, outcome, now)?)
}

/// What publishing a spooled snapshot takes: its archives, read from its own pages. `None`: some of it
/// is gone or damaged.
fn pending_publication(state: &State, name: &ManifestName) -> Option<Publication> {
    let bytes = state.spool.read(&name.key()).ok()?;
    let manifest = Manifest::parse_named(name, &bytes).ok()?;
    let mut archives = Vec::new();
    for hash in &manifest.pages {
        let bytes = state.spool.read(&ObjectKey::table(hash)).ok()?;
        let page = parse_page(hash, &bytes).ok()?;
        archives.extend(page.rows.iter().map(|row| (row.key(), row.bytes)));
    }
    Some(Publication { manifest, archives })
}

async fn put_recovery(
    state: &State,
    request: &PushRequest<'_>,
    survey: &Survey,
) -> Result<(), String> {
    let key = format!("recovery:{}", survey.name);
    let there = state.catalog.meta(&key).map_err(|e| with_causes(&e))?;
    let emptied = survey
        .seen
        .as_ref()
        .is_ok_and(|seen| seen.manifests.is_empty());
    if there.as_deref() == Some(RECOVERY_VERSION) && !emptied {
        return Ok(());
    }
    publish_recovery(&survey.folder, &request.recovery)
        .await
        .map_err(|e| with_causes(&e))?;
    state
        .catalog
        .set_meta(&key, RECOVERY_VERSION)
        .map_err(|e| with_causes(&e))
}
