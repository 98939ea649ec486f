//! The target that a command reads, and whose signatures it believes there.

use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::kept_places::KeptPlaces;
use super::named_place::{self, NamedPlace};
use super::signer_check::{self, SeenPlace};
use super::{Context, output};
use crate::base::ids::{HostName, MANIFESTS};
use crate::base::progress::Stage;
use crate::base::rate_schedule::Timetable;
use crate::config::{self, Config};
use crate::format::chain::{Chain, ChainError};
use crate::format::signature::Trust;
use crate::jobs::context::FrontEnd;
use crate::jobs::signer_memory::Basis;
use crate::jobs::targets::{no_such_target, open_target, own_trust, spec};
use crate::repository::{self, HostFolder, RepositoryError};
use crate::restore::RangeReaderOptions;
use crate::storage::{self, OpenError, Storage, TargetSpec};

/// The target to read: a URL, which needs no configuration, or a target of the configuration.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoteArgs {
    /// A target's URL, such as s3://bucket/prefix or /backups, or a remote's name
    /// (`sealift remote`); needs no config
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    pub(super) from: Option<String>,
    /// The name of a [[target]] of the config
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<String>,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<HostName>,
    /// Trust only this signer: SHA256:... fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    pub(super) signer: Option<String>,
    /// Trust the signer of the oldest snapshot there without asking, if none is remembered
    #[arg(long)]
    pub(super) accept_signer: bool,
    /// S3 endpoint for --from
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,
    /// S3 region for --from
    #[arg(long, value_name = "REGION")]
    pub(super) region: Option<String>,
    /// For rsync and sftp over ssh with --from: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    pub(super) ssh: Option<String>,
}

/// Whether the signers that are remembered count, and new ones are remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MemoryUse {
    Yes,
    No,
}

/// A host's folder that was opened, and whose signatures count there.
pub(super) struct Remote {
    pub(super) folder: HostFolder,
    pub(super) trust: Trust,
    pub(super) chain: Chain,
    /// The place's name, under which its signers are remembered.
    pub(super) place: String,
}

impl RemoteArgs {
    /// Fails if the options name a target: what is there takes an identity to read.
    pub(super) fn refuse_without_identity(&self) -> Result<(), Failure> {
        match self.from.is_some() || self.target.is_some() {
            true => Err(
                Failure::usage("the content of a snapshot on a target is encrypted")
                    .hint("give the key holder's identity with --identity FILE"),
            ),
            false => Ok(()),
        }
    }

    /// Opens the target, finds the host, verifies its manifests; asks about an unknown signer.
    pub(super) async fn open(&self, context: &Context) -> Result<Remote, Failure> {
        self.open_with(context, None, None, MemoryUse::Yes).await
    }

    /// Opens it, and keeps its small objects in the cache of `options`, so that they are read once.
    /// If `is_offline`, the target is not asked: only what is kept is there.
    pub(super) async fn open_kept(
        &self,
        context: &Context,
        options: &RangeReaderOptions,
        is_offline: bool,
    ) -> Result<Remote, Failure> {
        let kept = KeptPlaces::of(options, is_offline)?;
        self.open_with(context, None, kept.as_ref(), MemoryUse::Yes)
            .await
    }

    /// Opens it with the signer that the options name, and neither compares it with the remembered
    /// one nor remembers anything.
    pub(super) async fn open_quietly(&self, context: &Context) -> Result<Remote, Failure> {
        self.open_with(context, None, None, MemoryUse::No).await
    }

    /// Does the same with at most the rate `download` from a URL.
    pub(super) async fn open_limited(
        &self,
        context: &Context,
        download: Option<Timetable>,
    ) -> Result<Remote, Failure> {
        self.open_with(context, download, None, MemoryUse::Yes)
            .await
    }

    async fn open_with(
        &self,
        context: &Context,
        download: Option<Timetable>,
        kept: Option<&KeptPlaces>,
        memory: MemoryUse,
    ) -> Result<Remote, Failure> {
        let place = self.place(context, download, kept)?;
        context.stage(Stage::InspectingTargets, Some(place.target.label()));
        let host = match &place.host {
            Some(host) => host.clone(),
            None => find_host(&place.target).await?,
        };
        let own = place.config.as_ref().filter(|config| config.host == host);
        let (mut trust, mut basis) = match (&place.signer, own) {
            (Some(text), _) => (trust_of(text)?, Basis::Given),
            (None, Some(config)) => (own_trust(config, context)?, Basis::Own),
            (None, None) => context.signers().trust(&place.name, &host)?,
        };
        let target = place.target;
        let folder = HostFolder { target, host };
        let mut chain = folder.chain(&trust).await;
        if let (Basis::Elsewhere(_), Err(error)) = (&basis, &chain)
            && signer_check::is_signed_by_strangers(error)
        {
            (trust, basis) = (Trust::FirstSeen, Basis::Unknown);
            chain = folder.chain(&trust).await;
        }
        let chain = match chain {
            Err(RepositoryError::Chain(ChainError::Empty(_))) if self.host.is_some() => {
                return Err(no_such_host(&folder).await);
            }
            // The only folder there was assumed to be a host's, and is not.
            Err(RepositoryError::Chain(ChainError::Empty(_)))
                if self.from.is_some() && place.host.is_none() =>
            {
                return Err(no_host_there(&folder.target).await);
            }
            Err(error) => {
                return Err(signer_check::refused(
                    context,
                    &place.name,
                    &folder,
                    basis,
                    error,
                ));
            }
            Ok(chain) => chain,
        };
        let seen = SeenPlace {
            name: &place.name,
            folder: &folder,
            chain: &chain,
        };
        if memory == MemoryUse::Yes
            && let Some(confirmed) = seen.check(context, &basis, self.accept_signer)?
        {
            trust = confirmed;
        }
        Ok(Remote {
            folder,
            trust,
            chain,
            place: place.name,
        })
    }

    /// Returns these arguments for each host that they may mean: with a URL and no host, for each
    /// host on that target.
    pub(super) async fn for_each_host(&self, context: &Context) -> Result<Vec<Self>, Failure> {
        let place = self.place(context, None, None)?;
        if place.host.is_some() {
            return Ok(vec![self.clone()]);
        }
        let hosts = repository::hosts(&place.target).await?;
        if hosts.is_empty() {
            // Opening it reports that.
            return Ok(vec![self.clone()]);
        }
        let of_host = |host| Self {
            host: Some(host),
            ..self.clone()
        };
        Ok(hosts.into_iter().map(of_host).collect())
    }

    /// Returns the host whose snapshots are meant, and whose signatures count, with a
    /// configuration.
    pub(super) fn whom(
        &self,
        config: &Config,
        front: &dyn FrontEnd,
    ) -> Result<(HostName, Trust), Failure> {
        let host = self.host.clone().unwrap_or_else(|| config.host.clone());
        let trust = match &self.signer {
            Some(text) => trust_of(text)?,
            None if host == config.host => own_trust(config, front)?,
            None => Trust::FirstSeen,
        };
        Ok((host, trust))
    }

    /// Returns the settings of the target that `--from` names, and the remote if it is one; `None`
    /// without `--from`. What the command line says counts more than what the remote says.
    pub(super) fn source(
        &self,
    ) -> Result<Option<(TargetSpec, Option<config::remotes::NamedRemote>)>, Failure> {
        self.source_by(named_place::remote_or_folder)
    }

    /// Does the same with `find` to find the remote of a name.
    fn source_by(
        &self,
        find: impl Fn(&str) -> Result<Option<config::remotes::NamedRemote>, Failure>,
    ) -> Result<Option<(TargetSpec, Option<config::remotes::NamedRemote>)>, Failure> {
        let Some(text) = &self.from else {
            return Ok(None);
        };
        let remote = find(text)?;
        let named = remote.as_ref().map(config::remotes::NamedRemote::spec);
        let named = named.unwrap_or_else(|| TargetSpec::from_url(text));
        let spec = TargetSpec {
            endpoint: self.endpoint.clone().or(named.endpoint.clone()),
            region: self.region.clone().or(named.region.clone()),
            ssh: self.ssh.clone().or(named.ssh.clone()),
            ..named
        };
        Ok(Some((spec, remote)))
    }

    /// Opens the target that the options name.
    fn place(
        &self,
        context: &Context,
        download: Option<Timetable>,
        kept: Option<&KeptPlaces>,
    ) -> Result<ReadPlace, Failure> {
        let is_offline = kept.is_some_and(|kept| kept.is_offline);
        let source = match is_offline {
            // A folder need not be there.
            true => self.source_by(named_place::remote_of_name)?,
            false => self.source()?,
        };
        if let Some((spec, remote)) = source {
            if !is_offline {
                check_folder(&spec.url)?;
            }
            let remote = remote.as_ref();
            let spec = TargetSpec {
                download,
                patience: context.patience(),
                ..spec
            };
            let name = storage::place(&spec).map_err(Failure::usage)?;
            let open = || storage::open(&spec).map_err(Failure::usage);
            return Ok(ReadPlace {
                target: KeptPlaces::open(kept, &name, &spec, open)?,
                name,
                host: self
                    .host
                    .clone()
                    .or(remote.and_then(|remote| remote.host.clone())),
                signer: self
                    .signer
                    .clone()
                    .or(remote.and_then(|remote| remote.signer.clone())),
                config: None,
            });
        }
        let config = context
            .load_config()
            .map_err(|failure| failure.hint("on a machine without a config, give --from URL"))?;
        let chosen = match &self.target {
            Some(name) => config
                .target(name)
                .ok_or_else(|| no_such_target(&config, name))?,
            None => config
                .targets
                .first()
                .ok_or_else(|| Failure::usage("no target is configured"))?,
        };
        let of_target = spec(chosen);
        let name = storage::place(&of_target).map_err(Failure::usage)?;
        let open = || Ok(open_target(chosen)?.target);
        Ok(ReadPlace {
            target: KeptPlaces::open(kept, &name, &of_target, open)?,
            name,
            host: Some(self.host.clone().unwrap_or_else(|| config.host.clone())),
            signer: self.signer.clone(),
            config: Some(config),
        })
    }
}

/// An opened target, and what the options, a remote or the configuration say about it.
struct ReadPlace {
    target: Arc<dyn Storage>,
    /// The place's name, under which its signers are remembered.
    name: String,
    /// `None`: the only host there.
    host: Option<HostName>,
    /// The signer to trust, as the operator named it.
    signer: Option<String>,
    /// The configuration that names the target; `None` for a URL or a remote.
    config: Option<Config>,
}

/// Returns the only host with snapshots on `target`.
async fn find_host(target: &Arc<dyn Storage>) -> Result<HostName, Failure> {
    let possible = repository::possible_hosts(target).await?;
    // The manifests of a single folder are listed next anyway, and a listing may be a run of rsync.
    let hosts = match possible.len() {
        1 => possible,
        _ => repository::hosts_among(target, possible).await?,
    };
    match hosts.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(no_host_there(target).await),
        several => {
            let names: Vec<&str> = several.iter().map(HostName::as_str).collect();
            Err(Failure::usage(format!(
                "{} holds several hosts: {}",
                target.label(),
                names.join(", ")
            ))
            .hint("choose one with --host"))
        }
    }
}

/// The error for a host that has no backups on the target.
async fn no_such_host(folder: &HostFolder) -> Failure {
    let label = folder.target.label();
    let error = Failure::from_error(format!("no backups of {} found at {label}", folder.host));
    match repository::hosts(&folder.target).await {
        Ok(hosts) if !hosts.is_empty() => {
            let names = hosts.iter().map(HostName::as_str);
            error.hint(format!("there are backups of {}", listed(names)))
        }
        _ => no_host_there(&folder.target).await,
    }
}

/// The error for a target without backups. It names the folders that are there.
async fn no_host_there(target: &Arc<dyn Storage>) -> Failure {
    let found = target.list_folders().await.unwrap_or_default();
    let hint = if found.iter().any(|name| name == MANIFESTS) {
        "this is a host's own folder: remove the last part of the URL".to_owned()
    } else if found.is_empty() {
        "check the URL: it is the folder that holds the host's folder".to_owned()
    } else {
        format!(
            "check the URL: it is the folder that holds the host's folder; the folders there are {}",
            listed(found.iter().map(String::as_str))
        )
    };
    Failure::from_error(format!("no backups found at {}", target.label())).hint(hint)
}

/// Most names that a hint lists.
const MOST_NAMES: usize = 10;

/// Returns the first names, and the number of the others.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let names: Vec<&str> = names.take(MOST_NAMES).collect();
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// A target that the operator names: by its name in the configuration, or by a URL.
pub(super) struct Side<'a> {
    /// The name or the URL.
    pub(super) text: &'a str,
    pub(super) endpoint: &'a Option<String>,
    pub(super) region: &'a Option<String>,
    pub(super) ssh: &'a Option<String>,
}

impl Side<'_> {
    /// Returns the settings of the target. Text without a slash or a colon is a name.
    pub(super) fn spec(&self, context: &Context) -> Result<TargetSpec, Failure> {
        Ok(match named_place::look_up(context, self.text)? {
            NamedPlace::Target(spec) => spec,
            NamedPlace::Remote(remote) => self.with_options(context, remote.spec()),
            NamedPlace::Url => self.with_options(context, TargetSpec::from_url(self.text)),
        })
    }

    fn with_options(&self, context: &Context, named: TargetSpec) -> TargetSpec {
        TargetSpec {
            endpoint: self.endpoint.clone().or(named.endpoint.clone()),
            region: self.region.clone().or(named.region.clone()),
            ssh: self.ssh.clone().or(named.ssh.clone()),
            patience: context.patience(),
            ..named
        }
    }

    /// Returns the remote that the text names; `None` if it names something else.
    pub(super) fn remote(
        &self,
        context: &Context,
    ) -> Result<Option<config::remotes::NamedRemote>, Failure> {
        Ok(match named_place::look_up(context, self.text)? {
            NamedPlace::Remote(remote) => Some(remote),
            NamedPlace::Target(_) | NamedPlace::Url => None,
        })
    }

    /// Returns a text that is equal for two ways to write one place, as far as this machine knows.
    pub(super) fn place(&self, context: &Context) -> Result<String, Failure> {
        storage::place(&self.spec(context)?).map_err(Failure::usage)
    }

    /// Opens it to read.
    pub(super) fn open_for_reading(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        let spec = self.spec(context)?;
        check_folder(&spec.url)?;
        storage::open(&spec).map_err(Failure::usage)
    }

    /// Opens it to write, and makes a missing folder.
    pub(super) fn open_for_writing(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        storage::open(&self.spec(context)?).map_err(Failure::usage)
    }

    /// Opens it without making a folder. A folder that does not exist is as good as an empty one.
    pub(super) fn open_if_there(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        let spec = self.spec(context)?;
        match check_folder(&spec.url) {
            Ok(()) => storage::open(&spec).map_err(Failure::usage),
            Err(_) => storage::open(&TargetSpec::from_url("memory://")).map_err(Failure::usage),
        }
    }
}

/// Requires that a folder to read exists, since opening it for writing would make it.
fn check_folder(url: &str) -> Result<(), Failure> {
    let Some(path) = storage::folder_path(url) else {
        return Ok(());
    };
    storage::check_folder(&path).map_err(|error| match error {
        OpenError::Absent(path) => {
            let text = format!("there is no folder {}", path.display());
            let hint = "is the disk mounted? The folder is the one that holds the host's folder";
            Failure::from_error(text).hint(hint)
        }
        error => Failure::from(error),
    })
}

/// Parses what `--signer` takes, and warns about lines of the file that have no effect.
pub(super) fn trust_of(text: &str) -> Result<Trust, Failure> {
    Trust::parse_noting(text, note_line).map_err(Failure::usage)
}

fn note_line(text: String) {
    output::tell(format_args!("warning: {text}"));
}
