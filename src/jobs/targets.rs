//! Opens the configured targets, and loads the signers that this host trusts.

use std::sync::Arc;

use super::context::FrontEnd;
use super::error::JobError;
use super::push::Target;
use crate::base::ids::HostName;
use crate::base::ownership;
use crate::config::{Config, TargetConfig};
use crate::format::allowed_signers::AllowedSigner;
use crate::format::signature::{SignatureError, Signer, Trust};
use crate::storage::{self, Storage, TargetSpec};

/// Returns the trust in this host's own signer and in the signers of the `allowed_signers` file
/// beside it, which lists the host's earlier signers after a rotation.
pub(crate) fn own_trust(config: &Config, front: &dyn FrontEnd) -> Result<Trust, JobError> {
    let own = Signer::load(&config.signer)?.public_key().clone();
    let mut signers = listed_signers(config, &|text| front.warn(text))?;
    signers.push(AllowedSigner::for_host(&config.host, own));
    Ok(Trust::AllowedSigners(signers))
}

/// Returns the signers of the `allowed_signers` file beside the signer; none if there is no file.
/// Passes warnings about the file to `warn`.
pub(crate) fn listed_signers(
    config: &Config,
    warn: &dyn Fn(&str),
) -> Result<Vec<AllowedSigner>, JobError> {
    let listed = config.signer.with_file_name("allowed_signers");
    let path = listed.display().to_string();
    let warn = |text: String| warn(&text);
    let signers = match ownership::open_regular(&listed) {
        Ok(file) => match Trust::read(&path, file, warn)? {
            Trust::AllowedSigners(signers) => signers,
            Trust::Key(key) => vec![AllowedSigner::for_host(&config.host, key)],
            Trust::Fingerprint(_) | Trust::FirstSeen => Vec::new(),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SignatureError::Read { path, source }.into()),
    };
    Ok(signers)
}

/// Returns the settings of a configured target as storage takes them.
pub(crate) fn spec(config: &TargetConfig) -> TargetSpec {
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
        patience: config.patience.clone(),
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

/// Opens a target to read it.
pub(crate) fn open_target(config: &TargetConfig) -> Result<Target, JobError> {
    let target = storage::open_existing(&spec(config), None).map_err(JobError::request)?;
    Ok(named(config, target))
}

/// Opens all configured targets to read them.
pub(crate) fn open_all(config: &Config) -> Result<Vec<Target>, JobError> {
    config.targets.iter().map(open_target).collect()
}

/// Opens a target to push to it.
///
/// If a folder held snapshots of this host (`has_published`), the host's folder must still be in
/// it: an empty folder is where a disk is not mounted.
pub(crate) fn open_for_push(
    config: &TargetConfig,
    host: &HostName,
    has_published: bool,
) -> Result<Target, JobError> {
    let below = has_published.then_some(host.as_str());
    let target = storage::open_existing(&spec(config), below).map_err(JobError::request)?;
    Ok(named(config, target))
}

/// Opens a target for the first time and makes its folder.
pub(crate) fn make_target(config: &TargetConfig) -> Result<Target, JobError> {
    let target = storage::open_or_offline(&spec(config)).map_err(JobError::request)?;
    Ok(named(config, target))
}

/// Returns the configured target at the place that `text` names: by its name, or by a URL however
/// written; `endpoint` is the URL's S3 endpoint, if it has one.
pub(crate) fn configured_at<'c>(
    config: &'c Config,
    text: &str,
    endpoint: Option<&str>,
) -> Option<&'c TargetConfig> {
    let place = |spec: &TargetSpec| storage::place(spec).ok();
    let named = place(&TargetSpec {
        endpoint: endpoint.map(str::to_owned),
        ..TargetSpec::from_url(text)
    });
    let is_there = |target: &&TargetConfig| {
        target.name == text || (named.is_some() && place(&spec(target)) == named)
    };
    config.targets.iter().find(is_there)
}

/// The error for a target name that the configuration does not have.
pub(crate) fn no_such_target(config: &Config, name: &str) -> JobError {
    let names: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    JobError::request(format!(
        "no target is named {name}; there are: {}",
        names.join(", ")
    ))
}
