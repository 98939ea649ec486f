//! `init`: a configuration, a signer, and targets that answered.
//!
//! Everything is checked before anything is written; the configuration comes last, so a failed `init`
//! can be repeated. A target that does not answer now (a laptop that is off) is told of, exit code 3.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Context;
use super::backup::{recovery_files, write_new_file};
use super::failure::{Failure, Outcome};
use super::output;
use super::target_args;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::fs;
use crate::base::ids::HostName;
use crate::base::ownership;
use crate::base::panics::caught;
use crate::config::{Config, FILE_NAME, NewConfig, named_by_environment, render_new};
use crate::format::signature::{Signer, Trust};
use crate::packer::seal::Recipients;
use crate::repository::probe::{Probe, probe};
use crate::repository::{HostFolder, RepositoryError};
use crate::shipper;
use crate::storage::{TargetSpec, is_over_ssh};

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The name under which this machine's backups stand [default: its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Who can open the backups: age1…, an ssh-ed25519 or ssh-rsa public key, or a file of them; may
    /// be given again
    #[arg(long, value_name = "RECIPIENT", required = true)]
    recipient: Vec<String>,
    /// Where to ship to: s3://…, gs://…, az://…, https://… (WebDAV), rsync://…, sftp://…, file:///… or a
    /// path; or NAME=URL. May be given again
    #[arg(long, value_name = "[NAME=]URL")]
    target: Vec<String>,
    /// The S3 targets' server, where it is not Amazon's
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The S3 targets' region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// For the rsync and sftp targets: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    ssh: Option<String>,
    /// A directory to back up, read in place; may be given again
    #[arg(long, value_name = "DIR")]
    tree: Vec<PathBuf>,
    /// What to leave out of the trees, in gitignore syntax; may be given again
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Sources of a known deployment
    #[arg(long, value_name = "NAME", value_parser = ["atocore"], requires = "root")]
    preset: Option<String>,
    /// Where that deployment lives
    #[arg(long, value_name = "DIR", requires = "preset")]
    root: Option<PathBuf>,
    /// Where snapshots are put [default: the preset's place, or below the state directory]
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// When backups are due: a cron line in UTC; `status` and the manifests tell when one is late
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
}

/// Where things go.
struct Places {
    config: PathBuf,
    /// As the configuration says them: relative to it, or absolute.
    signer: PathBuf,
    state: PathBuf,
}

impl Places {
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

/// Refuses a place in which later commands would find the configuration and not obey it.
fn refuse_exposed(config: &Path) -> Result<(), Failure> {
    match ownership::exposure_at(config)? {
        Some(exposure) => Err(Failure::usage(format!(
            "a configuration in this directory would not be obeyed: {exposure}"
        ))
        .hint(format!(
            "{}, or name the file with --config, here and in every command",
            exposure.remedy
        ))),
        None => Ok(()),
    }
}

pub fn run(context: &Context, args: &InitArgs) -> Result<Outcome, Failure> {
    let places = Places::of(context)?;
    if places.config.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "{} exists already; nothing was changed",
            places.config.display()
        ))
        .hint("edit it, or give another path with --config"));
    }
    let text = render(args, &places)?;
    let config = Config::parse(&text, &places.config).map_err(Failure::usage)?;
    check_sources(args, &config)?;
    let base = config.file.parent().unwrap_or(Path::new("/"));
    let recipients = Recipients::load(&config.read_recipients().map_err(Failure::usage)?, base)
        .map_err(Failure::usage)?;
    fs_dir(base)?;
    let (signer, made) = signer(&config)?;
    list_signer(&config, &signer)?;
    write_new_file(&places.config, text.as_bytes(), 0o600)?;
    let probes = probe_all(&config)?;
    print(context, &config, &signer, made, recipients.texts(), &probes)?;
    Ok(match probes.iter().all(|found| found.problem.is_none()) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn render(args: &InitArgs, places: &Places) -> Result<String, Failure> {
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
        // A file is named by its full path: the configuration may lie elsewhere.
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
        return Err(Failure::usage("no target is reached by ssh").hint("leave --ssh out"));
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
        signer: places.signer.clone(),
        state: places.state.clone(),
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

/// Names and URLs; a path becomes a `file` URL, a target without a name gets one from its scheme.
fn targets(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut targets: Vec<(String, String)> = Vec::new();
    for text in texts {
        let named = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !name.contains(['/', ':', '.']));
        let (name, url) = named.map_or((None, text.as_str()), |(name, url)| (Some(name), url));
        crate::storage::check_url(url).map_err(Failure::usage)?;
        let url = match crate::storage::folder_path(url) {
            Some(path) if !url.contains("://") => {
                let path = std::path::absolute(path)?;
                let url = url::Url::from_file_path(&path);
                url.map_err(|()| {
                    Failure::usage(format!("{} is no path for a target", path.display()))
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

fn check_sources(args: &InitArgs, config: &Config) -> Result<(), Failure> {
    if config.sources.is_empty() {
        return Err(Failure::usage("there is nothing to back up")
            .hint("give --tree DIR or --preset atocore --root DIR"));
    }
    if config.targets.is_empty() {
        return Err(Failure::usage("there is nowhere to ship to").hint("give --target URL"));
    }
    for dir in args.tree.iter().chain(&args.root) {
        if !dir.is_dir() {
            return Err(Failure::usage(format!("{} is no directory", dir.display())));
        }
    }
    Ok(())
}

fn fs_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|error| Failure::from_error(format!("cannot make {}: {error}", dir.display())))
}

/// The signer, and whether it was made now.
fn signer(config: &Config) -> Result<(Signer, bool), Failure> {
    if config.signer.exists() {
        return Ok((Signer::load(&config.signer)?, false));
    }
    let signer = Signer::generate(&format!("sealift signer of {}", config.host))?;
    signer.save(&config.signer)?;
    Ok((signer, true))
}

/// Adds the signer to `allowed_signers` beside it, so that a rotated one is still believed.
fn list_signer(config: &Config, signer: &Signer) -> Result<(), Failure> {
    let path = config.signer.with_file_name("allowed_signers");
    let line = allowed_line(config, signer);
    let failed = |error| Failure::from_error(format!("cannot write {}: {error}", path.display()));
    // Opened once: what is read is what the line is added to, with a mode that is not the umask's.
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(Failure::from_error(text).hint("move it away, then run it again"));
    }
    if meta.mode() & 0o022 != 0 {
        let closed = Permissions::from_mode(meta.mode() & 0o7755);
        file.set_permissions(closed).map_err(failed)?;
    }
    let mut there = Vec::new();
    file.read_to_end(&mut there).map_err(failed)?;
    let mut lines = there.split(|byte| *byte == b'\n');
    if lines.any(|existing| existing == line.as_bytes()) {
        return Ok(());
    }
    let gap = if there.is_empty() || there.ends_with(b"\n") {
        ""
    } else {
        "\n"
    };
    writeln!(file, "{gap}{line}").map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(fs::sync_parent(&path)?)
}

fn allowed_line(config: &Config, signer: &Signer) -> String {
    format!(
        "{} namespaces=\"sealift-manifest,sealift-prune\" {}",
        config.host,
        signer.public_line().trim()
    )
}

/// What was found out about one target.
struct Found {
    name: String,
    probe: Option<Probe>,
    problem: Option<String>,
    is_folder: bool,
}

fn probe_all(config: &Config) -> Result<Vec<Found>, Failure> {
    let runtime = target_args::runtime()?;
    let mut found = Vec::new();
    for target in &config.targets {
        let (probe, problem) = match target_args::make_target(target) {
            Err(failure) => (None, Some(failure.to_string())),
            Ok(named) => {
                let folder = HostFolder::new(named.target, config.host.clone());
                let tried = caught(try_target(config, &folder, target.write_only));
                let tried = runtime.block_on(tried);
                tried.unwrap_or_else(|panicked| (None, Some(panicked.to_string())))
            }
        };
        found.push(Found {
            name: target.name.clone(),
            probe,
            problem,
            is_folder: crate::storage::folder_path(&target.url).is_some(),
        });
    }
    Ok(found)
}

/// What the target lets us do, and what is wrong with it if something is. The recovery script and its guide
/// are what it gets first anyway.
async fn try_target(
    config: &Config,
    folder: &HostFolder,
    write_only: bool,
) -> (Option<Probe>, Option<String>) {
    let probe = match probe(folder, clock::now()).await {
        Ok(probe) => probe,
        Err(error) => return (None, Some(with_causes(&error))),
    };
    let mut problem = probe.problem(write_only);
    if probe.lists && problem.is_none() {
        problem = match folder.manifest_names().await {
            Err(error) => Some(with_causes(&error)),
            Ok(names) if !names.is_empty() => Some(occupied(config, folder, names.len()).await),
            Ok(_) => None,
        };
    }
    if problem.is_none() {
        let put = shipper::publish_recovery(folder, &recovery_files()).await;
        problem = put.err().map(|error| with_causes(&error));
    }
    (Some(probe), problem)
}

async fn occupied(config: &Config, folder: &HostFolder, count: usize) -> String {
    let trust = target_args::own_trust(config).unwrap_or(Trust::AllowedSigners(Vec::new()));
    match folder.chain(&trust).await {
        Ok(_) => format!(
            "it holds {count} snapshots of {} by this signer already; if this machine takes over, run `sealift adopt`",
            config.host
        ),
        Err(RepositoryError::Chain(_)) => format!(
            "it holds {count} snapshots of {} by another signer; give this machine another --host, or bring the old \
             signer over and run `sealift adopt`",
            config.host
        ),
        Err(error) => with_causes(&error),
    }
}

fn print(
    context: &Context,
    config: &Config,
    signer: &Signer,
    made: bool,
    recipients: &[String],
    found: &[Found],
) -> Result<(), Failure> {
    if context.json {
        let targets: Vec<_> = found.iter().map(to_json).collect();
        return Ok(output::print_json(&json!({
            "config": config.file.display().to_string(), "host": config.host,
            "signer": config.signer.display().to_string(), "signer_fingerprint": signer.fingerprint(),
            "signer_made": made, "allowed_signers": allowed_line(config, signer),
            "recipients": recipients, "targets": targets,
        }))?);
    }
    output::print_line(format_args!("config   {}", config.file.display()))?;
    let how = if made { "new" } else { "found" };
    output::print_line(format_args!(
        "signer   {} ({how}: {})\n         the key holder pins this: write it down beside the identity",
        signer.fingerprint(),
        config.signer.display()
    ))?;
    for recipient in recipients {
        output::print_line(format_args!("sealed to {recipient}"))?;
    }
    for Found {
        name,
        probe,
        problem,
        ..
    } in found
    {
        if let Some(probe) = probe {
            output::print_line(format_args!("target   {name}: {}", probe.words()))?;
        }
        if let Some(problem) = problem {
            output::print_line(format_args!("target   {name}: ATTENTION: {problem}"))?;
        }
    }
    let deletes =
        |found: &Found| !found.is_folder && found.probe.as_ref().is_some_and(|p| p.deletes);
    if found.iter().any(deletes) {
        context.note(
            "note: credentials that delete let whoever takes over this host empty the target; see \"Credentials that \
             only push\" in docs/operations.md",
        );
    }
    for source in config.sources.iter().filter(|source| source.is_unguarded()) {
        context.note(format_args!(
            "note: nothing holds back programs that write to {} while it is copied, so its files may not fit each \
             other; give it a `lock` or a `before` and an `after`, or stop the program first: see \"With the vector store\" in \
             docs/operations.md",
            source.name
        ));
    }
    let explicit = context.config.as_ref().map_or(String::new(), |path| {
        format!("--config {} ", path.display())
    });
    let ready = found.iter().all(|found| found.problem.is_none());
    context.note(match ready {
        true => format!("next: sealift {explicit}backup"),
        false => {
            format!("next: see to the targets that want attention, then sealift {explicit}backup")
        }
    });
    Ok(())
}

fn to_json(found: &Found) -> serde_json::Value {
    let may = found.probe.as_ref().map(|probe| {
        json!({
            "lists": probe.lists, "reads": probe.reads, "reads_archives": probe.reads_archives,
            "deletes": probe.deletes, "overwrites": probe.overwrites,
            "clock_skew_seconds": probe.skew_seconds, "left_behind": probe.left_behind,
        })
    });
    json!({
        "name": found.name, "writes": found.probe.is_some(), "may": may, "problem": found.problem,
    })
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
