//! Parses the command line, and reports what is wrong with it: as clap says it, with tips for words
//! of other backup programs, and as JSON.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error, FromArgMatches as _};

use super::failure::{ErrorObject, USAGE};
use super::help::{self, peers};
use super::{Cli, output};

/// Parses the command line of this process. Prints help, the version, or what is wrong: then it
/// returns the exit code.
pub(super) fn parse() -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = help::command();
    let matches = command.try_get_matches_from_mut(&arguments);
    let parsed = matches.and_then(|matches| {
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    parsed.map_err(|error| report(error, &arguments, &command))
}

fn report(mut error: Error, arguments: &[OsString], command: &Command) -> ExitCode {
    if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
        // A reader that closed its pipe has seen enough.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let words = words(arguments);
    let object = match unknown_command(&error, &words) {
        Some((None, word)) if word == peers::VERSION => {
            let _ = output::write_stdout(command.render_version().as_bytes());
            return ExitCode::SUCCESS;
        }
        Some((parent, word)) => peers::command_tip(parent, &word).map(|tip| {
            output::tell(format_args!("{}: {tip}", peers::has_no(&word)));
            ErrorObject {
                text: peers::has_no(&word),
                causes: Vec::new(),
                next: Some(tip.to_owned()),
                exit_code: USAGE,
            }
        }),
        None => None,
    };
    let object = object.unwrap_or_else(|| {
        add_option_tip(&mut error);
        print(&error);
        object_of(&error)
    });
    if words.contains(&"--json") {
        // It is on stderr already.
        let _ = output::write_document(Some(object));
    }
    ExitCode::from(USAGE)
}

/// Prints the error. An argument that it quotes must not steer the terminal.
fn print(error: &Error) {
    let text = error.render().to_string();
    match output::visible(&text) == text {
        true => drop(error.print()),
        false => output::tell(text.trim_end()),
    }
}

/// Returns the arguments before `--` without the program's name.
fn words(arguments: &[OsString]) -> Vec<&str> {
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    words.take_while(|word| *word != "--").collect()
}

/// Returns a command that does not exist, and the one before it on the line.
fn unknown_command<'a>(error: &Error, words: &[&'a str]) -> Option<(Option<&'a str>, String)> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let place = words.iter().position(|word| word == unknown)?;
    let is_command = |word: &&str| help::command().find_subcommand(word).is_some();
    let parent = words[..place].last().copied().filter(is_command);
    Some((parent, unknown.clone()))
}

fn add_option_tip(error: &mut Error) {
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some(tip) = peers::option_tip(option)
    {
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
}

/// Returns the first paragraph of clap's message, and its tips.
fn object_of(error: &Error) -> ErrorObject {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ErrorObject {
            text: "a command is missing".to_owned(),
            causes: Vec::new(),
            next: Some("`sealift --help` lists the commands".to_owned()),
            exit_code: USAGE,
        };
    }
    let said = error.to_string();
    let text = said.split("\n\n").next().unwrap_or(&said);
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let tips = said.lines().filter_map(|line| line.strip_prefix("  tip: "));
    let tips: Vec<&str> = tips.collect();
    let text: Vec<&str> = text.split_whitespace().collect();
    ErrorObject {
        text: text.join(" "),
        causes: Vec::new(),
        next: Some(match tips.is_empty() {
            true => "`sealift --help` shows what the command line takes".to_owned(),
            false => tips.join("; "),
        }),
        exit_code: USAGE,
    }
}
