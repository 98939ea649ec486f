//! `--repair`: what is missing or damaged comes from where it is whole. What is nowhere whole is noted, so that
//! the next backup stores its content again.

use std::collections::HashSet;

use super::super::failure::Failure;
use super::super::target_args;
use super::{Run, Verdict};
use crate::base::ids::{Hash, HostName};
use crate::config::Config;
use crate::format::chain::Finding;
use crate::format::manifest::ManifestName;
use crate::format::signature::{self, MANIFEST_NAMESPACE};
use crate::jobs::repair::{
    Donor, Unmended, bring_archive, bring_history, bring_manifest, bring_page,
};
use crate::repository::HostFolder;
use crate::scrub::Problem;
use crate::state::catalog::ArchiveCheck;
use crate::storage::{self, TargetSpec};

/// The spool's folder within the state directory; it looks like a host's folder on a target.
const SPOOL: &str = "spool";

/// Everything of the configuration that may have what a target lost.
pub(super) fn donors(config: &Config, host: &HostName) -> Result<Vec<Donor>, Failure> {
    let mut donors = Vec::new();
    if *host == config.host && config.state.join(SPOOL).is_dir() {
        let spec = TargetSpec {
            name: "the spool".to_owned(),
            ..TargetSpec::from_url(&config.state.display().to_string())
        };
        let opened = storage::open(&spec).map_err(Failure::usage)?;
        donors.push(Donor {
            name: spec.name,
            folder: HostFolder::new(opened, SPOOL.parse()?),
        });
    }
    for target in config.targets.iter().filter(|target| !target.write_only) {
        let named = target_args::open_target(target)?;
        donors.push(Donor {
            name: named.name,
            folder: HostFolder::new(named.target, host.clone()),
        });
    }
    Ok(donors)
}

impl Run<'_> {
    fn donors_for(&self, target: &str) -> Vec<Donor> {
        let others = self.donors.iter().filter(|donor| donor.name != target);
        others.cloned().collect()
    }

    /// Pages, manifests and signatures; then looks anew at what was mended, for it tells of more.
    pub(super) async fn mend_small(&self, verdicts: &mut [Verdict]) -> Result<(), Failure> {
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        let signers: HashSet<String> = verdicts
            .iter()
            .filter_map(|verdict| verdict.examined.as_ref())
            .flat_map(|examined| examined.chain.snapshots.iter().map(|s| s.signer.clone()))
            .collect();
        for (subject, verdict) in self.subjects.iter().zip(verdicts) {
            let donors = self.donors_for(&subject.name);
            let (folder, trust) = (&subject.folder, &subject.trust);
            let accepts = |key: &ssh_key::PublicKey| {
                signers.contains(&signature::fingerprint(key))
                    || trust.accepts(&folder.host, MANIFEST_NAMESPACE, key)
            };
            let mut mended = Vec::new();
            for small in small(&verdict.problems) {
                let brought = match &small {
                    Small::Page(page) => bring_page(folder, page, &donors).await,
                    Small::History(page) => bring_history(folder, page, &donors).await,
                    Small::Manifest(name) => {
                        bring_manifest(folder, name, &accepts, &donors, scratch.path()).await
                    }
                };
                match brought {
                    Ok(donor) => mended.push(told_mended(&small.to_string(), donor)),
                    Err(unmended) => verdict
                        .repaired
                        .push(told_unmended(&small.to_string(), &unmended)),
                }
            }
            if mended.is_empty() {
                continue;
            }
            let again = self.look(subject).await?;
            let before = std::mem::replace(verdict, again);
            for problem in before.problems.into_iter().rev() {
                if !verdict.problems.contains(&problem) {
                    verdict.problems.insert(0, problem);
                }
            }
            verdict.repaired = [before.repaired, mended].concat();
        }
        Ok(())
    }

    /// Archives that were found missing, cut short or damaged.
    pub(super) async fn mend_archives(&self, verdicts: &mut [Verdict]) -> Result<(), Failure> {
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        for (subject, verdict) in self.subjects.iter().zip(verdicts) {
            let donors = self.donors_for(&subject.name);
            let lost = verdict.problems.iter().filter_map(Problem::lost);
            for row in lost.cloned().collect::<Vec<_>>() {
                let brought = bring_archive(&subject.folder, &row, &donors, scratch.path()).await;
                let (name, key) = (&subject.name, row.key());
                let line = match brought {
                    Ok(donor) => {
                        self.note_whole(name, &row.blake3)?;
                        told_mended(key.as_str(), donor)
                    }
                    Err(unmended) => {
                        verdict.lost += 1;
                        let told = told_unmended(key.as_str(), &unmended);
                        format!("{told}{}", self.note_lost(&row.blake3, &unmended)?)
                    }
                };
                verdict.repaired.push(line);
            }
        }
        Ok(())
    }

    fn note_whole(&self, target: &str, archive: &Hash) -> Result<(), Failure> {
        if let Some(catalog) = &self.catalog {
            let at = crate::base::clock::now();
            let whole = Some(true);
            catalog.set_check(target, archive, &ArchiveCheck { at, whole })?;
            catalog.mark_usable(archive)?;
        }
        Ok(())
    }

    /// Gives what comes of it, to be said.
    fn note_lost(&self, archive: &Hash, unmended: &Unmended) -> Result<&'static str, Failure> {
        Ok(match &self.catalog {
            _ if unmended.is_undecided => {
                "; nothing is given up, repair again when that one can be read"
            }
            Some(catalog) => {
                catalog.mark_unusable(archive)?;
                "; the next backup stores again what today's snapshot needs of it, older ones stay incomplete"
            }
            None => "; older snapshots stay incomplete",
        })
    }
}

/// What is fetched whole.
enum Small {
    Page(Hash),
    /// A page of earlier snapshots, or a directory of them.
    History(Hash),
    Manifest(ManifestName),
}

impl std::fmt::Display for Small {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(page) | Self::History(page) => write!(f, "tables/{page}.json"),
            Self::Manifest(name) => write!(f, "manifest {name}"),
        }
    }
}

fn small(problems: &[Problem]) -> Vec<Small> {
    let found = problems.iter().filter_map(|problem| match problem {
        Problem::Page { page, .. } => Some(Small::Page(*page)),
        Problem::History { page, .. } => Some(Small::History(*page)),
        Problem::Chain(Finding::Refused(name, _)) => Some(Small::Manifest(name.clone())),
        _ => None,
    });
    found.collect()
}

fn told_mended(what: &str, donor: &Donor) -> String {
    format!("{what} was brought from {} and is whole again", donor.name)
}

fn told_unmended(what: &str, unmended: &Unmended) -> String {
    match unmended.why.as_slice() {
        [] => format!("{what}: no target that can be read has it, nor has the spool"),
        why => format!("{what} could not be mended: {}", why.join("; ")),
    }
}
