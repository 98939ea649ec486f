//! What is shown while a command works, and the thread that shows it.
//!
//! A job reports its events to a [`Board`], which turns them into lines and figures. A thread looks
//! at the boards a few times a second: it draws the lines on a terminal, prints them now and then
//! with `--verbose` where there is none, and writes the figures as events. So a job never waits for
//! a display, and reporting an event costs as much as adding a number.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::board::Board;
use super::push_board::PushBoard;
use super::stage_board::{StageBoard, stage_text};
use super::transfer_board::TransferBoard;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::cli::events::EventSink;
use crate::cli::{output, screen};
use crate::jobs::context::Display;
use crate::jobs::run_history::RunRecorder;

/// Time between two looks at the boards.
const TICK: Duration = Duration::from_millis(100);
/// A command that is done sooner shows nothing.
const FIRST_LOOK: Duration = Duration::from_millis(400);
/// Time between two prints of the lines with `--verbose`.
const PLAIN_EVERY: Duration = Duration::from_secs(30);
/// Time between two progress events: 4 a second.
const FIGURES_EVERY: Duration = Duration::from_millis(250);
/// Columns of a printed line.
const PLAIN_COLUMNS: usize = 200;

/// How a command shows its progress.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct DisplayMode {
    /// It draws on a terminal.
    pub is_drawn: bool,
    /// It prints lines now and then.
    pub is_printed: bool,
}

/// What is shown now.
pub(in crate::cli) struct Displays {
    shown: Arc<Shown>,
    /// `None`: nothing is shown, or no thread could be started.
    ticker: Option<JoinHandle<()>>,
}

struct Shown {
    mode: DisplayMode,
    events: Option<Arc<EventSink>>,
    recorder: Arc<RunRecorder>,
    /// What the command does while no board is shown. `None`: it needs no display.
    stage: Mutex<Option<StageBoard>>,
    boards: Mutex<Vec<Arc<dyn Board>>>,
    is_over: AtomicBool,
}

impl Displays {
    /// Begins to show what is to come.
    pub(in crate::cli) fn begin(
        mode: DisplayMode,
        events: Option<Arc<EventSink>>,
        recorder: Arc<RunRecorder>,
    ) -> Self {
        let is_watched = mode.is_drawn || mode.is_printed || events.is_some();
        let shown = Arc::new(Shown {
            mode,
            events,
            recorder,
            stage: Mutex::new(None),
            boards: Mutex::new(Vec::new()),
            is_over: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shown);
        let named = std::thread::Builder::new().name("display".to_owned());
        let ticker = is_watched.then(|| named.spawn(move || watched.watch()).ok());
        Self {
            shown,
            ticker: ticker.flatten(),
        }
    }

    /// Shows what the command does while no board is shown.
    pub(in crate::cli) fn stage(&self, stage: Stage, subject: Option<&str>) {
        let mut shown = lock(&self.shown.stage);
        match &*shown {
            Some(board) => board.set(stage, subject),
            None => *shown = Some(StageBoard::new(stage, subject)),
        }
        drop(shown);
        self.shown.announce(stage, subject);
    }

    /// Shows nothing until the next stage.
    #[cfg(feature = "mount")]
    pub(in crate::cli) fn end_stage(&self) {
        *lock(&self.shown.stage) = None;
    }

    /// Shows how many bytes were moved in the stage that is shown.
    pub(in crate::cli) fn stage_bytes(&self, bytes: u64, bytes_total: Option<u64>) {
        if let Some(board) = &*lock(&self.shown.stage) {
            board.set_bytes(bytes, bytes_total);
        }
    }

    /// Writes a note as an event.
    pub(in crate::cli) fn note(&self, text: &str) {
        if let Some(events) = &self.shown.events {
            events.note(text);
        }
    }

    /// Writes a warning as an event.
    pub(in crate::cli) fn warning(&self, text: &str) {
        if let Some(events) = &self.shown.events {
            events.warning(text);
        }
    }

    /// Begins to show a push.
    pub(in crate::cli) fn show_push(&self) -> Display {
        self.show(Arc::new(PushBoard::new()))
    }

    /// Begins to show `total` bytes that are read, fetched or copied (0: not known yet).
    pub(in crate::cli) fn show_transfer(
        &self,
        stage: Stage,
        subject: Option<&str>,
        total: u64,
    ) -> Display {
        self.shown.announce(stage, subject);
        self.show(Arc::new(TransferBoard::new(stage, subject, total)))
    }

    fn show(&self, board: Arc<dyn Board>) -> Display {
        lock(&self.shown.boards).push(Arc::clone(&board));
        let reporter = Reporter {
            board: Arc::clone(&board),
            shown: Arc::clone(&self.shown),
        };
        let shown = Arc::clone(&self.shown);
        Display::new(Arc::new(reporter), move || {
            lock(&shown.boards).retain(|one| !Arc::ptr_eq(one, &board));
        })
    }

    /// Ends the display and leaves a clean terminal.
    pub(in crate::cli) fn end(&mut self) {
        self.shown.is_over.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            // A thread that panicked has nothing more to show.
            let _ = ticker.join();
        }
        screen::close();
    }
}

/// Passes the events of one job on.
struct Reporter {
    board: Arc<dyn Board>,
    shown: Arc<Shown>,
}

impl Progress for Reporter {
    fn report(&self, event: &ProgressEvent<'_>) {
        self.board.take(event);
        match event {
            ProgressEvent::StageStarted { stage, subject } => {
                self.shown.announce(*stage, *subject);
            }
            ProgressEvent::Note { text } => {
                if let Some(events) = &self.shown.events {
                    events.note(text);
                }
            }
            ProgressEvent::Warning { text } => {
                if let Some(events) = &self.shown.events {
                    events.warning(text);
                }
            }
            _ => {}
        }
    }
}

impl Shown {
    /// Says that a stage begins, where no screen shows it.
    fn announce(&self, stage: Stage, subject: Option<&str>) {
        self.recorder.stage(stage);
        if let Some(events) = &self.events {
            events.stage(stage, subject);
        }
        if self.mode.is_printed {
            output::tell(stage_text(stage, subject));
        }
    }

    fn watch(&self) {
        let began = Instant::now();
        let (mut plain, mut figures) = (began, began);
        let mut last_figures = Value::Null;
        loop {
            std::thread::park_timeout(TICK);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            if self.mode.is_drawn && now - began >= FIRST_LOOK {
                screen::draw(&self.lines(now, screen::columns()));
            }
            if self.mode.is_printed && is_due(&mut plain, now, PLAIN_EVERY) {
                for line in self.lines(now, PLAIN_COLUMNS) {
                    output::tell(line);
                }
            }
            if let Some(events) = &self.events
                && is_due(&mut figures, now, FIGURES_EVERY)
                && let Some(fresh) = self.figures()
                && fresh != last_figures
            {
                events.progress(fresh.clone());
                last_figures = fresh;
            }
        }
    }

    fn lines(&self, now: Instant, columns: usize) -> Vec<String> {
        let boards = lock(&self.boards).clone();
        match boards.is_empty() {
            true => {
                let stage = lock(&self.stage);
                stage
                    .as_ref()
                    .map_or_else(Vec::new, |one| one.lines(now, columns))
            }
            false => {
                let lines = boards.iter().flat_map(|board| board.lines(now, columns));
                lines.collect()
            }
        }
    }

    /// Returns the figures of the board that was shown last, or of the stage.
    fn figures(&self) -> Option<Value> {
        let last = lock(&self.boards).last().cloned();
        match last {
            Some(board) => board.figures(),
            None => lock(&self.stage).as_ref().and_then(Board::figures),
        }
    }
}

/// Returns whether `every` has passed since `last`, which is now then.
fn is_due(last: &mut Instant, now: Instant, every: Duration) -> bool {
    let is_due = now.duration_since(*last) >= every;
    if is_due {
        *last = now;
    }
    is_due
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::run_history::Recording;

    #[test]
    fn something_is_due_once_in_its_time() {
        let start = Instant::now();
        let mut last = start;
        let at = |seconds| start + Duration::from_secs(seconds);
        let due = (1..=90).filter(|second| is_due(&mut last, at(*second), PLAIN_EVERY));
        assert_eq!(due.collect::<Vec<_>>(), [30, 60, 90]);
    }

    #[test]
    fn a_board_is_shown_until_its_display_is_dropped() {
        let mode = DisplayMode {
            is_drawn: false,
            is_printed: false,
        };
        let recorder = Arc::new(RunRecorder::new(Recording::Off));
        let displays = Displays::begin(mode, None, recorder);
        let lines = || displays.shown.lines(Instant::now(), 79);
        assert!(lines().is_empty());
        displays.stage(Stage::Producing, Some("db"));
        displays.stage_bytes(5_000_000, Some(20_000_000));
        let copied = "copying the sources: db, 5.00 MB of 20.0 MB, 25 %, 0:00";
        assert_eq!(lines(), [copied]);
        let figures = displays.shown.figures().unwrap();
        assert_eq!(
            figures,
            serde_json::json!({ "source": "db", "bytes": 5_000_000, "bytes_total": 20_000_000 })
        );
        displays.stage(Stage::InspectingTargets, Some("s3"));
        assert_eq!(lines(), ["looking at the targets: s3, 0:00"]);
        assert_eq!(displays.shown.figures(), None);
        let display = displays.show_transfer(Stage::Reading, Some("h"), 100);
        let bytes = 25;
        display
            .progress
            .report(&ProgressEvent::BytesFetched { bytes });
        assert_eq!(lines(), ["reading archives: h, 25 B of 100 B, 25 %"]);
        drop(display);
        assert_eq!(lines(), ["looking at the targets: s3, 0:00"]);
    }
}
