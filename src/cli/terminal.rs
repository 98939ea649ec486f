//! Questions and progress on a terminal.
//!
//! - [`displays`] keeps what is shown now, and draws it a few times a second;
//! - [`push_board`], [`transfer_board`] and [`stage_board`] turn the events of a job into lines.

mod board;
pub(super) mod displays;
mod line;
mod push_board;
mod rate;
mod stage_board;
mod transfer_board;

use std::io::{self, IsTerminal as _, Write as _};

use super::{output, screen};
use crate::restore::open::{Prompt, SecretString};

/// Asks for passphrases on the terminal, if there is one.
#[derive(Debug, Default)]
pub(super) struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn passphrase(&self, what: &str) -> Option<SecretString> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let _paused = screen::pause();
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
    let _paused = screen::pause();
    write!(io::stderr(), "{} [yes/no] ", output::visible(question))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

/// Asks for a line. Returns it without surrounding blanks; `None` at the end of the input.
pub(super) fn ask(prompt: &str) -> io::Result<Option<String>> {
    let _paused = screen::pause();
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
    // In the background this would stop the process (SIGTTOU), and the terminal is another's.
    let is_ours = rustix::termios::tcgetpgrp(io::stdin())
        .is_ok_and(|group| group == rustix::process::getpgrp());
    if let Some(settings) = settings
        && is_ours
    {
        let now = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(io::stdin(), now, settings);
    }
}
