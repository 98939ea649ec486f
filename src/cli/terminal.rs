//! Questions and progress on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::base::ids::HostName;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::jobs::context::Display;
use crate::restore::open::{Prompt, SecretString};

/// Asks for passphrases on the terminal, if there is one.
#[derive(Debug, Default)]
pub(super) struct TerminalPrompt;

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

/// Whether a person can answer questions.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes-or-no question. Anything except yes is no.
pub(super) fn confirm(question: &str) -> io::Result<bool> {
    write!(io::stderr(), "{} [yes/no] ", output::visible(question))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

/// Asks for a line. Returns it without surrounding blanks; `None` at the end of the input.
pub(super) fn ask(prompt: &str) -> io::Result<Option<String>> {
    write!(io::stderr(), "{} ", output::visible(prompt))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer)? {
        0 => Ok(None),
        _ => Ok(Some(answer.trim().to_owned())),
    }
}

/// Returns the settings of the terminal, for [`restore`]: a passphrase prompt switches its echo
/// off.
pub(super) fn remember() -> Option<rustix::termios::Termios> {
    rustix::termios::tcgetattr(io::stdin()).ok()
}

/// Sets the terminal back to `settings`.
pub(super) fn restore(settings: &Option<rustix::termios::Termios>) {
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

/// Shows a push: how much was read, is new, and was shipped.
struct PushDisplay {
    bar: ProgressBar,
    entries: AtomicU64,
    bytes: AtomicU64,
    new_bytes: AtomicU64,
    shipped: AtomicU64,
    stage: Mutex<Option<Stage>>,
    done: AtomicBool,
}

/// Begins to show a push.
pub(super) fn show_push(quiet: bool) -> Display {
    let display = Arc::new(PushDisplay {
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
    // If no thread can be started, nothing is shown.
    let (ended, ticker) = (display.clone(), ticker.ok());
    Display::new(display, move || ended.finish(ticker))
}

impl PushDisplay {
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

    fn finish(&self, ticker: Option<JoinHandle<()>>) {
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

/// Shows bytes that are copied or read, of those to come.
struct TransferDisplay {
    bar: ProgressBar,
    host: String,
    verb: &'static str,
    total: u64,
    done: AtomicU64,
}

/// Begins to show `total` bytes of `host` being copied or read, as `verb` says.
pub(super) fn show_transfer(
    quiet: bool,
    host: &HostName,
    verb: &'static str,
    total: u64,
) -> Display {
    let bar = bar(quiet);
    let display = Arc::new(TransferDisplay {
        bar: bar.clone(),
        host: host.to_string(),
        verb,
        total,
        done: AtomicU64::new(0),
    });
    Display::new(display, move || bar.finish_and_clear())
}

impl Progress for TransferDisplay {
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

/// Shows a restore: bytes fetched, of those to fetch.
struct RestoreDisplay {
    bar: ProgressBar,
    total: AtomicU64,
    fetched: AtomicU64,
}

/// Begins to show a restore.
pub(super) fn show_restore(quiet: bool) -> Display {
    let bar = bar(quiet);
    let display = Arc::new(RestoreDisplay {
        bar: bar.clone(),
        total: AtomicU64::new(0),
        fetched: AtomicU64::new(0),
    });
    Display::new(display, move || bar.finish_and_clear())
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
