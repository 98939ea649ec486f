//! `init`: writes a configuration, makes a signer, and tries the targets.

mod questions;

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use super::setup_args::{ServerArgs, SourceArgs};
use super::target::print_tried;
use super::terminal;
use crate::base::ids::HostName;
use crate::base::ownership;
use crate::config::{
    FILE_NAME, NewConfig, ServiceControl, TakenPlace, named_by_environment, render_new,
};
use crate::jobs::init::{self, InitReport, InitRequest, TriedTarget};
use crate::keys::private_key_text::private_part;
use crate::keys::recipients::short;

#[derive(Debug, Clone, Args)]
pub(super) struct InitArgs {
    /// Name for this machine's backups [default: its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Who can decrypt the backups: age1..., an ssh-ed25519 or ssh-rsa public key, or a file of
    /// them; can be repeated
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// Where to back up to: s3://..., gs://..., az://..., https://... (WebDAV),
    /// rsync://..., sftp://..., file:///... or a path; or NAME=URL; can be repeated
    #[arg(long, value_name = "[NAME=]URL")]
    target: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    sources: SourceArgs,
    /// Built-in source list for an application
    #[arg(long, value_name = "NAME", value_parser = ["atocore"], requires = "root")]
    preset: Option<String>,
    /// Root directory of that application
    #[arg(long, value_name = "DIR", requires = "preset")]
    root: Option<PathBuf>,
    /// For --preset: the compose file that starts and stops the application, for `restore --in-place`
    #[arg(long, value_name = "FILE", requires = "preset")]
    compose: Option<PathBuf>,
    /// For --preset: the systemd unit that is the application, for `restore --in-place`
    #[arg(
        long,
        value_name = "NAME",
        requires = "preset",
        conflicts_with = "compose"
    )]
    unit: Option<String>,
    /// Directory for snapshots [default: the preset's, or one in the state directory]
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// When backups are due: a cron line in UTC; `status` reports a backup that is late
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
}

/// The files of a new host.
struct InitPaths {
    config: PathBuf,
    /// Absolute, or relative to the configuration.
    signer: PathBuf,
    /// Absolute, or relative to the configuration.
    state: PathBuf,
}

impl InitPaths {
    fn of(context: &Context) -> Result<Self, Failure> {
        let named = context.config.clone().or_else(named_by_environment);
        let is_named = named.is_some();
        let config = std::path::absolute(named.unwrap_or_else(|| PathBuf::from(FILE_NAME)))?;
        if !is_named {
            refuse_exposed(&config)?;
        }
        if config.starts_with("/etc") {
            let state = PathBuf::from("/var/lib/sealift");
            return Ok(Self {
                signer: config.with_file_name("signer"),
                config,
                state,
            });
        }
        let stem = config
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            config,
            signer: format!("{stem}.signer").into(),
            state: format!("{stem}.state").into(),
        })
    }
}

/// Refuses a directory in which later commands would find the configuration and not use it.
fn refuse_exposed(config: &Path) -> Result<(), Failure> {
    match ownership::exposure_at(config)? {
        Some(exposure) => Err(Failure::usage(format!(
            "a configuration in this directory would not be used: {exposure}"
        ))
        .hint(format!(
            "{}, or name the file with --config, here and in every command",
            exposure.remedy
        ))),
        None => Ok(()),
    }
}

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<Outcome, Failure> {
    let paths = InitPaths::of(context)?;
    if paths.config.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "{} exists already; nothing was changed",
            paths.config.display()
        ))
        .hint(
            "extend it with `sealift target add URL` and `sealift source add --tree DIR`, check it with `sealift \
             config check`, or give another path with --config",
        ));
    }
    refuse_private_keys(&args.recipient)?;
    let args = &complete(context, args, &paths)?;
    let text = render(args, &paths)?;
    let dirs: Vec<&PathBuf> = args.sources.tree.iter().chain(&args.root).collect();
    let request = InitRequest {
        text: &text,
        path: &paths.config,
        dirs: &dirs,
        patience: context.patience(),
    };
    let report = init::run(&request, context, |written| {
        if !context.json {
            print_written(written)?;
        }
        Ok(())
    })?;
    match context.json {
        true => output::print_json(&report)?,
        false => {
            print_tried(&report.targets)?;
            note_next(context, &report);
        }
    }
    Ok(match report.is_ready() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Refuses private keys before anything is written or printed.
fn refuse_private_keys(recipients: &[String]) -> Result<(), Failure> {
    match recipients.iter().find_map(|text| private_part(text)) {
        Some(kind) => Err(Failure::usage(format!(
            "that is {kind}, not a recipient: this machine must never hold it; nothing was written"
        ))
        .hint(
            "this machine has seen it, so make another on the key holder's machine: sealift key generate --output key.txt",
        )),
        None => Ok(()),
    }
}

/// Returns the settings with what is missing: asks for it on a terminal, else fails.
fn complete(context: &Context, args: &InitArgs, paths: &InitPaths) -> Result<InitArgs, Failure> {
    let missing: Vec<&str> = [
        (
            args.recipient.is_empty(),
            "--recipient (who can decrypt the backups)",
        ),
        (
            args.sources.is_empty() && args.preset.is_none(),
            "--tree, --sqlite, --json-file, --command or --preset (what to back up)",
        ),
        (args.target.is_empty(), "--target (where to back up to)"),
    ]
    .into_iter()
    .filter_map(|(is_missing, what)| is_missing.then_some(what))
    .collect();
    let may_ask = terminal::is_interactive() && !context.json && !context.quiet;
    if missing.is_empty() {
        return match may_ask {
            true => questions::ask_for_service(args.clone(), &mut Terminal),
            false => Ok(args.clone()),
        };
    }
    if may_ask {
        let default_host = host_name().ok();
        return questions::ask_for_missing(args, default_host, &paths.config, &mut Terminal);
    }
    Err(
        Failure::usage(format!("init needs {}", missing.join(" and ")))
            .hint("give these options, or run it on a terminal, where it asks"),
    )
}

/// Asks on the terminal.
struct Terminal;

impl questions::Ask for Terminal {
    fn ask(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
        Ok(terminal::ask(prompt)?)
    }

    fn say(&mut self, text: &str) {
        output::tell(text);
    }
}

fn render(args: &InitArgs, paths: &InitPaths) -> Result<String, Failure> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => host_name()?,
    };
    let _: HostName = host.parse().map_err(|error: crate::base::ids::InvalidId| {
        Failure::usage(error).hint("choose a name with --host: letters, digits, dots and dashes")
    })?;
    let absolute = |path: &PathBuf| std::path::absolute(path);
    let mut recipients = Vec::new();
    for recipient in &args.recipient {
        // A file is named by its absolute path, since the configuration may be in another
        // directory.
        let path = Path::new(recipient);
        recipients.push(match path.is_file() {
            true => absolute(&path.to_owned())?.to_string_lossy().into_owned(),
            false => recipient.clone(),
        });
    }
    let preset = match (&args.preset, &args.root) {
        (Some(preset), Some(root)) => Some((preset.clone(), absolute(root)?)),
        _ => None,
    };
    // The places of the preset's sources, and their names.
    let taken = match &preset {
        Some(_) => vec!["db", "config", "registry", "chroma"],
        None => Vec::new(),
    };
    let taken = taken.into_iter().map(TakenPlace::of).collect();
    Ok(render_new(&NewConfig {
        host,
        recipients,
        signer: paths.signer.clone(),
        state: paths.state.clone(),
        snapshots_dir: match (&args.snapshots_dir, &preset) {
            (Some(dir), _) => Some(absolute(dir)?),
            (None, Some((_, root))) => Some(root.join("backups/snapshots")),
            (None, None) => None,
        },
        targets: args.server.targets(&args.target, &[])?,
        sources: args.sources.sources(taken)?,
        service: service(args)?,
        preset,
        schedule: args.schedule.clone(),
    }))
}

/// Returns what starts and stops the preset's application. `None`: the arguments do not say.
fn service(args: &InitArgs) -> Result<Option<ServiceControl>, Failure> {
    if let Some(file) = &args.compose {
        let file = std::path::absolute(file)?;
        return match file.is_file() {
            true => Ok(Some(ServiceControl::Compose(file))),
            false => {
                let what = format!("--compose: {} is not a file", file.display());
                Err(Failure::usage(what)
                    .hint("name the compose file of AtoCore, or its systemd unit with --unit"))
            }
        };
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@:\\".contains(c);
    match &args.unit {
        Some(unit) if !unit.is_empty() && !unit.starts_with('-') && unit.chars().all(is_plain) => {
            Ok(Some(ServiceControl::Unit(unit.clone())))
        }
        Some(unit) => {
            let what = format!("--unit: {unit:?} is not the name of a systemd unit");
            Err(Failure::usage(what).hint("such as --unit atocore.service"))
        }
        None => Ok(None),
    }
}

fn host_name() -> Result<String, Failure> {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_lowercase();
    match name.split('.').next() {
        Some(first) if !first.is_empty() => Ok(first.to_owned()),
        _ => Err(Failure::usage("this machine has no name").hint("give one with --host")),
    }
}

/// Prints what was written, before the targets are tried.
fn print_written(report: &InitReport) -> std::io::Result<()> {
    output::print_line(format_args!("config   {}", report.config_path))?;
    let how = match report.signer_made {
        true => "new",
        false => "found",
    };
    output::print_line(format_args!(
        "signer   {} ({how}: {})\n         the key holder pins this: write it down beside the identity",
        report.signer_fingerprint, report.signer
    ))?;
    for recipient in &report.recipients {
        output::print_line(format_args!("sealed to {}", short(recipient)))?;
    }
    Ok(())
}

/// Prints notes on the setup, and the next command.
fn note_next(context: &Context, report: &InitReport) {
    let deletes = |target: &TriedTarget| {
        let may = target.may.as_ref();
        !target.is_folder && may.is_some_and(|allowed| allowed.deletes)
    };
    if report.targets.iter().any(deletes) {
        context.note(
            "note: credentials that delete let an attacker on this host empty the target; see \"Credentials that \
             only push\" in docs/operations.md",
        );
    }
    for source in &report.unguarded_sources {
        context.note(format_args!(
            "note: programs may write to {source} while it is copied, so its files may not fit each other; give it a \
             `lock` or a `before` and an `after`, or stop the program first: see \"With the vector store\" in \
             docs/operations.md"
        ));
    }
    let explicit = context.config.as_ref().map_or(String::new(), |path| {
        format!("--config {} ", path.display())
    });
    if report.lacks_service {
        context.note(format_args!(
            "note: fill in `stop` and `start` in [restore] of {}, so that `sealift restore --in-place` can stop and start \
             AtoCore",
            report.config_path
        ));
    }
    context.note(match report.is_ready() {
        true => format!("next: sealift {explicit}backup"),
        false => {
            format!("next: fix the targets marked ATTENTION, then run sealift {explicit}backup")
        }
    });
}
