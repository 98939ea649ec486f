//! The person at the terminal: questions and progress.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::base::ids::{HostName, ObjectKey};
use crate::jobs::push::Reporter;
use crate::packer::PackProgress;
use crate::restore::Progress;
use crate::restore::open::{Prompt, SecretString};
use crate::shipper::Watcher;

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

/// Shows a push: what was read, what is new, what was shipped.
pub struct PushDisplay {
    bar: ProgressBar,
    shipped: AtomicU64,
    stage: std::sync::Mutex<String>,
    done: AtomicBool,
}

impl PushDisplay {
    pub fn start(quiet: bool, progress: &Arc<PackProgress>) -> (Arc<Self>, Option<JoinHandle<()>>) {
        let display = Arc::new(Self {
            bar: bar(quiet),
            shipped: AtomicU64::new(0),
            stage: std::sync::Mutex::new(String::new()),
            done: AtomicBool::new(false),
        });
        let (shown, counters) = (display.clone(), progress.clone());
        let named = std::thread::Builder::new().name("display".to_owned());
        let ticker = named.spawn(move || {
            while !shown.done.load(Ordering::Relaxed) {
                shown.draw(&counters);
                std::thread::park_timeout(Duration::from_millis(150));
            }
            shown.bar.finish_and_clear();
        });
        // Where no thread can be had for it, nothing is shown.
        (display, ticker.ok())
    }

    fn draw(&self, counters: &PackProgress) {
        let stage = self
            .stage
            .lock()
            .map(|text| text.clone())
            .unwrap_or_default();
        self.bar.set_message(format!(
            "{stage}: {} entries, {} read, {} new, {} shipped",
            counters.entries.load(Ordering::Relaxed),
            output::size(counters.bytes.load(Ordering::Relaxed)),
            output::size(counters.new_bytes.load(Ordering::Relaxed)),
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

impl Reporter for PushDisplay {
    fn shipped(&self, _target: &str, bytes: u64) {
        self.shipped.fetch_add(bytes, Ordering::Relaxed);
    }

    fn stage(&self, text: &str) {
        if let Ok(mut stage) = self.stage.lock() {
            output::visible(text).as_ref().clone_into(&mut stage);
        }
    }
}

/// Shows what goes through: bytes copied or read of those to come.
pub struct SyncDisplay {
    bar: ProgressBar,
    host: String,
    verb: &'static str,
    total: u64,
    copied: AtomicU64,
}

impl SyncDisplay {
    pub fn start(quiet: bool, host: &HostName, verb: &'static str, total: u64) -> Arc<Self> {
        Arc::new(Self {
            bar: bar(quiet),
            host: host.to_string(),
            verb,
            total,
            copied: AtomicU64::new(0),
        })
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for SyncDisplay {
    fn shipped(&self, _key: &ObjectKey, bytes: u64) {
        let copied = self.copied.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (copied, total) = (output::size(copied), output::size(self.total));
        let text = format!("{}: {} {copied} of {total}", self.host, self.verb);
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
    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        let fetched = self.fetched.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = output::size(self.total.load(Ordering::Relaxed));
        let text = format!("fetched {} of {total}", output::size(fetched));
        self.bar.set_message(text);
    }

    fn message(&self, text: &str) {
        self.bar.set_message(output::visible(text).into_owned());
    }
}
