//! A front end that shows nothing: an answer is all that a caller of HTTP gets.

use std::path::Path;
use std::sync::Arc;

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::progress::{Silent, Stage};
use crate::jobs::context::{Display, FrontEnd};
use crate::jobs::run_report::{RunReport, Trigger};

/// Drops all messages of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuietFront;

impl FrontEnd for QuietFront {
    fn warn(&self, _: &str) {}
    fn note(&self, _: &str) {}
    fn stage(&self, _: Stage, _: Option<&str>) {}
    fn stage_bytes(&self, _: u64, _: Option<u64>) {}
    fn show_push(&self) -> Display {
        nothing()
    }
    fn show_transfer(&self, _: Stage, _: &str, _: u64) -> Display {
        nothing()
    }
    fn show_restore(&self) -> Display {
        nothing()
    }
    fn snapshot_ready(&self, _: Stamp, _: &Path, _: &serde_json::Value) {}
    fn state_opened(&self, _: &Path) {}
    fn run_report(&self) -> RunReport {
        RunReport::begin("api", Trigger::Api, clock::now())
    }
}

fn nothing() -> Display {
    Display::new(Arc::new(Silent), || {})
}
