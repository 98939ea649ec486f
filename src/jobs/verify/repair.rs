//! Repairs a target with what other targets or the spool have in full. Content that no source has
//! is noted, so that the next backup stores it again.

use std::collections::HashSet;

use super::super::error::JobError;
use super::super::targets::open_target;
use super::{Run, TargetVerdict};
use crate::base::ids::{Hash, HostName};
use crate::config::Config;
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

/// Returns the spool and the configured targets, which may have what another target lost.
pub(super) fn donors(config: &Config, host: &HostName) -> Result<Vec<Donor>, JobError> {
    let mut donors = Vec::new();
    if *host == config.host && config.state.join(SPOOL).is_dir() {
        let spec = TargetSpec {
            name: "the spool".to_owned(),
            ..TargetSpec::from_url(&config.state.display().to_string())
        };
        let opened = storage::open(&spec).map_err(JobError::request)?;
        donors.push(Donor {
            name: spec.name,
            folder: HostFolder::new(opened, SPOOL.parse()?),
        });
    }
    for target in config.targets.iter().filter(|target| !target.write_only) {
        let named = open_target(target)?;
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

    /// Repairs pages, manifests and signatures. Then examines the repaired targets again, since a
    /// repaired object refers to others.
    pub(super) async fn repair_small(
        &self,
        verdicts: &mut [TargetVerdict],
    ) -> Result<(), JobError> {
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
            let mut repaired = Vec::new();
            for small in small(&verdict.problems) {
                let brought = match &small {
                    RepairableObject::Page(page) => bring_page(folder, page, &donors).await,
                    RepairableObject::History(page) => bring_history(folder, page, &donors).await,
                    RepairableObject::Manifest(name) => {
                        bring_manifest(folder, name, &accepts, &donors, scratch.path()).await
                    }
                };
                match brought {
                    Ok(donor) => repaired.push(repaired_line(&small.to_string(), donor)),
                    Err(unmended) => verdict
                        .repaired
                        .push(unrepaired_line(&small.to_string(), &unmended)),
                }
            }
            if repaired.is_empty() {
                continue;
            }
            let again = self.look(subject).await?;
            let before = std::mem::replace(verdict, again);
            for problem in before.problems.into_iter().rev() {
                if !verdict.problems.contains(&problem) {
                    verdict.mended.push(problem.clone());
                    verdict.problems.insert(0, problem);
                }
            }
            verdict.repaired = [before.repaired, repaired].concat();
        }
        Ok(())
    }

    /// Repairs archives that are missing, cut short or damaged.
    pub(super) async fn repair_archives(
        &self,
        verdicts: &mut [TargetVerdict],
    ) -> Result<(), JobError> {
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        for (subject, verdict) in self.subjects.iter().zip(verdicts) {
            let donors = self.donors_for(&subject.name);
            let lost = verdict.problems.iter().filter(|one| one.lost().is_some());
            for problem in lost.cloned().collect::<Vec<_>>() {
                let Some(row) = problem.lost().cloned() else {
                    continue;
                };
                let brought = bring_archive(&subject.folder, &row, &donors, scratch.path()).await;
                let (name, key) = (&subject.name, row.key());
                let line = match brought {
                    Ok(donor) => {
                        self.note_whole(name, &row.blake3)?;
                        verdict.mended.push(problem);
                        repaired_line(key.as_str(), donor)
                    }
                    Err(unmended) => {
                        verdict.lost += 1;
                        let line = unrepaired_line(key.as_str(), &unmended);
                        format!("{line}{}", self.note_lost(&row.blake3, &unmended)?)
                    }
                };
                verdict.repaired.push(line);
            }
        }
        Ok(())
    }

    fn note_whole(&self, target: &str, archive: &Hash) -> Result<(), JobError> {
        if let Some(catalog) = &self.catalog {
            let at = crate::base::clock::now();
            let whole = Some(true);
            catalog.set_check(target, archive, &ArchiveCheck { at, whole })?;
            catalog.mark_usable(archive)?;
        }
        Ok(())
    }

    /// Notes a lost archive. Returns what follows from the loss, for the report.
    fn note_lost(&self, archive: &Hash, unmended: &Unmended) -> Result<&'static str, JobError> {
        Ok(match &self.catalog {
            _ if unmended.is_undecided => "; run the repair again when that source can be read",
            Some(catalog) => {
                catalog.mark_unusable(archive)?;
                "; the next backup stores again what today's snapshot needs of it, older ones stay incomplete"
            }
            None => "; older snapshots stay incomplete",
        })
    }
}

/// An object that is repaired by fetching it whole.
enum RepairableObject {
    Page(Hash),
    /// A page of earlier snapshots, or a directory of them.
    History(Hash),
    Manifest(ManifestName),
}

impl std::fmt::Display for RepairableObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(page) | Self::History(page) => write!(f, "tables/{page}.json"),
            Self::Manifest(name) => write!(f, "manifest {name}"),
        }
    }
}

fn small(problems: &[Problem]) -> Vec<RepairableObject> {
    let found = problems.iter().flat_map(|problem| match problem {
        Problem::Page { page, .. } => vec![RepairableObject::Page(*page)],
        Problem::History { page, .. } => vec![RepairableObject::History(*page)],
        Problem::Chain(finding) => {
            let refused = finding.refused().iter().cloned();
            refused.map(RepairableObject::Manifest).collect()
        }
        _ => Vec::new(),
    });
    found.collect()
}

fn repaired_line(object: &str, donor: &Donor) -> String {
    format!(
        "{object} was brought from {} and is whole again",
        donor.name
    )
}

fn unrepaired_line(object: &str, unmended: &Unmended) -> String {
    match unmended.why.as_slice() {
        [] => format!("{object}: no target that can be read has it, nor has the spool"),
        why => format!("{object} could not be repaired: {}", why.join("; ")),
    }
}
