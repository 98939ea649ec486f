//! Which target a command looks at, and whose signatures it believes.

use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::{Context, output, terminal};
use crate::base::ids::HostName;
use crate::base::ownership;
use crate::base::rate_schedule::Timetable;
use crate::config::{Config, TargetConfig};
use crate::format::allowed_signers::AllowedSigner;
use crate::format::chain::{Chain, ChainError};
use crate::format::signature::{SignatureError, Signer, Trust};
use crate::jobs::push::Target;
use crate::repository::{self, HostFolder, RepositoryError};
use crate::storage::{self, OpenError, Storage, TargetSpec};

/// Where to read from: a URL and nothing else (a fresh machine), or a target of the config.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// A target's URL, such as s3://bucket/prefix or /backups; needs no config
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    pub from: Option<String>,
    /// The name of a [[target]] of the config
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Whose backups, where a target holds several hosts'
    #[arg(long, value_name = "NAME")]
    pub host: Option<HostName>,
    /// Trust only this signer: SHA256:… fingerprint, or an allowed_signers or public key file
    #[arg(long, value_name = "SIGNER")]
    pub signer: Option<String>,
    /// Trust whoever signed the oldest snapshot there, without asking
    #[arg(long)]
    pub accept_signer: bool,
    /// S3 endpoint for --from
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// S3 region for --from
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// For rsync and sftp over ssh with --from: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    pub ssh: Option<String>,
}

/// A host's folder, and whom to believe there.
pub struct Remote {
    pub folder: HostFolder,
    pub trust: Trust,
    pub chain: Chain,
}

impl RemoteArgs {
    /// Opens the target, finds the host, verifies its manifests; asks about an unknown signer.
    pub async fn open(&self, context: &Context) -> Result<Remote, Failure> {
        self.open_limited(context, None).await
    }

    /// The same, fetching no faster than `download`, with --from.
    pub async fn open_limited(
        &self,
        context: &Context,
        download: Option<Timetable>,
    ) -> Result<Remote, Failure> {
        let (target, host, trust) = match &self.from {
            Some(url) => {
                check_folder(url)?;
                let spec = TargetSpec {
                    endpoint: self.endpoint.clone(),
                    region: self.region.clone(),
                    ssh: self.ssh.clone(),
                    download,
                    ..TargetSpec::from_url(url)
                };
                let target = storage::open(&spec).map_err(Failure::usage)?;
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
                    .then(|| own_trust(&config))
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
            // The only folder there was taken for a host's without a look at it.
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

    /// Whose snapshots, and who may have signed them, where the config says.
    pub fn whom(&self, config: &Config) -> Result<(HostName, Trust), Failure> {
        let host = self.host.clone().unwrap_or_else(|| config.host.clone());
        let trust = match &self.signer {
            Some(text) => trust_of(text)?,
            None if host == config.host => own_trust(config)?,
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
        open_target(chosen)
    }

    async fn find_host(&self, target: &Arc<dyn storage::Storage>) -> Result<HostName, Failure> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let possible = repository::possible_hosts(target).await?;
        // Its manifests are listed next anyway, and each listing may be a whole call of rsync.
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
        // At a fork there is no latest snapshot, but what is asked for by name is not affected.
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
            "compare it with what `init` printed, then give --signer {signer}; or trust it unseen with --accept-signer"
        )))
    }
}

fn no_host_there(target: &Arc<dyn Storage>) -> Failure {
    Failure::from_error(format!("no host's backups are on {}", target.label()))
        .hint("check the URL: it is the folder that holds the host's folder")
}

/// One side of a `sync`: the name of a configured target, or a URL.
pub struct Side<'a> {
    pub text: &'a str,
    pub endpoint: &'a Option<String>,
    pub region: &'a Option<String>,
    pub ssh: &'a Option<String>,
}

impl Side<'_> {
    /// A name goes before a path; what has a slash or a colon in it is no name.
    fn spec(&self, context: &Context) -> Result<TargetSpec, Failure> {
        if !self.text.contains(['/', ':']) {
            let config = context.load_config().map_err(|failure| {
                let hint = format!("for a folder write ./{}", self.text);
                failure.hint(hint)
            })?;
            return match config.target(self.text) {
                Some(target) => Ok(spec(target)),
                None => Err(no_such_target(&config, self.text)
                    .hint(format!("for a folder write ./{}", self.text))),
            };
        }
        Ok(TargetSpec {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ssh: self.ssh.clone(),
            ..TargetSpec::from_url(self.text)
        })
    }

    /// The same for two ways to write one place, as far as this machine can tell.
    pub fn place(&self, context: &Context) -> Result<String, Failure> {
        let url = self.spec(context)?.url;
        Ok(match storage::folder_path(&url) {
            Some(path) => path.canonicalize().unwrap_or(path).display().to_string(),
            None => url.trim_end_matches('/').to_owned(),
        })
    }

    pub fn open_for_reading(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        let spec = self.spec(context)?;
        check_folder(&spec.url)?;
        storage::open(&spec).map_err(Failure::usage)
    }

    pub fn open_for_writing(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        storage::open(&self.spec(context)?).map_err(Failure::usage)
    }

    /// Without making a folder.
    pub fn open_if_there(&self, context: &Context) -> Result<Arc<dyn Storage>, Failure> {
        let spec = self.spec(context)?;
        match check_folder(&spec.url) {
            Ok(()) => storage::open(&spec).map_err(Failure::usage),
            // As empty as a folder that is not there.
            Err(_) => storage::open(&TargetSpec::from_url("memory://")).map_err(Failure::usage),
        }
    }
}

pub fn no_such_target(config: &Config, name: &str) -> Failure {
    let names: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    Failure::usage(format!(
        "no target is named {name}; there are: {}",
        names.join(", ")
    ))
}

/// A folder to read from must be there: opening one for writing would make it.
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
pub fn trust_of(text: &str) -> Result<Trust, Failure> {
    Trust::parse_noting(text, note_line).map_err(Failure::usage)
}

fn note_line(text: String) {
    output::tell(format_args!("warning: {text}"));
}

/// The host's own signer, and whoever stands in the `allowed_signers` file beside it (earlier
/// signers of this host, after a rotation).
pub fn own_trust(config: &Config) -> Result<Trust, Failure> {
    let own = Signer::load(&config.signer)?.public_key().clone();
    let listed = config.signer.with_file_name("allowed_signers");
    let path = listed.display().to_string();
    let mut signers = match ownership::open_regular(&listed) {
        Ok(file) => match Trust::read(&path, file, note_line)? {
            Trust::AllowedSigners(signers) => signers,
            Trust::Key(key) => vec![AllowedSigner::for_host(&config.host, key)],
            Trust::Fingerprint(_) | Trust::FirstSeen => Vec::new(),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SignatureError::Read { path, source }.into()),
    };
    signers.push(AllowedSigner::for_host(&config.host, own));
    Ok(Trust::AllowedSigners(signers))
}

fn spec(config: &TargetConfig) -> TargetSpec {
    TargetSpec {
        name: config.name.clone(),
        url: config.url.clone(),
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        path_style: config.path_style.then_some(true),
        timeout_seconds: config.timeout.map(|timeout| timeout.as_secs()),
        retry_seconds: config.retry.map(|retry| retry.as_secs()),
        ssh: config.ssh.clone(),
        upload: config.upload.clone(),
        download: config.download.clone(),
        concurrency: config.concurrency,
        write_only: config.write_only,
        data_class: config.data_class.clone(),
        class: config.class.clone(),
        allow_http: false,
    }
}

fn named(config: &TargetConfig, target: Arc<dyn Storage>) -> Target {
    Target {
        name: config.name.clone(),
        target,
        concurrency: spec(config).concurrency(),
        write_only: config.write_only,
    }
}

/// Opens a target to look at it.
pub fn open_target(config: &TargetConfig) -> Result<Target, Failure> {
    let target = storage::open_existing(&spec(config), None).map_err(Failure::usage)?;
    Ok(named(config, target))
}

/// Opens a target to push to it. A folder that held this host's snapshots must hold its folder still: an
/// empty one is where a disk is not mounted.
pub fn open_for_push(
    config: &TargetConfig,
    host: &HostName,
    has_published: bool,
) -> Result<Target, Failure> {
    let below = has_published.then_some(host.as_str());
    let target = storage::open_existing(&spec(config), below).map_err(Failure::usage)?;
    Ok(named(config, target))
}

/// Opens a target for the first time, making its folder.
pub fn make_target(config: &TargetConfig) -> Result<Target, Failure> {
    let target = storage::open_or_offline(&spec(config)).map_err(Failure::usage)?;
    Ok(named(config, target))
}

/// A small runtime for the commands that only read.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(runtime)
}
