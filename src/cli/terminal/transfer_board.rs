//! Shows bytes that are fetched, read or copied, of those to come.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::board::Board;
use super::line::{Transferred, fitted};
use super::rate::Rate;
use super::stage_board::stage_text;
use crate::base::progress::{ProgressEvent, Stage};

/// A transfer of a known size.
#[derive(Debug)]
pub(super) struct TransferBoard {
    /// What is done, such as `restoring`.
    verb: Mutex<String>,
    total: AtomicU64,
    done: AtomicU64,
    in_flight: AtomicI64,
    rate: Mutex<Rate>,
}

impl TransferBoard {
    pub(super) fn new(stage: Stage, subject: Option<&str>, total: u64) -> Self {
        Self {
            verb: Mutex::new(stage_text(stage, subject)),
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            rate: Mutex::default(),
        }
    }

    fn extent(&self) -> (u64, u64) {
        let in_flight = self
            .in_flight
            .load(Ordering::Relaxed)
            .max(0)
            .cast_unsigned();
        let done = self.done.load(Ordering::Relaxed) + in_flight;
        let total = self.total.load(Ordering::Relaxed);
        // An archive may have moved in full before it counts.
        (
            done.min(total.max(self.done.load(Ordering::Relaxed))),
            total,
        )
    }
}

impl Board for TransferBoard {
    fn take(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::BytesExpected { bytes } => self.total.store(*bytes, Ordering::Relaxed),
            ProgressEvent::BytesShipped { bytes, .. } | ProgressEvent::BytesFetched { bytes } => {
                self.done.fetch_add(*bytes, Ordering::Relaxed);
            }
            ProgressEvent::BytesInFlight { change, .. } => {
                self.in_flight.fetch_add(*change, Ordering::Relaxed);
            }
            ProgressEvent::StageStarted { stage, subject } => {
                let mut verb = self.verb.lock().unwrap_or_else(PoisonError::into_inner);
                *verb = stage_text(*stage, *subject);
            }
            _ => {}
        }
    }

    fn lines(&self, now: Instant, columns: usize) -> Vec<String> {
        let (done, total) = self.extent();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let extent = Transferred {
            done,
            total,
            is_final: true,
            rate: rate.note(now, done),
        };
        let text = extent.text();
        let verb = self.verb.lock().unwrap_or_else(PoisonError::into_inner);
        let room = columns.saturating_sub(text.len() + 2);
        vec![fitted(&format!("{}, {text}", fitted(&verb, room)), columns)]
    }

    fn figures(&self) -> Option<serde_json::Value> {
        let (done, total) = self.extent();
        Some(serde_json::json!({ "bytes": done, "bytes_total": total }))
    }
}
