//! Help: the commands in groups, two examples and the exit codes of each, and topics.
//!
//! clap renders every page. What it does not know is in tables: [`GROUPS`], [`pages::PAGES`] and
//! [`reference`], from which the manual pages are made too.

pub(super) mod pages;
pub(super) mod peers;
pub(super) mod reference;
#[cfg(test)]
mod tests;
mod topics;

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Args, Command, CommandFactory as _};

use super::failure::{Failure, Outcome};
use super::{Cli, output};
use pages::Page;
use reference::{ENVIRONMENT, EXIT_CODES, FILES};

/// Columns of every help page. A wider terminal does not make long lines easier to read.
pub(super) const COLUMNS: usize = 80;

/// The groups of `sealift --help`. Every command is in exactly one.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Everyday",
        &[
            "backup", "serve", "status", "runs", "list", "ls", "stats", "verify",
        ],
    ),
    (
        "Restore",
        &["restore", "cat", "sql", "rollback", "drill", "open"],
    ),
    ("Keys", &["key", "remote"]),
    (
        "Maintenance",
        &[
            "prune", "pin", "ack", "incident", "pause", "resume", "sync", "snapshot", "validate",
            "push", "catalog", "adopt",
        ],
    ),
    (
        "Set-up",
        &[
            "demo",
            "init",
            "target",
            "source",
            "config",
            "unit",
            "notify",
            "completions",
            "man",
            "help",
        ],
    ),
];

#[derive(Debug, Args)]
pub(super) struct HelpArgs {
    /// A command, such as `key generate`, or a topic: targets, sources, retention, recovery,
    /// exit-codes, environment
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// Prints the help of a command, or a topic.
pub(super) fn run(args: &HelpArgs) -> Result<Outcome, Failure> {
    if let [topic] = args.words.as_slice()
        && let Some(text) = topics::text(topic)
    {
        output::write_stdout(text.as_bytes())?;
        return Ok(Outcome::Complete);
    }
    let mut root = command();
    root.build();
    let mut shown = &mut root;
    for word in &args.words {
        shown = match shown.find_subcommand_mut(word) {
            Some(found) => found,
            None => return Err(unknown(&args.words)),
        };
    }
    shown.print_long_help()?;
    Ok(Outcome::Complete)
}

fn unknown(words: &[String]) -> Failure {
    let (parent, word) = match words {
        [.., parent, word] => (Some(parent.as_str()), word.as_str()),
        [word] => (None, word.as_str()),
        [] => (None, ""),
    };
    match peers::command_tip(parent, word) {
        Some(tip) => Failure::usage(peers::has_no(word)).hint(tip),
        None => Failure::usage(format!(
            "no command or topic is called {:?}",
            words.join(" ")
        ))
        .hint(format!(
            "commands: `sealift --help`; topics: {}",
            topics::names()
        )),
    }
}

/// Returns the command line with all that its help shows.
pub(super) fn command() -> Command {
    let root = Cli::command();
    let is_global = |arg: &&Arg| arg.is_global_set();
    let globals: Vec<Arg> = root.get_arguments().filter(is_global).cloned().collect();
    let shown = globals.iter().filter(|arg| !arg.is_hide_set());
    let names: Vec<String> = shown.filter_map(long_name).collect();
    let globals = Globals {
        args: globals.iter().map(|arg| arg.clone().hide(true)).collect(),
        names: names.join(", "),
    };
    let root = root
        .disable_help_subcommand(true)
        .subcommand_help_heading("Commands")
        .mut_subcommands(|command| dressed(peers::with_aliases(command), &globals, ""));
    let template = template(&root);
    let (topics, more) = (topics_line(&root), long_reference(&root));
    root.help_template(template)
        .after_help(topics.clone())
        .after_long_help(format!("{more}\n{topics}"))
}

/// The global options, which only `sealift --help` describes.
struct Globals {
    /// Hidden: each command takes them, and does not repeat their help.
    args: Vec<Arg>,
    /// Such as `--config, --json`.
    names: String,
}

fn long_name(arg: &Arg) -> Option<String> {
    Some(format!("--{}", arg.get_long()?))
}

/// Returns `command` and those below it with examples, exit codes and a pointer to the rest.
fn dressed(command: Command, globals: &Globals, parent: &str) -> Command {
    let path = match parent {
        "" => command.get_name().to_owned(),
        parent => format!("{parent} {}", command.get_name()),
    };
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .hide(true)
        .help("Print version");
    let command = command
        .args(&globals.args)
        .disable_version_flag(true)
        .arg(version)
        .disable_help_subcommand(true)
        .mut_subcommands(|below| dressed(below, globals, &path));
    let pointer = format!("Global options: {} (`sealift --help`)", globals.names);
    let more = match pages::of(&path) {
        Some(page) => format!("{}\n{pointer}", examples_and_codes(&command, page)),
        None => pointer.clone(),
    };
    command.after_help(pointer).after_long_help(more)
}

/// Returns `text` as a heading in the style of clap's.
fn heading(command: &Command, text: &str) -> String {
    let style = command.get_styles().get_header();
    format!("{style}{text}:{style:#}\n")
}

fn examples_and_codes(command: &Command, page: &Page) -> String {
    let mut text = heading(command, "Examples");
    for (line, purpose) in page.examples {
        let _ = writeln!(text, "  # {purpose}\n  {line}");
    }
    text.push('\n');
    text += &heading(command, "Exit codes");
    let rows: Vec<(&str, &str)> = page.exit_codes().collect();
    text + &rows_text(&rows)
}

fn template(root: &Command) -> String {
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    let about = |name: &str| {
        let command = root.find_subcommand(name)?;
        let about = command.get_about().map(ToString::to_string);
        Some((command.get_name().to_owned(), about.unwrap_or_default()))
    };
    // All groups have one column of names.
    let width = root.get_subcommands().map(|c| c.get_name().len()).max();
    for (group, names) in GROUPS {
        let rows: Vec<(String, String)> = names.iter().filter_map(|name| about(name)).collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        text.push('\n');
        text += &heading(root, group);
        text += &columns_text(&rows, width.unwrap_or_default());
    }
    text.push('\n');
    text += &heading(root, "Options");
    text + "{options}{after-help}"
}

fn topics_line(root: &Command) -> String {
    let style = root.get_styles().get_header();
    let names = topics::names();
    format!(
        "{style}Topics:{style:#} {names}\n`sealift help TOPIC` or `sealift help COMMAND` says more."
    )
}

/// Returns exit codes, files and environment variables.
fn long_reference(root: &Command) -> String {
    let tables = [
        ("Exit codes", EXIT_CODES),
        ("Files", FILES),
        ("Environment", ENVIRONMENT),
    ];
    let table = |(name, rows): (&str, &[(&str, &str)])| heading(root, name) + &rows_text(rows);
    let tables = tables.map(table);
    format!("{}\n", tables.join("\n").trim_end())
}

/// Returns a line for each row, or two if its first column is long.
fn rows_text(rows: &[(&str, &str)]) -> String {
    const WIDEST: usize = 22;
    let widths = rows.iter().map(|(name, _)| name.len());
    let width = widths.filter(|width| *width <= WIDEST).max();
    columns_text(rows, width.unwrap_or_default())
}

/// Returns rows whose second column begins after `width` columns and is wrapped.
fn columns_text(rows: &[(&str, &str)], width: usize) -> String {
    let indent = width + 4;
    let mut text = String::new();
    for (name, meaning) in rows {
        let lines = wrapped(meaning, COLUMNS - indent);
        let mut lines = lines.iter();
        let _ = match name.len() <= width {
            true => {
                let first = lines.next().map_or("", String::as_str);
                writeln!(text, "  {name:width$}  {first}")
            }
            false => writeln!(text, "  {name}"),
        };
        for line in lines {
            let _ = writeln!(text, "{:indent$}{line}", "");
        }
    }
    text
}

/// Breaks `text` at spaces into lines of at most `columns`, if no word is longer.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
