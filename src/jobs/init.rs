//! Sets up a host: writes its configuration, makes its signer, and tries its targets.
//!
//! Everything is checked before anything is written. The configuration is written last, so that a
//! failed run can be repeated.

pub(crate) mod allowed_signers;
pub(crate) mod try_targets;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::FrontEnd;
use super::error::JobError;
use crate::base::fs;
use crate::base::ids::HostName;
use crate::config::Config;
use crate::format::signature::Signer;
use crate::packer::seal::Recipients;
use crate::repository::probe::Probe;
use crate::storage::Patience;
use try_targets::Occasion;

/// A configuration to write.
pub(crate) struct InitRequest<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// The path to write it to.
    pub(crate) path: &'a Path,
    /// Directories that must exist.
    pub(crate) dirs: &'a [&'a PathBuf],
    /// How long to wait for a target.
    pub(crate) patience: Patience,
}

/// Report of a setup.
#[derive(Debug, Serialize)]
pub(crate) struct InitReport {
    /// Path of the configuration.
    #[serde(rename = "config")]
    pub(crate) config_path: String,
    pub(crate) host: HostName,
    /// Path of the signer.
    pub(crate) signer: String,
    pub(crate) signer_fingerprint: String,
    /// The signer was made now; else it existed.
    pub(crate) signer_made: bool,
    /// The signer's line in `allowed_signers`.
    pub(crate) allowed_signers: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) targets: Vec<TriedTarget>,
    /// Names of sources that programs may write to while they are copied.
    #[serde(skip)]
    pub(crate) unguarded_sources: Vec<String>,
    /// A restore in place could not stop and start the preset's application.
    #[serde(skip)]
    pub(crate) lacks_service: bool,
}

/// Result of the first access to a target.
#[derive(Debug, Serialize)]
pub(crate) struct TriedTarget {
    pub(crate) name: String,
    pub(crate) writes: bool,
    /// `None` if the target cannot be written to, or did not answer.
    pub(crate) may: Option<TargetAccess>,
    /// Why it is not ready. `None` if it is.
    pub(crate) problem: Option<String>,
    /// Number of this host's snapshots there. `None` if it was not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshots: Option<u64>,
    /// Whether it is a directory of this machine.
    #[serde(skip)]
    pub(crate) is_folder: bool,
}

/// Operations that the credentials of a target allow.
#[derive(Debug, Serialize)]
pub(crate) struct TargetAccess {
    pub(crate) lists: bool,
    /// Reads manifests, tables, marks and receipts.
    pub(crate) reads: bool,
    pub(crate) reads_archives: bool,
    pub(crate) deletes: bool,
    /// A second put of one key replaces the first.
    pub(crate) overwrites: bool,
    /// The target's clock minus this host's. `None` if they agree.
    pub(crate) clock_skew_seconds: Option<i64>,
    /// An object that could not be deleted again.
    pub(crate) left_behind: Option<String>,
    /// The same in words.
    #[serde(skip)]
    pub(crate) words: String,
}

impl From<Probe> for TargetAccess {
    fn from(probe: Probe) -> Self {
        Self {
            words: probe.words(),
            lists: probe.lists,
            reads: probe.reads,
            reads_archives: probe.reads_archives,
            deletes: probe.deletes,
            overwrites: probe.overwrites,
            clock_skew_seconds: probe.skew_seconds,
            left_behind: probe.left_behind,
        }
    }
}

/// Writes the configuration of `request` and what belongs to it, calls `written` with the report so
/// far, and tries the targets, which may take some seconds.
pub(crate) fn run(
    request: &InitRequest<'_>,
    front: &dyn FrontEnd,
    written: impl FnOnce(&InitReport) -> Result<(), JobError>,
) -> Result<InitReport, JobError> {
    let mut config = Config::parse(request.text, request.path).map_err(JobError::request)?;
    check_sources(request.dirs, &config)?;
    let base = config.file.parent().unwrap_or(Path::new("/"));
    let recipients = config.read_recipients().map_err(JobError::request)?;
    let recipients = Recipients::load(&recipients, base).map_err(JobError::request)?;
    make_dir(base)?;
    let (signer, signer_made) = signer(&config)?;
    let line = allowed_signers::line(&config, &signer);
    allowed_signers::add(&config, &line)?;
    write_new_file(request.path, request.text.as_bytes(), 0o600)?;
    config.set_patience(&request.patience);
    let unguarded = config.sources.iter().filter(|source| source.is_unguarded());
    let mut report = InitReport {
        targets: Vec::new(),
        config_path: config.file.display().to_string(),
        signer: config.signer.display().to_string(),
        signer_fingerprint: signer.fingerprint(),
        signer_made,
        allowed_signers: line,
        recipients: recipients.texts().to_vec(),
        unguarded_sources: unguarded.map(|source| source.name.clone()).collect(),
        lacks_service: config.preset_root.is_some() && config.restore.stop.is_none(),
        host: config.host.clone(),
    };
    written(&report)?;
    report.targets = try_targets::try_all(&config, &config.targets, Occasion::First, front)?;
    Ok(report)
}

impl InitReport {
    /// Whether every target is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.targets.iter().all(|target| target.problem.is_none())
    }
}

fn check_sources(dirs: &[&PathBuf], config: &Config) -> Result<(), JobError> {
    if config.sources.is_empty() {
        return Err(JobError::request("there is nothing to back up")
            .with_next("give --tree DIR, --sqlite FILE, --json-file FILE, --command NAME=LINE, or --preset atocore --root DIR"));
    }
    if config.targets.is_empty() {
        return Err(
            JobError::request("there is no target to back up to").with_next("give --target URL")
        );
    }
    match dirs.iter().find(|dir| !dir.is_dir()) {
        Some(dir) => {
            let text = format!("{} is not a directory", dir.display());
            Err(JobError::request(text))
        }
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<(), JobError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(dir);
    made.map_err(|error| JobError::work(format!("cannot make {}: {error}", dir.display())))
}

/// Loads the signer or makes one. Returns it, and whether it was made now.
fn signer(config: &Config) -> Result<(Signer, bool), JobError> {
    if config.signer.exists() {
        return Ok((Signer::load(&config.signer)?, false));
    }
    let signer = Signer::generate(&format!("sealift signer of {}", config.host))?;
    signer.save(&config.signer)?;
    Ok((signer, true))
}

/// Writes `bytes` to a file that must not exist yet.
pub(crate) fn write_new_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), JobError> {
    fs::write_new(path, bytes, mode).map_err(|error| {
        let next = "nothing was replaced; choose another path or move the old file away";
        JobError::work(format!("cannot write {}: {error}", path.display())).with_next(next)
    })
}
