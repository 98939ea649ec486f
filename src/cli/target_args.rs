//! The target that a command reads, and whose signatures it believes there.

use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::{Context, output, terminal};
use crate::base::ids::HostName;
use crate::base::rate_schedule::Timetable;
use crate::config::Config;
use crate::format::chain::{Chain, ChainError};
use crate::format::signature::Trust;
use crate::jobs::context::FrontEnd;
use crate::jobs::push::Target;
use crate::jobs::targets::{no_such_target, open_target, own_trust, spec};
use crate::repository::{self, HostFolder, RepositoryError};
use crate::storage::{self, OpenError, Storage, TargetSpec};

/// The target to read: a URL, which needs no configuration, or a target of the configuration.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoteArgs {
    /// A target's URL, such as s3://bucket/prefix or /backups; needs no config
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    pub(super) from: Option<String>,
    /// The name of a [[target]] of the config
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<String>,
    /// Which host, if the target holds several
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<HostName>,
    /// Trust only this signer: SHA256:… fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    pub(super) signer: Option<String>,
    /// Trust the signer of the oldest snapshot there without asking
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

/// A host's folder that was opened, and whose signatures count there.
pub(super) struct Remote {
    pub(super) folder: HostFolder,
    pub(super) trust: Trust,
    pub(super) chain: Chain,
}

impl RemoteArgs {
    /// Opens the target, finds the host, verifies its manifests; asks about an unknown signer.
    pub(super) async fn open(&self, context: &Context) -> Result<Remote, Failure> {
        self.open_limited(context, None).await
    }

    /// Does the same with at most the rate `download` from a URL.
    pub(super) async fn open_limited(
        &self,
        context: &Context,
        download: Option<Timetable>,
    ) -> Result<Remote, Failure> {
        let (target, host, trust) = match &self.from {
            Some(url) => {
                let target = self.open_url(url, download)?;
                let host = self.find_host(&target).await?;
                (target, host, None)
            }
            None => {
                let config = context.load_config().map_err(|failure| {
                    failure.hint("on a machine without a config, give --from URL")
                })?;
                let named = self.choose(&config)?;
                let host = self.host.clone().unwrap_or_else(|| config.host.clone());
                let own = (host == config.host)
                    .then(|| own_trust(&config, context))
                    .transpose()?;
                (named.target, host, own)
            }
        };
        let folder = HostFolder { target, host };
        let trust = match (&self.signer, trust) {
            (Some(text), _) => trust_of(text)?,
            (None, Some(own)) => own,
            (None, None) => Trust::FirstSeen,
        };
        let chain = match folder.chain(&trust).await {
            // The only folder there was assumed to be a host's, and is not.
            Err(RepositoryError::Chain(ChainError::Empty(_)))
                if self.from.is_some() && self.host.is_none() =>
            {
                return Err(no_host_there(&folder.target));
            }
            other => other?,
        };
        if let Trust::FirstSeen = trust {
            self.confirm_signer(context, &folder, &chain)?;
        }
        Ok(Remote {
            folder,
            trust,
            chain,
        })
    }

    fn open_url(
        &self,
        url: &str,
        download: Option<Timetable>,
    ) -> Result<Arc<dyn Storage>, Failure> {
        check_folder(url)?;
        let spec = TargetSpec {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ssh: self.ssh.clone(),
            download,
            ..TargetSpec::from_url(url)
        };
        storage::open(&spec).map_err(Failure::usage)
    }

    /// Returns these arguments for each host that they may mean: with a URL and no host, for each
    /// host on that target.
    pub(super) async fn for_each_host(&self) -> Result<Vec<Self>, Failure> {
        let (Some(url), None) = (&self.from, &self.host) else {
            return Ok(vec![self.clone()]);
        };
        let hosts = repository::hosts(&self.open_url(url, None)?).await?;
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

    fn choose(&self, config: &Config) -> Result<Target, Failure> {
        let chosen = match &self.target {
            Some(name) => config
                .target(name)
                .ok_or_else(|| no_such_target(config, name))?,
            None => config
                .targets
                .first()
                .ok_or_else(|| Failure::usage("no target is configured"))?,
        };
        Ok(open_target(chosen)?)
    }

    async fn find_host(&self, target: &Arc<dyn storage::Storage>) -> Result<HostName, Failure> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let possible = repository::possible_hosts(target).await?;
        // The manifests of a single folder are listed next anyway, and a listing may be a run of
        // rsync.
        let hosts = match possible.len() {
            1 => possible,
            _ => repository::hosts_among(target, possible).await?,
        };
        match hosts.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(no_host_there(target)),
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

    fn confirm_signer(
        &self,
        context: &Context,
        folder: &HostFolder,
        chain: &Chain,
    ) -> Result<(), Failure> {
        // A fork has no latest snapshot, but snapshots can still be chosen by name.
        let signer = match chain.snapshots.last() {
            Some(newest) => &newest.signer,
            None => &chain.latest()?.signer,
        };
        let host = &folder.host;
        if self.accept_signer {
            context.note(format_args!("accepted the signer of {host}: {signer}"));
            return Ok(());
        }
        let question = format!(
            "The snapshots of {host} are signed by\n  {signer}\nCompare it with what `init` printed, or with \
             the paper page. Is it the signer of {host}?"
        );
        if terminal::is_interactive() && terminal::confirm(&question)? {
            return Ok(());
        }
        Err(Failure::from_error(format!(
            "the signer of {host} ({signer}) is not confirmed; nothing was read"
        ))
        .hint(format!(
            "compare it with what `init` printed, then give --signer {signer}; or trust it without asking with --accept-signer"
        )))
    }
}

fn no_host_there(target: &Arc<dyn Storage>) -> Failure {
    Failure::from_error(format!("no backups found at {}", target.label()))
        .hint("check the URL: it is the folder that holds the host's folder")
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
    fn spec(&self, context: &Context) -> Result<TargetSpec, Failure> {
        if !self.text.contains(['/', ':']) {
            let config = context.load_config().map_err(|failure| {
                let hint = format!("for a folder write ./{}", self.text);
                failure.hint(hint)
            })?;
            return match config.target(self.text) {
                Some(target) => Ok(spec(target)),
                None => Err(no_such_target(&config, self.text)
                    .with_next(format!("for a folder write ./{}", self.text))
                    .into()),
            };
        }
        Ok(TargetSpec {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ssh: self.ssh.clone(),
            ..TargetSpec::from_url(self.text)
        })
    }

    /// Returns a text that is equal for two ways to write one place, as far as this machine knows.
    pub(super) fn place(&self, context: &Context) -> Result<String, Failure> {
        let url = self.spec(context)?.url;
        Ok(match storage::folder_path(&url) {
            Some(path) => path.canonicalize().unwrap_or(path).display().to_string(),
            None => url.trim_end_matches('/').to_owned(),
        })
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
