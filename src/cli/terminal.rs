//! The person at the terminal: questions and progress.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::base::ids::HostName;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::restore::open::{Prompt, SecretString};

/// Asks on the terminal, if there is one.
#[derive(Debug, Default)]
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn passphrase(&self, what: &str) -> Option<SecretString> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let answer = rpassword::prompt_password(format!("{}: ", output::visible(what))).ok()?;
        Some(SecretString::from(answer))
    }

    fn message(&self, text: &str) {
        super::output::tell(text);
    }
}

/// Whether a person can answer.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes-or-no question; anything but yes is no.
pub fn confirm(question: &str) -> io::Result<bool> {
    write!(io::stderr(), "{} [yes/no] ", output::visible(question))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

/// How the terminal is set: a question for a passphrase switches its echo off.
pub fn remember() -> Option<rustix::termios::Termios> {
    rustix::termios::tcgetattr(io::stdin()).ok()
}

/// Sets the terminal as it was.
pub fn restore(settings: &Option<rustix::termios::Termios>) {
    if let Some(settings) = settings {
        let now = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(io::stdin(), now, settings);
    }
}

fn bar(quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Shows a push: entries and bytes read, new bytes and shipped bytes.
pub struct PushDisplay {
    bar: ProgressBar,
    entries: AtomicU64,
    bytes: AtomicU64,
    new_bytes: AtomicU64,
    shipped: AtomicU64,
    stage: Mutex<Option<Stage>>,
    done: AtomicBool,
}

impl PushDisplay {
    pub fn start(quiet: bool) -> (Arc<Self>, Option<JoinHandle<()>>) {
        let display = Arc::new(Self {
            bar: bar(quiet),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
            shipped: AtomicU64::new(0),
            stage: Mutex::new(None),
            done: AtomicBool::new(false),
        });
        let shown = display.clone();
        let named = std::thread::Builder::new().name("display".to_owned());
        let ticker = named.spawn(move || {
            while !shown.done.load(Ordering::Relaxed) {
                shown.draw();
                std::thread::park_timeout(Duration::from_millis(150));
            }
            shown.bar.finish_and_clear();
        });
        // Without a thread for it, nothing is shown.
        (display, ticker.ok())
    }

    fn draw(&self) {
        let stage = self.stage.lock().map_or(None, |stage| *stage);
        let stage = stage.map(|stage| stage.to_string()).unwrap_or_default();
        self.bar.set_message(format!(
            "{stage}: {} entries, {} read, {} new, {} shipped",
            self.entries.load(Ordering::Relaxed),
            output::size(self.bytes.load(Ordering::Relaxed)),
            output::size(self.new_bytes.load(Ordering::Relaxed)),
            output::size(self.shipped.load(Ordering::Relaxed)),
        ));
    }

    pub fn finish(&self, ticker: Option<JoinHandle<()>>) {
        self.done.store(true, Ordering::Relaxed);
        let Some(ticker) = ticker else { return };
        ticker.thread().unpark();
        // A ticker that panicked has nothing more to show.
        let _ = ticker.join();
    }
}

impl Progress for PushDisplay {
    fn report(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::EntryPacked { bytes, new_bytes } => {
                self.entries.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(*bytes, Ordering::Relaxed);
                self.new_bytes.fetch_add(*new_bytes, Ordering::Relaxed);
            }
            ProgressEvent::BytesShipped { bytes, .. } => {
                self.shipped.fetch_add(*bytes, Ordering::Relaxed);
            }
            ProgressEvent::StageStarted { stage } => {
                if let Ok(mut shown) = self.stage.lock() {
                    *shown = Some(*stage);
                }
            }
            _ => {}
        }
    }
}

/// Shows a sync or a reading of archives: bytes copied or read, of those to come.
pub struct SyncDisplay {
    bar: ProgressBar,
    host: String,
    verb: &'static str,
    total: u64,
    done: AtomicU64,
}

impl SyncDisplay {
    pub fn start(quiet: bool, host: &HostName, verb: &'static str, total: u64) -> Arc<Self> {
        Arc::new(Self {
            bar: bar(quiet),
            host: host.to_string(),
            verb,
            total,
            done: AtomicU64::new(0),
        })
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for SyncDisplay {
    fn report(&self, event: &ProgressEvent<'_>) {
        let (ProgressEvent::BytesShipped { bytes, .. } | ProgressEvent::BytesFetched { bytes }) =
            event
        else {
            return;
        };
        let done = self.done.fetch_add(*bytes, Ordering::Relaxed) + bytes;
        let (done, total) = (output::size(done), output::size(self.total));
        let text = format!("{}: {} {done} of {total}", self.host, self.verb);
        self.bar.set_message(text);
    }
}

/// Shows a restore: bytes fetched of the bytes to fetch.
pub struct RestoreDisplay {
    bar: ProgressBar,
    total: AtomicU64,
    fetched: AtomicU64,
}

impl RestoreDisplay {
    pub fn start(quiet: bool) -> Arc<Self> {
        Arc::new(Self {
            bar: bar(quiet),
            total: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
        })
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for RestoreDisplay {
    fn report(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::BytesExpected { bytes } => self.total.store(*bytes, Ordering::Relaxed),
            ProgressEvent::BytesFetched { bytes } => {
                let fetched = self.fetched.fetch_add(*bytes, Ordering::Relaxed) + bytes;
                let total = output::size(self.total.load(Ordering::Relaxed));
                let text = format!("fetched {} of {total}", output::size(fetched));
                self.bar.set_message(text);
            }
            ProgressEvent::StageStarted { stage } => self.bar.set_message(stage.to_string()),
            _ => {}
        }
    }
}
