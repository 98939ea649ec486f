//! The command line: clap types, one file per command, and the only place that prints or picks
//! exit codes. stdout is data; stderr is progress and messages.
//!
//! Exit codes: 0 complete, 1 failed, 2 usage or config, 3 finished but something was skipped or is
//! stale.

mod ack;
mod adopt;
mod backup;
mod cache_args;
mod cat;
mod catalog;
mod choose;
mod config;
mod confinement;
mod context;
mod demo;
mod diff;
mod drill;
mod dry_run;
mod events;
mod failure;
mod find;
mod help;
mod hosts;
mod incident;
mod init;
mod kept_places;
mod key;
mod list;
mod ls;
mod man;
mod memory;
mod mount;
mod named_place;
mod notify;
mod open;
mod open_restore;
mod output;
mod pause;
mod pin;
mod policy;
mod process_limits;
mod proof;
mod prune;
mod receipt_signer;
mod recording;
mod remote;
mod restore;
mod retry_notes;
mod rollback;
mod runs;
mod screen;
mod search_args;
mod serve;
mod setup_args;
mod signer_check;
mod snapshot;
mod source;
mod sql;
mod stats;
mod status;
mod sync;
mod target;
mod target_args;
mod terminal;
mod trigger;
mod unit;
mod usage;
mod verdict;
mod verify;
mod version_lines;
mod versions;
mod visible;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::base::clock;
use crate::base::panics;
use crate::base::progress::Stage;
use crate::config::parse_duration;
use crate::jobs::run_history::{Recording, RunRecorder};
use crate::jobs::run_report::RunReport;
use context::{Context, lock};
use events::EventSink;
use failure::{Failure, Outcome};
pub use memory::ReportingAllocator;
use terminal::displays::{DisplayMode, Displays};
use trigger::TriggerName;

/// Encrypted off-site backups that the server itself cannot decrypt.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 80)]
struct Cli {
    /// The configuration file [default: $SEALIFT_CONFIG, ./sealift.toml, the user's config
    /// directory, /etc/sealift/sealift.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print only errors and warnings
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Print what is done now, and every 30 s how far it is, where there is no terminal
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Write events as JSON Lines to this file descriptor, which the caller has opened
    #[arg(long, global = true, value_name = "N")]
    events_fd: Option<i32>,
    /// How long to retry a target that does not answer [default: some seconds; in a scheduled
    /// backup as the target's `retry` says]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    retry: Option<Duration>,
    /// Who began this run: the agent passes it [default: manual, or timer in a unit of systemd]
    #[arg(long, global = true, hide = true, value_name = "NAME", value_enum)]
    trigger: Option<TriggerName>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show backup, loss, restore and comparison in a temporary folder
    Demo(demo::DemoArgs),
    /// Write a configuration, make a signer, and try the targets
    Init(init::InitArgs),
    /// Add or remove what is backed up, in the configuration
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Add, remove or try targets, in the configuration
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Manage identities and recipients, on the key holder's machine
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Produce and validate a snapshot
    Snapshot(snapshot::SnapshotArgs),
    /// Validate a snapshot again
    Validate(snapshot::ValidateArgs),
    /// Pack an existing snapshot and send it to all targets
    Push(backup::PushArgs),
    /// Take a snapshot, validate it, and send it to all targets
    Backup(backup::BackupRunArgs),
    /// List snapshots, on this host or on a target
    List(list::ListArgs),
    /// List the files of a snapshot
    Ls(ls::LsArgs),
    /// Find files in many snapshots, by name
    Find(find::FindArgs),
    /// Show each content that a path ever had
    Versions(versions::VersionsArgs),
    /// Show what changed from one snapshot to another, or to a directory
    Diff(diff::DiffArgs),
    /// Print files of a snapshot
    Cat(cat::CatArgs),
    /// Query a database in a snapshot, without restoring it
    Sql(sql::SqlArgs),
    /// Restore a snapshot from a target, and verify every file
    Restore(restore::RestoreArgs),
    /// Undo a restore in place, or list or clean up such restores
    Rollback(rollback::RollbackArgs),
    /// Mount snapshots of a target as a read-only file system
    Mount(mount::MountArgs),
    /// Decrypt archives to a tar on stdout
    Open(open::OpenArgs),
    /// Restore a snapshot for real, check it, and leave a signed receipt
    Drill(drill::DrillArgs),
    /// Show how up to date each target is
    Status(status::StatusArgs),
    /// Show the history of runs, or one run with its report and its log
    Runs(runs::RunsArgs),
    /// Mark that something touched the storage: databases are checked in full, proof is overdue
    Incident(incident::IncidentArgs),
    /// Let scheduled jobs wait
    Pause(pause::PauseArgs),
    /// End a pause
    Resume,
    /// Print systemd units for this host, with a sandbox that fits the configuration
    Unit(unit::UnitArgs),
    /// Show sizes: what is stored, what each snapshot added, growth and deduplication
    Stats(stats::StatsArgs),
    /// Acknowledge a finding of `status`
    Ack(ack::AckArgs),
    /// Try the notification channels
    #[command(subcommand)]
    Notify(notify::NotifyCommand),
    /// Check what the targets store against the signed manifests
    Verify(verify::VerifyArgs),
    /// Delete snapshots the retention policy no longer keeps
    Prune(prune::PruneArgs),
    /// Keep a snapshot regardless of the retention policy
    Pin(pin::PinArgs),
    /// Run the agent: it backs up, verifies and catches up on its schedule
    Serve(serve::ServeArgs),
    /// Copy hosts or snapshots from one target to another, as ciphertext
    Sync(sync::SyncArgs),
    /// Name places of backups, and manage the signers that are remembered
    #[command(subcommand)]
    Remote(remote::RemoteCommand),
    /// Manage the local index of stored data
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Take over a host's name from another machine
    Adopt(adopt::AdoptArgs),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Print or write the manual pages
    Man(man::ManArgs),
    /// Print help on a command or a topic
    Help(help::HelpArgs),
}

impl Command {
    /// Returns the command's name, which is that of its variant.
    fn kind(&self) -> String {
        let name = format!("{self:?}");
        let end = name.find(|c: char| !c.is_alphanumeric());
        name[..end.unwrap_or(name.len())].to_lowercase()
    }

    /// Returns the command's first stage; `None`: it is done at once, or it asks questions.
    fn first_stage(&self) -> Option<Stage> {
        match self {
            Self::Backup(_) | Self::Push(_) | Self::Snapshot(_) => Some(Stage::Starting),
            Self::Restore(args) if args.is_in_place() => Some(Stage::Starting),
            Self::Validate(_) => Some(Stage::Validating),
            Self::Cat(_)
            | Self::Catalog(_)
            | Self::Diff(_)
            | Self::Drill(_)
            | Self::Find(_)
            | Self::List(_)
            | Self::Ls(_)
            | Self::Mount(_)
            | Self::Open(_)
            | Self::Prune(_)
            | Self::Restore(_)
            | Self::Sql(_)
            | Self::Status(_)
            | Self::Sync(_)
            | Self::Verify(_)
            | Self::Versions(_) => Some(Stage::InspectingTargets),
            _ => None,
        }
    }

    /// Whether the command reads or makes an identity, or decrypts with one.
    fn holds_secrets(&self) -> bool {
        match self {
            Self::Demo(_)
            | Self::Drill(_)
            | Self::Find(_)
            | Self::Key(_)
            | Self::Mount(_)
            | Self::Open(_)
            | Self::Restore(_)
            | Self::Versions(_) => true,
            Self::Cat(args) => !args.identity.is_empty(),
            Self::Diff(args) => !args.identity.is_empty(),
            Self::List(args) => !args.identity.is_empty(),
            Self::Ls(args) => !args.identity.is_empty(),
            Self::Sql(args) => !args.identity.is_empty(),
            Self::Verify(args) => !args.identity.is_empty(),
            Self::Prune(args) => !args.identity.is_empty(),
            Self::Catalog(catalog::CatalogCommand::Rebuild(args)) => !args.identity.is_empty(),
            _ => false,
        }
    }

    /// Whether another argument than `--json` asks for JSON.
    fn wants_json(&self) -> bool {
        matches!(self, Self::Status(args) if args.wants_json())
    }

    /// Whether `--json` makes the command print JSON. All others print text or archives.
    fn prints_json(&self) -> bool {
        let prints_data = matches!(
            self,
            Self::Cat(_) | Self::Demo(_) | Self::Mount(_) | Self::Open(_) | Self::Serve(_)
        );
        !prints_data && !self.describes_itself()
    }

    /// Whether the command answers a caller on another machine, with events on standard output.
    fn answers_with_events(&self) -> bool {
        matches!(self, Self::Restore(args) if args.is_received())
    }

    /// Whether the command only prints texts about the program, which depend on no clock.
    fn describes_itself(&self) -> bool {
        matches!(
            self,
            Self::Completions { .. } | Self::Man(_) | Self::Help(_)
        )
    }
}

/// Time to print what an interrupted run left, which a terminal that takes nothing would keep from
/// ending.
const FAREWELL: Duration = Duration::from_secs(2);

/// Parses the command line and runs the command. Returns its exit code.
pub fn run() -> ExitCode {
    memory::return_large_buffers();
    process_limits::report_panics();
    let mut cli = match usage::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.json |= cli.command.wants_json();
    let is_streamed = cli.command.answers_with_events();
    let prints_json = cli.json && cli.command.prints_json() && !is_streamed;
    // First of all, because until now this process has opened no descriptor.
    let events = match (cli.events_fd, is_streamed) {
        (_, true) => EventSink::on_stdout().map(Some),
        (fd, false) => fd.map(EventSink::open).transpose(),
    };
    let events = match events {
        Ok(events) => events,
        Err(error) => return failure::conclude(Err(Failure::usage(error)), prints_json),
    };
    if cli.command.holds_secrets() {
        process_limits::hide_memory();
    }
    let trigger = trigger::of(cli.trigger);
    let recording = recording::of(&cli.command);
    let mut report = RunReport::begin(&cli.command.kind(), trigger, clock::now());
    if let Some(id) = Recording::id_of_agent().filter(|_| recording == Recording::OfAgent) {
        report.id = id;
    }
    let report = Arc::new(Mutex::new(report));
    let recorder = Arc::new(RunRecorder::new(recording));
    // The agent has handlers of its own, which let its children end.
    if !matches!(cli.command, Command::Serve(_)) {
        on_interrupt(events.clone(), Arc::clone(&report), Arc::clone(&recorder));
    }
    let is_terminal = !cli.quiet && screen::open();
    let mode = DisplayMode {
        is_drawn: is_terminal && !cli.json,
        is_printed: cli.verbose && !is_terminal,
    };
    let displays = Displays::begin(mode, events.clone(), Arc::clone(&recorder));
    if let Some(stage) = cli.command.first_stage() {
        displays.stage(stage, None);
    }
    let mut context = Context {
        config: cli.config,
        json: cli.json || is_streamed,
        quiet: cli.quiet,
        verbose: cli.verbose,
        retry: cli.retry,
        has_warned: AtomicBool::new(false),
        displays,
        events: events.clone(),
        report: Arc::clone(&report),
        recorder,
        stream: events.clone().filter(|_| is_streamed),
        signers: OnceLock::new(),
        unattended: OnceLock::new(),
    };
    let ready = match cli.command.describes_itself() {
        true => Ok(()),
        false => process_limits::raise_open_files().and_then(|()| check_clock()),
    };
    let result = ready.and_then(|()| caught(&context, cli.command));
    context.displays.end();
    recording::end(&context, &result);
    if let Some(events) = events {
        let report = lock(&report);
        if is_streamed && let Some(verdict) = output::take_document() {
            events.verdict(verdict);
        }
        events.end(json_of(&report));
    }
    failure::conclude(result, prints_json)
}

/// Runs the command. A panic is a failure.
fn caught(context: &Context, command: Command) -> Result<Outcome, Failure> {
    let done = panics::caught_now(|| dispatch(context, command));
    done.unwrap_or_else(|panicked| {
        Err(Failure::from_error(panicked)
            .hint("finished work is kept; run it again, and report this line if it comes back"))
    })
}

fn json_of(report: &RunReport) -> serde_json::Value {
    serde_json::to_value(report).unwrap_or_default()
}

fn dispatch(context: &Context, command: Command) -> Result<Outcome, Failure> {
    open_restore::require_none(context, &command)?;
    recording::begin(context);
    match command {
        Command::Demo(args) => demo::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Source(command) => source::run(context, &command),
        Command::Target(command) => target::run(context, &command),
        Command::Config(command) => config::run(context, &command),
        Command::Key(command) => key::run(context, &command),
        Command::Snapshot(args) => snapshot::run(context, &args),
        Command::Validate(args) => snapshot::validate(context, &args),
        Command::Push(args) => backup::push(context, &args),
        Command::Backup(args) => backup::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Ls(args) => ls::run(context, &args),
        Command::Sql(args) => sql::run(context, &args),
        Command::Cat(args) => cat::run(context, &args),
        Command::Find(args) => find::run(context, &args),
        Command::Versions(args) => versions::run(context, &args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Rollback(args) => rollback::run(context, &args),
        Command::Mount(args) => mount::run(context, &args),
        Command::Open(args) => open::run(context, &args),
        Command::Drill(args) => drill::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Runs(args) => runs::run(context, &args),
        Command::Incident(args) => incident::run(context, &args),
        Command::Pause(args) => pause::run(context, &args),
        Command::Resume => pause::resume(context),
        Command::Unit(args) => unit::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Ack(args) => ack::run(context, &args),
        Command::Notify(command) => notify::run(context, &command),
        Command::Verify(args) => verify::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Catalog(command) => catalog::run(context, &command),
        Command::Pin(args) => pin::run(context, &args),
        Command::Serve(args) => serve::run(context, &args),
        Command::Sync(args) => sync::run(context, &args),
        Command::Remote(command) => remote::run(context, &command),
        Command::Adopt(args) => adopt::run(context, &args),
        Command::Completions { shell } => completions(shell),
        Command::Man(args) => man::run(&args),
        Command::Help(args) => help::run(&args),
    }
}

/// Refuses a clock that cannot stamp snapshots, and warns about an overridden one.
fn check_clock() -> Result<(), Failure> {
    if let Some(time) = clock::check().map_err(Failure::usage)? {
        let speed = match clock::rate() {
            1.0 => String::new(),
            rate => format!(", and a clock that runs {rate} times as fast"),
        };
        output::tell(format_args!(
            "warning: {} is set: this run uses {} as the current time{speed}. It is for tests and drills; unset it \
             elsewhere",
            clock::CLOCK_VARIABLE,
            time.format("%Y-%m-%dT%H:%M:%SZ"),
        ));
    }
    Ok(())
}

/// Runs the registered clean-up when the process is asked to end (Ctrl-C, SIGTERM, SIGHUP).
/// Everything else may be left behind: finished work stays, and the next run clears up.
fn on_interrupt(
    events: Option<Arc<EventSink>>,
    report: Arc<Mutex<RunReport>>,
    recorder: Arc<RunRecorder>,
) {
    let terminal = terminal::remember();
    let handler = move || {
        // A mount ends when it is taken away.
        if mount::was_told_to_end() {
            return;
        }
        // First of all, since a terminal may take nothing, and then no print ever ends.
        let lines = crate::base::cleanup::run_all();
        let report = {
            let mut report = lock(&report);
            report.cancel(clock::now());
            report.clone()
        };
        if let Some(events) = &events {
            events.end(json_of(&report));
        }
        process_limits::exit_failed_after(FAREWELL);
        let warnings = recorder.end(&RunReport {
            stages: recorder.stages(),
            ..report
        });
        terminal::restore(&terminal);
        screen::close();
        for line in lines.into_iter().chain(warnings) {
            output::tell(format_args!("sealift: {line}"));
        }
        output::tell(format_args!("sealift: interrupted; finished work is kept"));
        process_limits::exit_failed();
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        output::tell(format_args!("warning: signals cannot be handled: {error}"));
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Outcome, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "sealift", &mut text);
    output::write_stdout(&text)?;
    Ok(Outcome::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        help::command().debug_assert();
    }
}
