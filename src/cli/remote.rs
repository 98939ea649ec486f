//! `remote`: named places of backups, and the signers that this machine remembers.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::named_place::unusable;
use super::output;
use super::target_args::RemoteArgs;
use crate::base::clock;
use crate::base::ids::HostName;
use crate::config::Config;
use crate::config::remotes::{self, NamedRemote, Remotes};
use crate::jobs::context::runtime;
use crate::jobs::signer_memory;
use crate::keys::known_signers::{KnownSigner, SignerOrigin};
use crate::storage;

#[derive(Debug, Subcommand)]
pub(super) enum RemoteCommand {
    /// Give a place of backups a name, for --from and for `sync`
    Add(AddArgs),
    /// List the named places, and the signer of each
    List,
    /// Remove a name; the backups stay as they are
    Remove(RemoveArgs),
    /// Read the manifests of a place, check its signer, and show the newest snapshot
    Test(TestArgs),
    /// Remember a signer, in addition to those that are remembered already
    Trust(TrustArgs),
    /// Forget the signers that are remembered for a place
    Forget(ForgetArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The new name: letters, digits, - _ and dots
    #[arg(value_name = "NAME")]
    name: String,
    /// The target's URL or path: the folder that holds the host's folder
    #[arg(value_name = "URL")]
    url: String,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// Trust only this signer: SHA256:... fingerprint, or an allowed_signers or public key file
    /// [default: the one that is remembered]
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// S3 endpoint
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// For rsync and sftp over ssh: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    ssh: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The remote's name
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The remote's name, or a URL
    #[arg(value_name = "NAME")]
    from: String,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
}

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// The remote's name, or a URL
    #[arg(value_name = "NAME")]
    from: String,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// The signer, which must have signed snapshots there: SHA256:... fingerprint, or an
    /// allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    signer: String,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The remote's name, a URL, or a place as the file of known signers has it
    #[arg(value_name = "NAME")]
    from: String,
    /// Only the signers of this host [default: the remote's host, else every host there]
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
}

pub(super) fn run(context: &Context, command: &RemoteCommand) -> Result<Outcome, Failure> {
    match command {
        RemoteCommand::Add(args) => add(context, args),
        RemoteCommand::List => list(context),
        RemoteCommand::Remove(args) => remove(context, args),
        RemoteCommand::Test(args) => test(context, args),
        RemoteCommand::Trust(args) => trust(context, args),
        RemoteCommand::Forget(args) => forget(context, args),
    }
}

fn add(context: &Context, args: &AddArgs) -> Result<Outcome, Failure> {
    let has_target = |config: &Config| config.target(&args.name).is_some();
    if Config::find(context.config.as_deref()).is_ok_and(|found| has_target(&found.config)) {
        let text = format!(
            "a target of the configuration is named {} already",
            args.name
        );
        return Err(
            Failure::usage(text).hint("choose another name: it would always mean that target")
        );
    }
    let signer = args.signer.as_deref().map(stored_signer).transpose()?;
    let remote = NamedRemote {
        url: stored_url(&args.url)?,
        host: args.host.clone(),
        signer,
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        ssh: args.ssh.clone(),
    };
    let file = remotes::add(&args.name, &remote).map_err(unusable)?;
    if context.json {
        output::print_json(&RemoteRow::of(context, &args.name, &remote))?;
        return Ok(Outcome::Complete);
    }
    output::print_line(format_args!("added {} to {}", args.name, file.display()))?;
    context.note(format_args!("next: sealift remote test {}", args.name));
    Ok(Outcome::Complete)
}

/// Returns the URL, or the absolute path, since the remote is used from anywhere.
fn stored_url(url: &str) -> Result<String, Failure> {
    storage::check_url(url).map_err(Failure::usage)?;
    match storage::folder_path(url) {
        Some(path) if !url.contains("://") => {
            Ok(std::path::absolute(path)?.to_string_lossy().into_owned())
        }
        _ => Ok(url.to_owned()),
    }
}

/// Returns the signer as it is stored: a file by its absolute path.
fn stored_signer(text: &str) -> Result<String, Failure> {
    super::target_args::trust_of(text)?;
    match text.starts_with("SHA256:") || text.contains(' ') {
        true => Ok(text.to_owned()),
        false => Ok(std::path::absolute(text)?.to_string_lossy().into_owned()),
    }
}

/// A remote, and the signers that are trusted there.
#[derive(Debug, Serialize)]
struct RemoteRow {
    name: String,
    #[serde(flatten)]
    remote: NamedRemote,
    /// The signers that this machine remembers for it.
    known_signers: Vec<KnownRow>,
}

/// A remembered signer.
#[derive(Debug, Serialize)]
struct KnownRow {
    host: HostName,
    fingerprint: String,
    since: chrono::DateTime<chrono::Utc>,
    line: usize,
}

impl KnownRow {
    fn of((line, signer): &(usize, KnownSigner)) -> Self {
        Self {
            host: signer.host.clone(),
            fingerprint: signer.fingerprint(),
            since: signer.since,
            line: *line,
        }
    }
}

impl RemoteRow {
    fn of(context: &Context, name: &str, remote: &NamedRemote) -> Self {
        let known = match storage::place(&remote.spec()) {
            Ok(place) => context.signers().at(&place, remote.host.as_ref()),
            Err(_) => Vec::new(),
        };
        Self {
            name: name.to_owned(),
            remote: remote.clone(),
            known_signers: known.into_iter().map(KnownRow::of).collect(),
        }
    }

    fn signer(&self) -> String {
        match (&self.remote.signer, self.known_signers.last()) {
            (Some(signer), _) => format!("{} (given)", short_signer(signer)),
            (None, Some(known)) => format!("{} (remembered)", known.fingerprint),
            (None, None) => "not known yet".to_owned(),
        }
    }
}

/// Returns the fingerprint of a public key, and anything else as it is.
fn short_signer(text: &str) -> String {
    match ssh_key::PublicKey::from_openssh(text) {
        Ok(key) => crate::format::signature::fingerprint(&key),
        Err(_) => text.to_owned(),
    }
}

fn list(context: &Context) -> Result<Outcome, Failure> {
    let remotes = Remotes::load().map_err(unusable)?;
    let rows = remotes.all.iter();
    let rows: Vec<RemoteRow> = rows
        .map(|(name, remote)| RemoteRow::of(context, name, remote))
        .collect();
    if context.json {
        output::print_json(&rows)?;
        return Ok(Outcome::Complete);
    }
    if rows.is_empty() {
        context.note("no remote yet; `sealift remote add NAME URL` makes one");
        return Ok(Outcome::Complete);
    }
    let cells = |row: &RemoteRow| {
        let host = row.remote.host.as_ref();
        vec![
            row.name.clone(),
            host.map_or("-".to_owned(), ToString::to_string),
            row.remote.spec().label(),
            row.signer(),
        ]
    };
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let table = output::table(&["NAME", "HOST", "URL", "SIGNER"], &cells);
    output::write_stdout(table.as_bytes())?;
    Ok(Outcome::Complete)
}

fn remove(context: &Context, args: &RemoveArgs) -> Result<Outcome, Failure> {
    let file = remotes::remove(&args.name).map_err(unusable)?;
    if context.json {
        output::print_json(&json!({ "removed": args.name, "file": file.display().to_string() }))?;
    } else {
        output::print_line(format_args!(
            "removed {} from {}",
            args.name,
            file.display()
        ))?;
        context.note(
            "its backups and the memory of its signer stay; `sealift remote forget` forgets that",
        );
    }
    Ok(Outcome::Complete)
}

/// Returns the options of a command that reads the place `from`.
fn options(from: &str, host: &Option<HostName>, signer: Option<&str>) -> RemoteArgs {
    RemoteArgs {
        from: Some(from.to_owned()),
        target: None,
        host: host.clone(),
        signer: signer.map(str::to_owned),
        accept_signer: false,
        endpoint: None,
        region: None,
        ssh: None,
    }
}

/// The newest snapshot of a place.
#[derive(Debug, Serialize)]
struct Tested {
    host: HostName,
    target: String,
    snapshots: usize,
    stamp: String,
    sequence: u64,
    signer: String,
    findings: Vec<String>,
}

fn test(context: &Context, args: &TestArgs) -> Result<Outcome, Failure> {
    let opened = runtime()?.block_on(options(&args.from, &args.host, None).open(context))?;
    let chain = &opened.chain;
    let Some(newest) = chain.snapshots.last() else {
        return Err(Failure::from_error("there is no snapshot"));
    };
    let tested = Tested {
        host: chain.host.clone(),
        target: opened.folder.target.label().to_owned(),
        snapshots: chain.snapshots.len(),
        stamp: newest.stamp().to_string(),
        sequence: newest.sequence(),
        signer: newest.signer.clone(),
        findings: chain.findings.iter().map(ToString::to_string).collect(),
    };
    super::list::remote::tell_findings(chain);
    if context.json {
        output::print_json(&tested)?;
    } else {
        output::print_line(format_args!(
            "{}: {} of {}, the newest is {} (sequence {})\nsigned by {}",
            tested.target,
            output::count(tested.snapshots as u64, "snapshot"),
            tested.host,
            tested.stamp,
            tested.sequence,
            tested.signer
        ))?;
    }
    Ok(match tested.findings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn trust(context: &Context, args: &TrustArgs) -> Result<Outcome, Failure> {
    let wanted = options(&args.from, &args.host, Some(&args.signer));
    let opened = runtime()?.block_on(wanted.open_quietly(context))?;
    let (chain, host) = (&opened.chain, &opened.chain.host);
    let signers = chain.trusted.iter();
    let signers = signers.map(|one| {
        let (key, now) = (&one.key, clock::now());
        KnownSigner::new(&opened.place, host, key, now, SignerOrigin::Confirmed)
    });
    let signers: Vec<KnownSigner> = signers.collect();
    let lines = signer_memory::add(&signers)?;
    if context.json {
        let rows = lines.iter().zip(&signers).map(|((line, is_new), signer)| {
            json!({ "fingerprint": signer.fingerprint(), "line": line, "is_new": is_new })
        });
        let trusted: Vec<_> = rows.collect();
        output::print_json(&json!({ "host": host, "trusted": trusted }))?;
        return Ok(Outcome::Complete);
    }
    for ((line, is_new), signer) in lines.iter().zip(&signers) {
        let how = match is_new {
            true => "remembered",
            false => "remembered already",
        };
        let at = context.signers().line(*line);
        output::print_line(format_args!(
            "{how}: {} signs for {host} ({at})",
            signer.fingerprint()
        ))?;
    }
    Ok(Outcome::Complete)
}

fn forget(context: &Context, args: &ForgetArgs) -> Result<Outcome, Failure> {
    let asked = options(&args.from, &args.host, None);
    // A place is no URL, and a name that no remote has any more leads nowhere.
    let (source, unread) = match asked.source() {
        Ok(source) => (source, None),
        Err(failure) => (None, Some(failure)),
    };
    let (spec, remote) = source.map_or((None, None), |(spec, remote)| (Some(spec), remote));
    let place = spec.and_then(|spec| storage::place(&spec).ok());
    let host = args.host.clone().or(remote.and_then(|remote| remote.host));
    let is_meant = |one: &KnownSigner| {
        let is_there = Some(&one.place) == place.as_ref() || one.place == args.from;
        is_there && host.as_ref().is_none_or(|host| one.host == *host)
    };
    let gone = signer_memory::forget(is_meant)?;
    if gone.is_empty() {
        // Without the file of remotes it is unknown where a name leads.
        if let Some(failure) = unread {
            return Err(failure);
        }
        return Err(
            Failure::usage(format!("no signer is remembered for {}", args.from))
                .hint("`sealift --json remote list` shows the signers of each remote"),
        );
    }
    if context.json {
        let forgotten: Vec<KnownRow> = gone.iter().map(KnownRow::of).collect();
        output::print_json(&json!({ "forgotten": forgotten }))?;
        return Ok(Outcome::Complete);
    }
    for (line, signer) in &gone {
        output::print_line(format_args!(
            "forgot {} of {} at {} ({})",
            signer.fingerprint(),
            signer.host,
            signer.place,
            context.signers().line(*line)
        ))?;
    }
    Ok(Outcome::Complete)
}
