//! A scheduler that does what a test says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{broadcast, mpsc, watch};

use crate::base::clock;
use crate::base::ids::ulid;
use crate::base::progress::Silent;
use crate::config::Config;
use crate::producer::{self, ProduceRequest};
use crate::serve::handle::{
    AgentCommand, AgentEvent, AgentState, CommandRefused, RunRequest, RunningRun,
};
use crate::state::history::{EndedRun, History, NewRun};

/// What the stand-in does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Makes a snapshot at once, and ends after this time.
    Succeeds(Duration),
    /// Ends without a snapshot, because the database is damaged.
    Fails,
    /// Makes no snapshot, and ends only when it is cancelled.
    Hangs,
}

/// Answers the commands of the handle.
pub(super) struct StandIn {
    pub(super) config: Arc<Config>,
    pub(super) work: Arc<Mutex<Work>>,
    pub(super) state: watch::Sender<AgentState>,
    pub(super) events: broadcast::Sender<AgentEvent>,
    pub(super) started: Arc<AtomicUsize>,
    pub(super) refreshed: Arc<AtomicUsize>,
}

impl StandIn {
    pub(super) async fn run(self, mut commands: mpsc::Receiver<AgentCommand>) {
        let this = Arc::new(self);
        let (cancel, cancelled) = watch::channel(String::new());
        let state = this.state.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                state.send_modify(|state| state.beat = std::time::Instant::now());
            }
        });
        while let Some(command) = commands.recv().await {
            match command {
                AgentCommand::Start(request, answer) => {
                    let begun = this.begin(&request);
                    if let Ok(id) = &begun {
                        let end = Arc::clone(&this).work(id.clone(), request, cancelled.clone());
                        tokio::spawn(end);
                    }
                    let _ = answer.send(begun);
                }
                AgentCommand::Cancel(id, answer) => {
                    let running = this.state.borrow().running.clone();
                    let _ = answer.send(match running.is_some_and(|run| run.id == id) {
                        true => {
                            cancel.send_replace(id);
                            Ok(())
                        }
                        false => Err(CommandRefused::NotRunning(id)),
                    });
                }
                AgentCommand::Reload(answer) => drop(answer.send(Ok(()))),
                AgentCommand::Refresh => drop(this.refreshed.fetch_add(1, Ordering::SeqCst)),
            }
        }
    }

    fn begin(&self, request: &RunRequest) -> Result<String, CommandRefused> {
        if let Some(run) = &self.state.borrow().running {
            return Err(CommandRefused::Busy {
                id: run.id.clone(),
                kind: "backup".to_owned(),
                since: run.started_at,
            });
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        let now = clock::now();
        let id = ulid(now);
        let run = NewRun {
            id: id.clone(),
            kind: json!(request.kind).as_str().unwrap().to_owned(),
            trigger: "api".to_owned(),
            started_at: now,
            pid: std::process::id(),
            pid_started: 0,
            note: request.note.clone(),
        };
        History::open(&self.config.state)
            .unwrap()
            .begin_run(&run)
            .unwrap();
        let running = RunningRun {
            id: id.clone(),
            kind: request.kind,
            trigger: request.trigger,
            started_at: now,
            stage: Some("producing".to_owned()),
            subject: None,
            progress: None,
            snapshot: None,
        };
        self.state
            .send_modify(|state| state.running = Some(running));
        let _ = self.events.send(AgentEvent::Run { id: id.clone() });
        Ok(id)
    }

    async fn work(
        self: Arc<Self>,
        id: String,
        request: RunRequest,
        mut cancelled: watch::Receiver<String>,
    ) {
        let work = *self.work.lock().unwrap();
        let mut end = EndedRun {
            ended_at: clock::now(),
            outcome: "complete".to_owned(),
            exit_code: Some(0),
            stamp: None,
            sequence: None,
            message: String::new(),
            report: None,
        };
        match work {
            Work::Hangs => {
                let _ = cancelled.wait_for(|which| *which == id).await;
                (end.outcome, end.exit_code) = ("cancelled".to_owned(), Some(1));
            }
            Work::Fails => {
                (end.outcome, end.exit_code) = ("failed".to_owned(), Some(1));
                "the snapshot is not valid".clone_into(&mut end.message);
                let report = json!({"errors": [{
                    "text": "the snapshot is not valid: db_integrity_check_failed",
                    "causes": [], "next": "suspect the disk",
                }]});
                end.report = Some(report.to_string());
            }
            Work::Succeeds(time) if json!(request.kind) == "backup" => {
                let config = Arc::clone(&self.config);
                let produce = move || {
                    let request = ProduceRequest {
                        include: request.include,
                        tags: Vec::new(),
                        note: None,
                        now: clock::now(),
                        previous: None,
                        taken: Default::default(),
                        reread: Default::default(),
                    };
                    producer::produce(&config, &request, &Silent).unwrap()
                };
                let produced = tokio::task::spawn_blocking(produce).await.unwrap();
                let stamp = produced.metadata["stamp"].as_str().unwrap().to_owned();
                self.state.send_modify(|state| {
                    if let Some(run) = &mut state.running {
                        run.snapshot = Some(produced.metadata.clone());
                        run.stage = Some("packing".to_owned());
                    }
                });
                tokio::time::sleep(time).await;
                end.stamp = Some(stamp);
                (end.outcome, end.exit_code) = ("partial".to_owned(), Some(3));
                let report = json!({"stored_bytes": 9, "new_bytes": 8, "targets": [
                    {"name": "s3", "state": "published", "sent_bytes": 9, "seconds": 0.1, "error": null},
                    {"name": "disk", "state": "behind", "sent_bytes": 0, "seconds": 0.1, "error": "no such folder"},
                ]});
                end.report = Some(report.to_string());
            }
            Work::Succeeds(time) => tokio::time::sleep(time).await,
        }
        end.ended_at = clock::now();
        History::open(&self.config.state)
            .unwrap()
            .end_run(&id, &end)
            .unwrap();
        self.state.send_modify(|state| state.running = None);
        let _ = self.events.send(AgentEvent::Run { id });
        let _ = self.events.send(AgentEvent::Verdict);
    }
}
