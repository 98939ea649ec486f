//! Shows a push: one line for what is read, one for each target.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;
use super::line::{Transferred, clock, first_line, fitted};
use super::rate::Rate;
use super::stage_board::stage_text;
use crate::base::progress::{ProgressEvent, Stage, TargetActivity};
use crate::cli::output::{count, size};

/// A longer wait than this does not count for the rate.
const PAUSE: Duration = Duration::from_secs(1);
/// Widest name of a target.
const MOST_NAME_COLUMNS: usize = 16;

/// A push under way.
#[derive(Debug)]
pub(super) struct PushBoard {
    files: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of the large file that is read now.
    file_bytes: AtomicU64,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    /// Whether everything is packed, so that what the targets lack is known.
    is_packed: AtomicBool,
    rest: Mutex<PushRest>,
}

/// What changes seldom, or by target.
#[derive(Debug)]
struct PushRest {
    stage: Stage,
    subject: Option<String>,
    began: Instant,
    reading: Rate,
    /// In the order of their first event.
    targets: Vec<TargetLine>,
}

/// What is known of one target.
#[derive(Debug)]
struct TargetLine {
    name: String,
    activity: TargetActivity,
    began: Instant,
    /// Bytes of confirmed objects.
    sent: u64,
    /// Bytes of objects that move.
    in_flight: i64,
    /// Bytes that are or were to be sent.
    queued: u64,
    /// `sent` when archives of another target began to come. Their total is its own.
    base: u64,
    rate: Rate,
}

impl TargetLine {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            activity: TargetActivity::Waiting,
            began: Instant::now(),
            sent: 0,
            in_flight: 0,
            queued: 0,
            base: 0,
            rate: Rate::default(),
        }
    }

    /// Returns the bytes that were sent, those under way included.
    fn moved(&self) -> u64 {
        self.sent + self.in_flight.max(0).cast_unsigned()
    }

    fn change(&mut self, activity: &TargetActivity) {
        let copies = |activity: &TargetActivity| matches!(activity, TargetActivity::Copying { .. });
        if copies(activity) && !copies(&self.activity) {
            (self.base, self.queued, self.rate) = (self.sent, 0, Rate::default());
        }
        let has_paused = self.activity == TargetActivity::Waiting && self.began.elapsed() > PAUSE;
        if has_paused {
            self.rate = Rate::default();
        }
        if self.activity != *activity {
            self.began = Instant::now();
            self.activity = activity.clone();
        }
    }

    fn text(&mut self, now: Instant, is_packed: bool) -> String {
        let done = self.moved().saturating_sub(self.base);
        let rate = self.rate.note(now, done);
        let time = clock(now.saturating_duration_since(self.began));
        let extent = |rate| Transferred {
            done,
            total: self.queued,
            is_final: is_packed,
            rate,
        };
        match &self.activity {
            TargetActivity::Sending => format!("sending {}", extent(rate).text()),
            TargetActivity::Copying { from } => {
                format!("copying {}, from {from}", extent(rate).text())
            }
            TargetActivity::Waiting if self.queued > 0 => {
                format!("waiting, {} sent", size(self.moved()))
            }
            TargetActivity::Looking | TargetActivity::Publishing => {
                format!("{}, {time}", self.activity)
            }
            TargetActivity::Done => format!("done, {} sent", size(self.sent)),
            TargetActivity::Away { reason } => format!("away: {}", first_line(reason)),
            TargetActivity::Waiting => self.activity.to_string(),
        }
    }
}

impl PushBoard {
    pub(super) fn new() -> Self {
        Self {
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            is_packed: AtomicBool::new(false),
            rest: Mutex::new(PushRest {
                stage: Stage::InspectingTargets,
                subject: None,
                began: Instant::now(),
                reading: Rate::default(),
                targets: Vec::new(),
            }),
        }
    }

    fn rest(&self) -> MutexGuard<'_, PushRest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes that were read, those of the present file included.
    fn read_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.file_bytes.load(Ordering::Relaxed)
    }

    fn begin(&self, stage: Stage, subject: Option<&str>) {
        // From here on no more archives become known.
        let is_packed = matches!(stage, Stage::Shipping | Stage::Publishing);
        self.is_packed.store(is_packed, Ordering::Relaxed);
        let mut rest = self.rest();
        rest.stage = stage;
        rest.subject = subject.map(str::to_owned);
        rest.began = Instant::now();
    }

    /// Returns the line of what is read.
    fn head(&self, rest: &mut PushRest, now: Instant) -> String {
        let read = self.read_bytes();
        let figures = format!(
            "{}, {}, {} new",
            count(self.files.load(Ordering::Relaxed), "file"),
            size(read),
            size(self.new_bytes.load(Ordering::Relaxed)),
        );
        match rest.stage {
            Stage::Packing => match rest.reading.note(now, read) {
                Some(rate) => format!("reading {figures}, {}/s", size(rate)),
                None => format!("reading {figures}"),
            },
            Stage::Shipping | Stage::Publishing => format!("read {figures}"),
            stage => {
                let time = clock(now.saturating_duration_since(rest.began));
                format!("{}, {time}", stage_text(stage, rest.subject.as_deref()))
            }
        }
    }
}

impl PushRest {
    fn target(&mut self, name: &str) -> &mut TargetLine {
        let at = self.targets.iter().position(|target| target.name == name);
        let at = at.unwrap_or_else(|| {
            self.targets.push(TargetLine::new(name));
            self.targets.len() - 1
        });
        &mut self.targets[at]
    }
}

impl Board for PushBoard {
    fn take(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::EntryPacked {
                files,
                bytes,
                new_bytes,
            } => {
                self.files.store(*files, Ordering::Relaxed);
                self.file_bytes.store(0, Ordering::Relaxed);
                self.bytes.fetch_add(*bytes, Ordering::Relaxed);
                self.new_bytes.fetch_add(*new_bytes, Ordering::Relaxed);
            }
            ProgressEvent::FileRead { bytes } => self.file_bytes.store(*bytes, Ordering::Relaxed),
            ProgressEvent::ArchiveSealed { bytes } => {
                self.stored_bytes.fetch_add(*bytes, Ordering::Relaxed);
            }
            ProgressEvent::StageStarted { stage, subject } => self.begin(*stage, *subject),
            ProgressEvent::TargetChanged { target, activity } => {
                self.rest().target(target).change(activity);
            }
            ProgressEvent::BytesQueued { target, bytes } => {
                self.rest().target(target).queued += bytes;
            }
            ProgressEvent::BytesInFlight { target, change } => {
                self.rest().target(target).in_flight += change;
            }
            ProgressEvent::BytesShipped { target, bytes } => {
                self.rest().target(target).sent += bytes;
            }
            _ => {}
        }
    }

    fn lines(&self, now: Instant, columns: usize) -> Vec<String> {
        let is_packed = self.is_packed.load(Ordering::Relaxed);
        let mut rest = self.rest();
        let mut lines = vec![fitted(&self.head(&mut rest, now), columns)];
        let widths = rest
            .targets
            .iter()
            .map(|target| target.name.chars().count());
        let width = widths.max().unwrap_or(0).min(MOST_NAME_COLUMNS);
        for target in &mut rest.targets {
            let name = fitted(&target.name, width);
            let text = target.text(now, is_packed);
            lines.push(fitted(&format!("  {name:width$}  {text}"), columns));
        }
        lines
    }

    fn figures(&self) -> Option<serde_json::Value> {
        let is_packed = self.is_packed.load(Ordering::Relaxed);
        let rest = self.rest();
        let targets = rest.targets.iter().map(|target| {
            let mut figures = serde_json::json!({
                "state": target.activity.word(),
                "sent": target.moved(),
            });
            if is_packed {
                // Small objects are not queued, so more may have been sent.
                let total = (target.base + target.queued).max(target.moved());
                figures["total"] = total.into();
            }
            (target.name.clone(), figures)
        });
        Some(serde_json::json!({
            "files": self.files.load(Ordering::Relaxed),
            "bytes": self.read_bytes(),
            "new_bytes": self.new_bytes.load(Ordering::Relaxed),
            "stored_bytes": self.stored_bytes.load(Ordering::Relaxed),
            "targets": targets.collect::<serde_json::Map<_, _>>(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(events: &[ProgressEvent<'_>]) -> PushBoard {
        let board = PushBoard::new();
        events.iter().for_each(|event| board.take(event));
        board
    }

    fn stage(stage: Stage) -> ProgressEvent<'static> {
        let subject = None;
        ProgressEvent::StageStarted { stage, subject }
    }

    const SENDING: ProgressEvent<'_> = ProgressEvent::TargetChanged {
        target: "s3",
        activity: &TargetActivity::Sending,
    };

    #[test]
    fn a_target_has_a_percentage_only_once_everything_is_packed() {
        let (target, bytes) = ("s3", 40_000_000);
        let queued = ProgressEvent::BytesQueued { target, bytes };
        let change = 10_000_000;
        let moving = ProgressEvent::BytesInFlight { target, change };
        let board = board(&[stage(Stage::Packing), SENDING, queued, moving]);
        let now = Instant::now();
        let lines = board.lines(now, 79);
        assert_eq!(lines[1], "  s3  sending 10.0 MB, 30.0 MB queued");
        board.take(&stage(Stage::Shipping));
        let lines = board.lines(now, 79);
        assert_eq!(lines[1], "  s3  sending 10.0 MB of 40.0 MB, 25 %");
        board.take(&ProgressEvent::BytesInFlight {
            target,
            change: 5_000_000,
        });
        let lines = board.lines(now + Duration::from_secs(5), 79);
        let rate = "sending 15.0 MB of 40.0 MB, 37 %, 1.00 MB/s, ETA 0:25";
        assert_eq!(lines[1], format!("  s3  {rate}"));
    }

    #[test]
    fn the_bytes_of_a_large_file_count_while_it_is_read_and_once() {
        let read = ProgressEvent::FileRead { bytes: 9_000_000 };
        let board = board(&[stage(Stage::Packing), read]);
        assert_eq!(
            board.lines(Instant::now(), 79)[0],
            "reading 0 files, 9.00 MB, 0 B new"
        );
        board.take(&ProgressEvent::EntryPacked {
            files: 1,
            bytes: 9_500_000,
            new_bytes: 9_500_000,
        });
        assert_eq!(board.figures().unwrap()["bytes"], 9_500_000);
    }

    #[test]
    fn copies_of_another_target_have_a_total_of_their_own() {
        let target = "s3";
        let from = "usb (file:///mnt)".to_owned();
        let copying = TargetActivity::Copying { from };
        let board = board(&[
            stage(Stage::Shipping),
            SENDING,
            ProgressEvent::BytesQueued {
                target,
                bytes: 1000,
            },
            ProgressEvent::BytesShipped {
                target,
                bytes: 1000,
            },
            ProgressEvent::TargetChanged {
                target,
                activity: &copying,
            },
            ProgressEvent::BytesQueued { target, bytes: 500 },
            ProgressEvent::BytesShipped { target, bytes: 250 },
        ]);
        let line = &board.lines(Instant::now(), 79)[1];
        assert_eq!(
            line,
            "  s3  copying 250 B of 500 B, 50 %, from usb (file:///mnt)"
        );
        let figures = board.figures().unwrap();
        assert_eq!(figures["targets"]["s3"]["sent"], 1250);
        assert_eq!(figures["targets"]["s3"]["total"], 1500);
    }

    #[test]
    fn every_line_fits_whatever_the_names_and_reasons_are() {
        let activity = TargetActivity::Away {
            reason: "cannot list\nh/marks/: \x1b[2J connection refused ".repeat(9),
        };
        let target = "a-name-that-is-longer-than-any-name-should-be";
        let away = ProgressEvent::TargetChanged {
            target,
            activity: &activity,
        };
        for columns in [1, 2, 20, 79] {
            let board = board(&[stage(Stage::Packing), SENDING, away.clone()]);
            for line in board.lines(Instant::now(), columns) {
                assert!(line.chars().count() <= columns, "{line:?}");
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}
