//! `man`: the manual pages, one for each command.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::failure::{Failure, Outcome};
use super::help::{self, pages, peers, reference};
use super::output;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command, such as `key generate` [default: sealift itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    words: Vec<String>,
    /// Write all pages into this directory, as sealift.1, sealift-backup.1 and others
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<Outcome, Failure> {
    let mut root = help::command();
    root.build();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).map_err(|error| {
            Failure::from_error(format!("cannot make {}: {error}", dir.display()))
                .hint("name a directory that you may write")
        })?;
        write_all(dir, &root, "")?;
        return Ok(Outcome::Complete);
    }
    let mut shown = &root;
    for word in &args.words {
        shown = shown.find_subcommand(word).ok_or_else(|| {
            Failure::usage(peers::has_no(&args.words.join(" ")))
                .hint("`sealift --help` lists the commands")
        })?;
    }
    output::write_stdout(&page(shown, &path(&args.words))?)?;
    Ok(Outcome::Complete)
}

/// Writes the page of `command`, and of all commands below it.
fn write_all(dir: &std::path::Path, command: &Command, path: &str) -> Result<(), Failure> {
    let file = dir.join(format!("{}.1", name(path)));
    std::fs::write(&file, page(command, path)?).map_err(|error| {
        Failure::from_error(format!("cannot write {}: {error}", file.display()))
            .hint("name a directory that you may write")
    })?;
    for below in command.get_subcommands() {
        write_all(dir, below, format!("{path} {}", below.get_name()).trim())?;
    }
    Ok(())
}

fn path(words: &[String]) -> String {
    // An alias has the page of its command.
    let mut root = &help::command();
    let mut names = Vec::new();
    for word in words {
        if let Some(found) = root.find_subcommand(word) {
            names.push(found.get_name());
            root = found;
        }
    }
    names.join(" ")
}

/// Returns the name of a page, such as `sealift-key-generate`.
fn name(path: &str) -> String {
    format!("sealift {path}").trim().replace(' ', "-")
}

/// Returns the page of `command`, whose words are `path`; empty for the program.
fn page(command: &Command, path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // The sections below say it better than one paragraph.
    let bare = command.clone().after_help("").after_long_help("");
    let man = Man::new(bare)
        .title(name(path))
        .source(concat!("sealift ", env!("CARGO_PKG_VERSION")))
        .manual("Sealift");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    text.extend_from_slice(synopsis(command).to_roff().as_bytes());
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if !path.is_empty() {
        roff.control("PP", []);
        roff.text([
            roman("The global options are in "),
            bold("sealift"),
            roman("(1)."),
        ]);
    }
    sections(&mut roff, path);
    text.extend_from_slice(roff.to_roff().as_bytes());
    Ok(text_of(&text))
}

/// Returns the page with one preamble, which every section brings.
fn text_of(sections: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(sections);
    let preamble = Roff::new().render();
    format!("{preamble}{}", text.replace(&preamble, "")).into_bytes()
}

/// Returns the synopsis as `--help` shows it.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap_or("sealift");
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(name), roman(usage.strip_prefix(name).unwrap_or(usage))]);
    roff
}

/// Adds the sections that clap does not know.
fn sections(roff: &mut Roff, path: &str) {
    let page = pages::of(path);
    match page {
        Some(page) => definitions(roff, "EXIT STATUS", page.exit_codes()),
        None => definitions(roff, "EXIT STATUS", reference::EXIT_CODES.iter().copied()),
    }
    if path.is_empty() {
        definitions(roff, "FILES", reference::FILES.iter().copied());
        definitions(roff, "ENVIRONMENT", reference::ENVIRONMENT.iter().copied());
    }
    if let Some(page) = page {
        roff.control("SH", ["EXAMPLES"]);
        for (line, purpose) in page.examples {
            roff.control("TP", []);
            roff.text([roman(format!("{purpose}:"))]);
            roff.text([bold(*line)]);
        }
    }
    if !path.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([
            bold("sealift"),
            roman("(1), for files and environment variables too"),
        ]);
    }
}

fn definitions<'a>(roff: &mut Roff, section: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [section]);
    for (name, meaning) in rows {
        let name: [Inline; 1] = [bold(name)];
        roff.control("TP", []);
        roff.text(name);
        roff.text([roman(meaning)]);
    }
}
