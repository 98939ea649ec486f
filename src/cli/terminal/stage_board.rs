//! Shows what a command does and for how long, and the bytes that it has moved, if it counts any.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::board::Board;
use super::line::{Transferred, clock, fitted};
use super::rate::Rate;
use crate::base::progress::Stage;
use crate::cli::events::subject_of;

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
    /// Bytes that were moved, and all bytes, if their number is known.
    moved: Option<(u64, Option<u64>)>,
    rate: Rate,
}

impl StageBoard {
    pub(super) fn new(stage: Stage, subject: Option<&str>) -> Self {
        Self {
            stage: Mutex::new(StageNow::new(stage, subject)),
        }
    }

    pub(super) fn set(&self, stage: Stage, subject: Option<&str>) {
        *self.now() = StageNow::new(stage, subject);
    }

    pub(super) fn set_bytes(&self, bytes: u64, bytes_total: Option<u64>) {
        self.now().moved = Some((bytes, bytes_total));
    }

    fn now(&self) -> MutexGuard<'_, StageNow> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StageNow {
    fn new(stage: Stage, subject: Option<&str>) -> Self {
        Self {
            stage,
            subject: subject.map(str::to_owned),
            began: Instant::now(),
            moved: None,
            rate: Rate::default(),
        }
    }

    /// Returns how far it is. `None`: nothing has moved yet.
    fn extent(&mut self, now: Instant) -> Option<String> {
        let (done, total) = self.moved.filter(|(done, _)| *done > 0)?;
        let rate = self.rate.note(now, done);
        let extent = Transferred {
            done,
            // What is copied may grow meanwhile.
            total: total.map_or(0, |total| total.max(done)),
            is_final: true,
            rate,
        };
        Some(extent.text())
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
        let mut stage = self.now();
        let text = stage_text(stage.stage, stage.subject.as_deref());
        let time = clock(now.saturating_duration_since(stage.began));
        let rest = match stage.extent(now) {
            Some(extent) => format!("{extent}, {time}"),
            None => time,
        };
        let room = columns.saturating_sub(rest.len() + 2);
        vec![fitted(&format!("{}, {rest}", fitted(&text, room)), columns)]
    }

    fn figures(&self) -> Option<serde_json::Value> {
        let stage = self.now();
        let (bytes, bytes_total) = stage.moved?;
        let mut figures = serde_json::json!({ "bytes": bytes });
        if let Some(total) = bytes_total {
            figures["bytes_total"] = total.into();
        }
        if let Some(subject) = &stage.subject {
            figures[subject_of(stage.stage)] = subject.as_str().into();
        }
        Some(figures)
    }
}
