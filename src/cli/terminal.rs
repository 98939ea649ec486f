//! Questions and progress on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::base::ids::{HostName, ObjectKey};
use crate::jobs::context::Display;
use crate::jobs::push::Reporter;
use crate::packer::PackProgress;
use crate::restore::Progress;
use crate::restore::open::{Prompt, SecretString};
use crate::shipper::Watcher;

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
    shipped: AtomicU64,
    stage: std::sync::Mutex<String>,
    done: AtomicBool,
}

/// Begins to show a push that counts in `counters`.
pub(super) fn show_push(quiet: bool, counters: &Arc<PackProgress>) -> Display<dyn Reporter> {
    let display = Arc::new(PushDisplay {
        bar: bar(quiet),
        shipped: AtomicU64::new(0),
        stage: std::sync::Mutex::new(String::new()),
        done: AtomicBool::new(false),
    });
    let (shown, counters) = (display.clone(), counters.clone());
    let named = std::thread::Builder::new().name("display".to_owned());
    let ticker = named.spawn(move || {
        while !shown.done.load(Ordering::Relaxed) {
            shown.draw(&counters);
            std::thread::park_timeout(Duration::from_millis(150));
        }
        shown.bar.finish_and_clear();
    });
    // If no thread can be started, nothing is shown.
    let (ended, ticker) = (display.clone(), ticker.ok());
    Display::new(display, move || ended.finish(ticker))
}

impl PushDisplay {
    fn draw(&self, counters: &PackProgress) {
        let stage = self.stage.lock();
        let stage = stage.map(|text| text.clone()).unwrap_or_default();
        self.bar.set_message(format!(
            "{stage}: {} entries, {} read, {} new, {} shipped",
            counters.entries.load(Ordering::Relaxed),
            output::size(counters.bytes.load(Ordering::Relaxed)),
            output::size(counters.new_bytes.load(Ordering::Relaxed)),
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
) -> Display<dyn Watcher + Send> {
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

impl Watcher for TransferDisplay {
    fn shipped(&self, _key: &ObjectKey, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
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
pub(super) fn show_restore(quiet: bool) -> Display<dyn Progress> {
    let bar = bar(quiet);
    let display = Arc::new(RestoreDisplay {
        bar: bar.clone(),
        total: AtomicU64::new(0),
        fetched: AtomicU64::new(0),
    });
    Display::new(display, move || bar.finish_and_clear())
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
