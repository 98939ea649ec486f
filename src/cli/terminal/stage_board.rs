//! Shows a command that has no figures: what it does, and for how long.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::board::Board;
use super::line::{clock, fitted};
use crate::base::progress::Stage;

/// What a command does now.
#[derive(Debug)]
pub(super) struct StageBoard {
    stage: Mutex<StageNow>,
}

#[derive(Debug)]
struct StageNow {
    stage: Stage,
    subject: Option<String>,
    began: Instant,
}

impl StageBoard {
    pub(super) fn new(stage: Stage, subject: Option<&str>) -> Self {
        Self {
            stage: Mutex::new(StageNow::new(stage, subject)),
        }
    }

    pub(super) fn set(&self, stage: Stage, subject: Option<&str>) {
        let mut now = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *now = StageNow::new(stage, subject);
    }
}

impl StageNow {
    fn new(stage: Stage, subject: Option<&str>) -> Self {
        Self {
            stage,
            subject: subject.map(str::to_owned),
            began: Instant::now(),
        }
    }
}

/// Returns `looking at the targets: s3`.
pub(super) fn stage_text(stage: Stage, subject: Option<&str>) -> String {
    match subject {
        Some(subject) => format!("{stage}: {subject}"),
        None => stage.to_string(),
    }
}

impl Board for StageBoard {
    fn lines(&self, now: Instant, columns: usize) -> Vec<String> {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let text = stage_text(stage.stage, stage.subject.as_deref());
        let time = clock(now.saturating_duration_since(stage.began));
        let columns = columns.saturating_sub(time.len() + 2);
        vec![format!("{}, {time}", fitted(&text, columns))]
    }

    fn figures(&self) -> Option<serde_json::Value> {
        None
    }
}
