//! `init`: writes a configuration, makes a signer, and tries the targets.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use crate::base::ids::HostName;
use crate::base::ownership;
use crate::config::{FILE_NAME, NewConfig, named_by_environment, render_new};
use crate::jobs::init::{self, InitReport, InitRequest, TriedTarget};
use crate::storage::{self, TargetSpec, is_over_ssh};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Name for this machine's backups [default: its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Who can decrypt the backups: age1…, an ssh-ed25519 or ssh-rsa public key, or a file of them;
    /// can be repeated
    #[arg(long, value_name = "RECIPIENT", required = true)]
    recipient: Vec<String>,
    /// Where to back up to: s3://…, gs://…, az://…, https://… (WebDAV), rsync://…, sftp://…,
    /// file:///… or a path; or NAME=URL; can be repeated
    #[arg(long, value_name = "[NAME=]URL")]
    target: Vec<String>,
    /// Endpoint of the S3 targets, if it is not Amazon's
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region of the S3 targets
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// For the rsync and sftp targets: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    ssh: Option<String>,
    /// A directory to back up, read in place; can be repeated
    #[arg(long, value_name = "DIR")]
    tree: Vec<PathBuf>,
    /// Pattern of paths to exclude from the trees, in gitignore syntax; can be repeated
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Built-in source list for an application
    #[arg(long, value_name = "NAME", value_parser = ["atocore"], requires = "root")]
    preset: Option<String>,
    /// Root directory of that application
    #[arg(long, value_name = "DIR", requires = "preset")]
    root: Option<PathBuf>,
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
        .hint("edit it, or give another path with --config"));
    }
    let text = render(args, &paths)?;
    let dirs: Vec<&PathBuf> = args.tree.iter().chain(&args.root).collect();
    let request = InitRequest {
        text: &text,
        path: &paths.config,
        dirs: &dirs,
        patience: context.patience(),
    };
    let report = init::run(&request, context, |written| {
        Ok(match context.json {
            true => (),
            false => print_written(written)?,
        })
    })?;
    match context.json {
        true => output::print_json(&report)?,
        false => {
            print_targets(&report)?;
            note_next(context, &report);
        }
    }
    Ok(match report.is_ready() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
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
    let targets = targets(&args.target)?;
    let over_ssh = targets.iter().filter(|(_, url)| is_over_ssh(url));
    let over_ssh: Vec<String> = over_ssh.map(|(name, _)| name.clone()).collect();
    if args.ssh.is_some() && over_ssh.is_empty() {
        return Err(Failure::usage("no target is reached by ssh").hint("omit --ssh"));
    }
    for (name, url) in &targets {
        let of_s3 = |value: &Option<String>| value.clone().filter(|_| url.starts_with("s3://"));
        let spec = TargetSpec {
            endpoint: of_s3(&args.endpoint),
            region: of_s3(&args.region),
            ssh: args.ssh.clone().filter(|_| over_ssh.contains(name)),
            ..TargetSpec::from_url(url)
        };
        spec.check()
            .map_err(|fault| Failure::usage(format!("--{fault}")))?;
    }
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
        targets,
        over_ssh,
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        ssh: args.ssh.clone(),
        trees: args.tree.iter().map(absolute).collect::<Result<_, _>>()?,
        excludes: args.exclude.clone(),
        preset,
        schedule: args.schedule.clone(),
    }))
}

fn host_name() -> Result<String, Failure> {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_lowercase();
    match name.split('.').next() {
        Some(first) if !first.is_empty() => Ok(first.to_owned()),
        _ => Err(Failure::usage("this machine has no name").hint("give one with --host")),
    }
}

/// Returns names and URLs. A path becomes a `file` URL; a target without a name is named after its
/// scheme.
fn targets(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut targets: Vec<(String, String)> = Vec::new();
    for text in texts {
        let named = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !name.contains(['/', ':', '.']));
        let (name, url) = named.map_or((None, text.as_str()), |(name, url)| (Some(name), url));
        storage::check_url(url).map_err(Failure::usage)?;
        let url = match storage::folder_path(url) {
            Some(path) if !url.contains("://") => {
                let path = std::path::absolute(path)?;
                let url = url::Url::from_file_path(&path);
                url.map_err(|()| {
                    Failure::usage(format!("{} cannot be the path of a target", path.display()))
                })?
                .to_string()
            }
            _ => url.to_owned(),
        };
        let scheme = url.split_once("://").map_or("rsync", |(scheme, _)| scheme);
        let base = name.unwrap_or(match scheme {
            "file" => "folder",
            "http" | "https" => "webdav",
            other => other,
        });
        let taken = |name: &str| targets.iter().any(|(taken, _)| taken == name);
        let mut name = base.to_owned();
        let mut number = 2;
        while taken(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        targets.push((name, url));
    }
    Ok(targets)
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
        output::print_line(format_args!("sealed to {recipient}"))?;
    }
    Ok(())
}

fn print_targets(report: &InitReport) -> std::io::Result<()> {
    for TriedTarget {
        name, may, problem, ..
    } in &report.targets
    {
        if let Some(allowed) = may {
            output::print_line(format_args!("target   {name}: {}", allowed.words))?;
        }
        if let Some(problem) = problem {
            output::print_line(format_args!("target   {name}: ATTENTION: {problem}"))?;
        }
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
    context.note(match report.is_ready() {
        true => format!("next: sealift {explicit}backup"),
        false => {
            format!("next: fix the targets marked ATTENTION, then run sealift {explicit}backup")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_get_names_and_urls() {
        let texts = [
            "/backups",
            "s3://bucket/a",
            "s3://bucket/b=c",
            "off=https://dav.example.org/x",
            "me@laptop:backups",
        ];
        let found = targets(&texts.map(String::from)).unwrap();
        let expected = [
            ("folder", "file:///backups"),
            ("s3", "s3://bucket/a"),
            ("s3-2", "s3://bucket/b=c"),
            ("off", "https://dav.example.org/x"),
            ("rsync", "me@laptop:backups"),
        ];
        let expected = expected.map(|(name, url)| (name.to_owned(), url.to_owned()));
        assert_eq!(found, expected);
    }
}
