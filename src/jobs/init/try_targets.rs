//! Tries targets: for the first time, or again.

use super::super::context::{FrontEnd, runtime};
use super::super::credentials::{self, FoundCredentials};
use super::super::error::JobError;
use super::super::recovery_files::recovery_files;
use super::super::targets::{make_target, open_target, own_trust};
use super::{TargetAccess, TriedTarget};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::fs;
use crate::base::panics::caught;
use crate::base::progress::Stage;
use crate::config::{Config, TargetConfig};
use crate::format::chain::Chain;
use crate::format::signature::{Signer, Trust};
use crate::repository::probe::{Probe, probe};
use crate::repository::{HostFolder, RepositoryError};
use crate::shipper;
use crate::storage;

/// When targets are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The host is new: its folder is made, and no snapshot may be there.
    First,
    /// The host exists and the target is new to it: its folder is made.
    Added,
    /// The target was used before. Nothing stays there.
    Again,
}

/// Opens all of `targets` at the same time, and finds out what they allow.
pub(crate) fn try_all<'a>(
    config: &Config,
    targets: impl IntoIterator<Item = &'a TargetConfig>,
    occasion: Occasion,
    front: &dyn FrontEnd,
) -> Result<Vec<TriedTarget>, JobError> {
    let tries = targets.into_iter().map(async |target| {
        front.stage(Stage::Trying, Some(&target.name));
        let opened = match occasion {
            Occasion::First | Occasion::Added => make_target(target),
            Occasion::Again => open_target(target),
        };
        let found = match opened {
            Err(error) => Trial::failed(error.to_string()),
            Ok(opened) => {
                let folder = HostFolder::new(opened.target, config.host.clone());
                let done = try_one(config, &folder, target.write_only, occasion, front);
                let done = caught(done).await;
                done.unwrap_or_else(|panicked| Trial::failed(panicked.to_string()))
            }
        };
        TriedTarget {
            name: target.name.clone(),
            writes: found.probe.is_some(),
            may: found.probe.map(Into::into),
            problem: found.problem,
            snapshots: found.snapshots,
            is_folder: storage::folder_path(&target.url).is_some(),
        }
    });
    let tried = runtime()?.block_on(futures::future::join_all(tries));
    if occasion != Occasion::Again {
        make_state_dir(config)?;
    }
    let found = tried.iter();
    let found =
        found.filter_map(|one: &TriedTarget| Some((&one.name[..], one.may.as_ref()?.into())));
    let found: Vec<(&str, FoundCredentials)> = found.collect();
    credentials::remember(config, &found, front);
    Ok(tried)
}

/// Makes the state directory of a new host, where the history keeps what was found.
fn make_state_dir(config: &Config) -> Result<(), JobError> {
    fs::create_private_dir(&config.state).map_err(|error| {
        let state = config.state.display();
        JobError::work(format!("cannot make the state directory {state}: {error}"))
            .with_next("set `state` in the configuration to a directory that this user can make")
    })
}

impl From<&TargetAccess> for FoundCredentials {
    fn from(may: &TargetAccess) -> Self {
        Self {
            // Else nothing would be known of the rest.
            writes: true,
            lists: may.lists,
            reads: may.reads,
            reads_archives: may.reads_archives,
            deletes: may.deletes,
            overwrites: may.overwrites,
        }
    }
}

/// What was found out about one target.
#[derive(Default)]
struct Trial {
    probe: Option<Probe>,
    problem: Option<String>,
    snapshots: Option<u64>,
}

impl Trial {
    fn failed(problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

/// Finds out what the target allows, and what is wrong with it. If nothing is, puts the recovery
/// documents on a new target, which a push puts first.
async fn try_one(
    config: &Config,
    folder: &HostFolder,
    write_only: bool,
    occasion: Occasion,
    front: &dyn FrontEnd,
) -> Trial {
    let probe = match probe(folder, clock::now()).await {
        Ok(probe) => probe,
        Err(error) => return Trial::failed(with_causes(&error)),
    };
    let mut trial = Trial {
        problem: probe.problem(write_only),
        ..Trial::default()
    };
    if probe.lists && trial.problem.is_none() {
        match (folder.manifest_names().await, occasion) {
            (Err(error), _) => trial.problem = Some(with_causes(&error)),
            (Ok(names), Occasion::First) if !names.is_empty() => {
                trial.problem = Some(occupied(config, folder, names.len(), front).await);
            }
            (Ok(_), Occasion::First) => {}
            (Ok(names), Occasion::Added | Occasion::Again) => {
                trial.snapshots = Some(names.len() as u64);
                if !names.is_empty() {
                    trial.problem = distrusted(config, folder, front).await;
                }
            }
        }
    }
    if trial.problem.is_none() && occasion != Occasion::Again {
        let put = shipper::publish_recovery(folder, &recovery_files()).await;
        trial.problem = put.err().map(|error| with_causes(&error));
    }
    trial.probe = Some(probe);
    trial
}

/// Returns why the snapshots of this host's name are not its own; `None` if they are.
async fn distrusted(config: &Config, folder: &HostFolder, front: &dyn FrontEnd) -> Option<String> {
    let trust = match own_trust(config, front) {
        Ok(trust) => trust,
        Err(error) => return Some(error.with_causes()),
    };
    let error = folder.chain(&trust).await.err()?;
    Some(match error {
        RepositoryError::Chain(error) => format!(
            "it holds snapshots of {} that this host's signer and allowed_signers do not confirm: {}",
            config.host,
            with_causes(&error)
        ),
        error => with_causes(&error),
    })
}

/// Returns the problem that the target holds `count` snapshots of this host's name.
async fn occupied(
    config: &Config,
    folder: &HostFolder,
    count: usize,
    front: &dyn FrontEnd,
) -> String {
    let trust = own_trust(config, front).unwrap_or(Trust::AllowedSigners(Vec::new()));
    match folder.chain(&trust).await {
        Ok(chain) => format!(
            "it holds {count} snapshots of {} already, the newest by {}; if this machine takes over, run `sealift adopt`",
            config.host,
            whose(config, &chain)
        ),
        Err(RepositoryError::Chain(_)) => format!(
            "it holds {count} snapshots of {} by another signer; give this machine another --host, or bring the old \
             signer over and run `sealift adopt`",
            config.host
        ),
        Err(error) => with_causes(&error),
    }
}

/// Returns whose signature the newest snapshot of `chain` has.
fn whose(config: &Config, chain: &Chain) -> String {
    let own = Signer::load(&config.signer).map(|signer| signer.fingerprint());
    let newest = chain.snapshots.last().map(|newest| newest.signer.clone());
    match (newest, own) {
        (Some(newest), Ok(own)) if newest == own => "this machine's signer".to_owned(),
        (Some(newest), _) => format!(
            "{newest}, which is not this machine's signer, but one that `allowed_signers` lists"
        ),
        (None, _) => "an unknown signer".to_owned(),
    }
}
