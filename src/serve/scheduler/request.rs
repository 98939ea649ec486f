//! What front ends ask of the scheduler: to begin a run, and to read the configuration again.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Scheduler, Stopping, WaitingRequest};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::config::Config;
use crate::serve::calendar;
use crate::serve::handle::{CommandRefused, RunKind, RunRequest};
use crate::state::history::OperatorMark;
use crate::state::run_file::is_locked;

impl Scheduler {
    /// Begins a run on request, or says why not. A backup does not wait for a run that gives way.
    pub(super) fn request(
        &mut self,
        request: RunRequest,
        answer: oneshot::Sender<Result<String, CommandRefused>>,
    ) {
        let is_waited_for = self.waiting.is_some();
        let refused = match &self.running {
            _ if self.stopping != Stopping::No => CommandRefused::Stopping,
            _ if request.kind == RunKind::Drill => CommandRefused::Failed {
                text: "the agent of this version runs no drills".to_owned(),
                next: None,
            },
            Some(active)
                if request.kind == RunKind::Backup && active.gives_way() && !is_waited_for =>
            {
                // The next pass asks the run to end.
                self.waiting = Some(WaitingRequest { request, answer });
                return;
            }
            Some(active) => CommandRefused::Busy {
                id: active.shown.id.clone(),
                kind: active.shown.kind.as_str().to_owned(),
                since: active.shown.started_at,
            },
            None if is_locked(&self.config.state) => CommandRefused::Failed {
                text: "another sealift is at work on this state directory".to_owned(),
                next: Some("wait for it to end".to_owned()),
            },
            None => {
                let begun = self.begin(request, &[], clock::now());
                let _ = answer.send(begun);
                return;
            }
        };
        let _ = answer.send(Err(refused));
    }

    /// Reads the configuration again. If it is wrong, the one in use stays.
    pub(super) fn reload(&mut self) -> Result<(), CommandRefused> {
        self.manager.reloading();
        let read = self.read_config();
        let refused = match read {
            Ok(config) => {
                self.config = Arc::new(config);
                self.journal
                    .with(|history| history.remove_mark(OperatorMark::CONFIG));
                let log = &self.links.log;
                log.info("reloaded", "the configuration was read again");
                if let Some(lack) = calendar::lack(&self.config.schedule) {
                    log.warn("not_scheduled", lack);
                }
                None
            }
            Err(text) => {
                let mark = OperatorMark {
                    made_at: clock::now(),
                    until: None,
                    note: Some(text.clone()),
                };
                self.journal
                    .with(|history| history.set_mark(OperatorMark::CONFIG, &mark));
                let said = format!("{text}; the configuration from before stays in use");
                self.links.log.warn("config_refused", said);
                Some(text)
            }
        };
        let (error, config) = (refused.clone(), Arc::clone(&self.config));
        self.links.state.send_modify(|state| {
            (state.reload_error, state.config) = (error, config);
        });
        self.manager.ready();
        match refused {
            None => Ok(()),
            Some(text) => Err(CommandRefused::Failed {
                text,
                next: Some("correct it and reload again".to_owned()),
            }),
        }
    }

    fn read_config(&self) -> Result<Config, String> {
        let found = Config::find(self.config_file.as_deref());
        let found = found.map_err(|error| with_causes(&error))?;
        for warning in &found.warnings {
            self.links.log.warn("config_exposed", warning.clone());
        }
        let (old, new) = (&self.config.state, &found.config.state);
        match old == new {
            true => Ok(found.config),
            false => Err(format!(
                "the state directory changed from {} to {}, which takes a restart of the agent",
                old.display(),
                new.display()
            )),
        }
    }
}
