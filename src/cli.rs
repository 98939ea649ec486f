//! The command line: clap types, one file per command, and the only place that prints or picks
//! exit codes. stdout is data; stderr is progress and messages.
//!
//! Exit codes: 0 complete, 1 failed, 2 usage or config, 3 finished but something was skipped or is
//! stale.

mod ack;
mod adopt;
mod backup;
mod catalog;
mod confinement;
mod demo;
mod failure;
mod hosts;
mod init;
mod key;
mod list;
mod memory;
mod open;
mod output;
mod pin;
mod process_limits;
mod prune;
mod restore;
mod retention;
mod scratch;
mod shrunk;
mod snapshot;
mod status;
mod sync;
mod target_args;
mod terminal;
mod verify;
mod visible;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::base::clock;
use crate::base::panics;
use crate::config::Config;
use crate::state::State;
use failure::{Failure, Outcome};
pub use memory::Memory;

/// Off-site replication with encryption: snapshots that the host itself cannot read back.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// The configuration file [default: $SEALIFT_CONFIG, ./sealift.toml, the user's config
    /// directory, /etc/sealift/sealift.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// No progress, no notes, no summary of a backup; errors and warnings only
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole story in a scratch folder: back up, lose the host, restore, compare
    Demo(demo::DemoArgs),
    /// Write a configuration, make the signer, try the targets
    Init(init::InitArgs),
    /// Identities and recipients, on the key holder's machine
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Produce and validate a snapshot
    Snapshot(snapshot::SnapshotArgs),
    /// Validate a snapshot again
    Validate(snapshot::ValidateArgs),
    /// Pack an existing snapshot and ship it
    Push(backup::PushArgs),
    /// Snapshot, validate, push to all targets: what the schedule runs
    Backup(backup::BackupArgs),
    /// List snapshots, here or on a target
    List(list::ListArgs),
    /// List the files of a snapshot
    Ls(list::LsArgs),
    /// Restore a snapshot from a target, verified
    Restore(restore::RestoreArgs),
    /// Open archives: a tar on stdout
    Open(open::OpenArgs),
    /// How fresh every target is
    Status(status::StatusArgs),
    /// Say that a finding of `status` is as it should be
    Ack(ack::AckArgs),
    /// Check what the targets store against the signed manifests
    Verify(verify::VerifyArgs),
    /// Delete from the targets what retention lets go
    Prune(prune::PruneArgs),
    /// Keep a snapshot, whatever retention says
    Pin(pin::PinArgs),
    /// Copy hosts or snapshots from one target to another, as ciphertext
    Sync(sync::SyncArgs),
    /// The host's memory of what lies where
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Take over a host's name from another machine
    Adopt(adopt::AdoptArgs),
    /// Completions for a shell
    Completions { shell: clap_complete::Shell },
    /// The manual page
    Man,
}

impl Command {
    /// Whether it reads or makes an identity, or decrypts with one.
    fn holds_secrets(&self) -> bool {
        match self {
            Self::Demo(_) | Self::Key(_) | Self::Restore(_) | Self::Open(_) => true,
            Self::Ls(args) => !args.identity.is_empty(),
            Self::Verify(args) => !args.identity.is_empty(),
            Self::Catalog(catalog::CatalogCommand::Rebuild(args)) => !args.identity.is_empty(),
            _ => false,
        }
    }
}

/// What every command may need.
struct Context {
    config: Option<PathBuf>,
    json: bool,
    quiet: bool,
    /// Whether the warnings about the configuration were printed.
    has_warned: AtomicBool,
}

impl Context {
    fn load_config(&self) -> Result<Config, Failure> {
        let found = Config::find(self.config.as_deref()).map_err(Failure::usage)?;
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            for warning in &found.warnings {
                output::tell(format_args!("warning: {warning}"));
            }
        }
        Ok(found.config)
    }

    /// Opens the state directory, and warns if others can look into it.
    fn open_state(&self, config: &Config) -> Result<State, Failure> {
        let state = State::open(&config.state)?;
        for warning in &state.warnings {
            output::tell(format_args!("warning: {warning}"));
        }
        Ok(state)
    }

    /// A note for a person, on stderr.
    fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            output::tell(format_args!("{text}"));
        }
    }
}

/// Parses the command line, runs the command, and says how it went.
pub fn run() -> ExitCode {
    memory::return_large_buffers();
    process_limits::tell_of_panics();
    let cli = Cli::parse();
    if cli.command.holds_secrets() {
        process_limits::hide_memory();
    }
    on_interrupt();
    let context = Context {
        config: cli.config,
        json: cli.json,
        quiet: cli.quiet,
        has_warned: AtomicBool::new(false),
    };
    if let Err(failure) = process_limits::raise_open_files().and_then(|()| check_clock()) {
        return failure.report();
    }
    let done = panics::caught_now(|| dispatch(&context, cli.command));
    let result = done.unwrap_or_else(|panicked| {
        Err(Failure::from_error(panicked).hint(
            "what was complete before is kept; run it again, and report this line if it comes back",
        ))
    });
    match result {
        Ok(Outcome::Complete) => ExitCode::SUCCESS,
        Ok(Outcome::Partial) => ExitCode::from(3),
        Err(failure) => failure.report(),
    }
}

fn dispatch(context: &Context, command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Demo(args) => demo::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Key(command) => key::run(context, &command),
        Command::Snapshot(args) => snapshot::run(context, &args),
        Command::Validate(args) => snapshot::validate(context, &args),
        Command::Push(args) => backup::push(context, &args),
        Command::Backup(args) => backup::run(context, &args),
        Command::List(args) => list::list(context, &args),
        Command::Ls(args) => list::ls(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Open(args) => open::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Ack(args) => ack::run(context, &args),
        Command::Verify(args) => verify::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Catalog(command) => catalog::run(context, &command),
        Command::Pin(args) => pin::run(context, &args),
        Command::Sync(args) => sync::run(context, &args),
        Command::Adopt(args) => adopt::run(context, &args),
        Command::Completions { shell } => completions(shell),
        Command::Man => man(),
    }
}

/// Refuses a clock that no snapshot could be stamped by, and reports one that is overridden.
fn check_clock() -> Result<(), Failure> {
    if let Some(time) = clock::check().map_err(Failure::usage)? {
        output::tell(format_args!(
            "warning: {} is set: this run takes {} for the time now. It is for tests and drills; unset it elsewhere",
            clock::CLOCK_VARIABLE,
            time.format("%Y-%m-%dT%H:%M:%SZ"),
        ));
    }
    Ok(())
}

/// Told to end (Ctrl-C, SIGTERM, SIGHUP), the process first does what it owes. Everything else may be
/// left as it is: what is complete stays, the next run clears up.
fn on_interrupt() {
    let terminal = terminal::remember();
    let handler = move || {
        terminal::restore(&terminal);
        for line in crate::base::cleanup::run_all() {
            output::tell(format_args!("sealift: {line}"));
        }
        output::tell(format_args!(
            "sealift: interrupted; nothing that was complete is lost"
        ));
        std::process::exit(1);
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        output::tell(format_args!("warning: signals cannot be handled: {error}"));
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Outcome, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sealift", &mut text);
    output::write_stdout(&text)?;
    Ok(Outcome::Complete)
}

fn man() -> Result<Outcome, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(Failure::from_error)?;
    for command in Cli::command().get_subcommands() {
        let name = format!("sealift-{}", command.get_name());
        let command = command.clone().name(name);
        clap_mangen::Man::new(command)
            .render(&mut text)
            .map_err(Failure::from_error)?;
    }
    output::write_stdout(&text)?;
    Ok(Outcome::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
