//! The content of `restore --in-place`: a local snapshot, unless one of these options names another
//! one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::super::terminal;
use super::{
    Context, Failure, IN_PLACE, RestoreArgs, announce, choose, failed, prompt, tell_about, thaw,
};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::jobs::context::runtime;
use crate::jobs::in_place_content::{
    EXCHANGE, FetchError, FetchRequest, InPlaceContent, Receiving,
};
use crate::repository::HostFolder;
use crate::restore::RestoreError;
use crate::restore::open::Identities;

/// The options that say where the content of a restore in place comes from.
#[derive(Debug, Args)]
pub(super) struct ContentArgs {
    /// With --in-place: the content is in DIR, which `restore --to` made, here or elsewhere
    #[arg(
        long,
        value_name = "DIR",
        requires = "in_place",
        help_heading = IN_PLACE,
        conflicts_with_all = ["from", "target", "identity", "stdin", "via"],
    )]
    pub(super) dir: Option<PathBuf>,
    /// With --in-place: the content comes on standard input, from `restore --via`; events go to
    /// standard output
    #[arg(
        long,
        requires = "in_place",
        help_heading = IN_PLACE,
        conflicts_with_all = ["from", "target", "identity", "via"],
    )]
    pub(super) stdin: bool,
    /// With --in-place and --identity: decrypt on this host, although it is the one that is backed
    /// up
    #[arg(
        long,
        requires = "in_place",
        requires = "identity",
        conflicts_with = "via",
        help_heading = IN_PLACE
    )]
    pub(super) identity_on_this_host: bool,
    /// With --in-place: decrypt here, and put the content in place on another host, which this
    /// command leads to: "ssh root@HOST"
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "in_place",
        requires = "identity",
        help_heading = IN_PLACE
    )]
    pub(super) via: Option<String>,
    /// Temporary directory for --via, for the decrypted files [default: the system's]
    #[arg(long, value_name = "DIR", requires = "via", help_heading = IN_PLACE)]
    pub(super) scratch: Option<PathBuf>,
}

/// Returns the content of a restore in place on this host. `only` are the names of the sources to
/// restore; empty: all.
pub(super) fn content(
    context: &Context,
    args: &RestoreArgs,
    config: &Config,
    choice: &SnapshotChoice,
    only: &[String],
) -> Result<InPlaceContent, Failure> {
    let chosen = config.sources.iter();
    let chosen = chosen.filter(|source| only.is_empty() || only.contains(&source.name));
    let wanted: Vec<&str> = chosen.map(|source| source.to.as_str()).collect();
    if let Some(dir) = &args.content.dir {
        return Ok(InPlaceContent::of_directory(dir, &wanted, context)?);
    }
    if args.content.stdin {
        return received(context, config, &wanted);
    }
    if args.remote.from.is_some() || args.remote.target.is_some() {
        return fetched(context, args, config, choice);
    }
    Ok(InPlaceContent::local(config, choice, context)?)
}

/// Receives the content from the key holder's machine.
fn received(
    context: &Context,
    config: &Config,
    wanted: &[&str],
) -> Result<InPlaceContent, Failure> {
    let Some(stream) = &context.stream else {
        return Err(Failure::usage(
            "--stdin needs its standard output for events",
        ));
    };
    let receiving = Receiving::start(io::stdin())?;
    stream.ready(EXCHANGE, config.host.as_str());
    let tell = || stream.received();
    Ok(receiving.receive(config, wanted, &tell, context)?)
}

/// Fetches the content from a target, with an identity on this host.
fn fetched(
    context: &Context,
    args: &RestoreArgs,
    config: &Config,
    choice: &SnapshotChoice,
) -> Result<InPlaceContent, Failure> {
    if args.identity.is_empty() {
        let what = "a restore in place from a target needs an identity";
        return Err(Failure::usage(what).hint(
            "without --from and --target it takes this host's own snapshot, which needs none; or restore from the key \
             holder's machine with --via \"ssh root@HOST\"",
        ));
    }
    accept_identity(args, config)?;
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    runtime()?.block_on(async {
        let request = request(context, args, choice, identities).await?;
        let folder = request.folder.clone();
        let tell = |plan: &_| announce(context, plan);
        match InPlaceContent::fetch(config, request, &tell, context).await {
            Ok((content, report)) => {
                tell_about(context, &report);
                Ok(content)
            }
            Err(error) => Err(not_fetched(error, args, &folder).await),
        }
    })
}

/// Opens the target that the options name, and returns what to fetch from it.
pub(super) async fn request(
    context: &Context,
    args: &RestoreArgs,
    choice: &SnapshotChoice,
    identities: Arc<Identities>,
) -> Result<FetchRequest, Failure> {
    let remote = args.remote.open(context).await?;
    let (folder, chain) = (remote.folder, remote.chain);
    let snapshot = choose::exactly(context, &folder, &chain, choice, &identities).await?;
    Ok(FetchRequest {
        folder,
        chain,
        snapshot,
        at_least: args.at_least,
        identities,
    })
}

/// Returns the failure of a fetch, with the next step of a restore. Requests archives from cold
/// storage, if that is meant.
pub(super) async fn not_fetched(
    error: FetchError,
    args: &RestoreArgs,
    folder: &HostFolder,
) -> Failure {
    match (error, args.thaw) {
        (FetchError::Restore(RestoreError::Frozen(frozen)), Some(days)) if !args.dry_run => {
            thaw::ask(folder, &frozen, days).await
        }
        (FetchError::Restore(error), _) => failed(error),
        (FetchError::Job(error), _) => error.into(),
    }
}

/// Requires that the operator accepts the risk of an identity on a host that makes backups.
fn accept_identity(args: &RestoreArgs, config: &Config) -> Result<(), Failure> {
    if args.content.identity_on_this_host || !config.signer.exists() {
        return Ok(());
    }
    let risk = format!(
        "{} is the host that is backed up: who controls it can copy an identity that is used on it, and read all of \
         its backups",
        config.host
    );
    if !terminal::is_interactive() {
        return Err(Failure::usage(risk).hint(
            "restore from the key holder's machine with --via \"ssh root@HOST\", which keeps the identity there; or \
             accept the risk with --identity-on-this-host",
        ));
    }
    match terminal::confirm(&format!("{risk}. Use the identity here nevertheless?"))? {
        true => Ok(()),
        false => Err(
            Failure::from_error("the identity was not used; nothing was changed")
                .hint("restore from the key holder's machine with --via \"ssh root@HOST\""),
        ),
    }
}
