//! What happens if a signal ends the process of a restore in place: what was only copied is
//! removed; later, a line says how to finish or undo it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::mover::ItemMover;
use super::plan::InPlacePlan;
use crate::base::cleanup::CleanupGuard;
use crate::base::openat::Dir;
use crate::state::restores::{self, RESTORES, RestoreStep};

/// The registered clean-up of one restore.
pub(super) struct InterruptGuard(CleanupGuard);

impl InterruptGuard {
    pub(super) fn register(state: &Path, plan: &Arc<InPlacePlan>) -> Self {
        let (state, plan) = (state.to_owned(), Arc::clone(plan));
        Self(CleanupGuard::register(move || {
            let Ok(Some(open)) = restores::open_restore(&state) else {
                return "the restore in place had not begun".to_owned();
            };
            match open.step {
                RestoreStep::Planned | RestoreStep::Staged => match abandon(&state, &plan) {
                    Ok(()) => "the restore in place was given up; nothing was changed".to_owned(),
                    Err(error) => format!("{open} ({error})"),
                },
                _ => open.to_string(),
            }
        }))
    }

    pub(super) fn release(self) {
        self.0.take();
    }
}

/// Removes the copies, which another thread of this process may still be writing, and the plan.
fn abandon(state: &Path, plan: &InPlacePlan) -> std::io::Result<()> {
    let remove = || {
        let logs = restores::logs(state)?;
        let log = logs.iter().find(|log| log.id == plan.id);
        let log = log.ok_or(std::io::ErrorKind::NotFound)?;
        for item in &plan.items {
            ItemMover::new(item, log)?.staged().remove()?;
        }
        Dir::open(&state.join(RESTORES))?.remove_tree(&plan.id)
    };
    let mut removed = Ok(());
    for _ in 0..20 {
        removed = remove();
        if removed.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    removed
}
