//! A look at one target: what it shows of this host right now.

use std::collections::HashSet;

use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::panics::caught;
use crate::config::Config;
use crate::format::chain::{Chain, ChainError, Finding};
use crate::format::signature::Trust;
use crate::jobs::push::{PresentSigner, Target};
use crate::jobs::verdict::FindingCode;
use crate::repository::{ArchiveTable, HostFolder, RepositoryError};
use crate::scrub::Problem;
use crate::storage::ErrorKind;

use super::checks::incomplete;
use super::shown::{RecipientAccess, ShownProblem, ShownSnapshot, TargetShown};

/// Most problems that a look keeps: thousands may have been planted.
const MOST_PROBLEMS: usize = 100;

/// What this host knows of a target before it looks.
pub(super) struct Expected<'a> {
    pub(super) config: &'a Config,
    pub(super) trust: &'a Trust,
    /// `None`: it cannot be read.
    pub(super) signer: Option<&'a PresentSigner>,
    /// Snapshots that the target never gets: it was added later, or their archives were lost.
    pub(super) given_up: &'a HashSet<Hash>,
    /// The newest snapshot that was published there.
    pub(super) published: Option<ShownSnapshot>,
    /// What the looks before showed.
    pub(super) before: TargetShown,
}

/// What one look showed.
pub(super) struct Seen {
    pub(super) shown: TargetShown,
    /// The snapshots that are there.
    pub(super) cores: HashSet<Hash>,
    /// Messages that need no attention.
    pub(super) notes: Vec<String>,
    /// The chain there; `None`: its manifests form none.
    pub(super) chain: Option<Chain>,
}

/// Looks at the target. An error: nothing can be said about what it holds now.
pub(super) async fn look(target: &Target, expected: Expected<'_>) -> Result<Seen, String> {
    let folder = HostFolder::new(target.target.clone(), expected.config.host.clone());
    match caught(examine(&folder, expected)).await {
        Ok(seen) => seen.map_err(|error| with_causes(&error)),
        Err(panicked) => Err(panicked.to_string()),
    }
}

async fn examine(folder: &HostFolder, expected: Expected<'_>) -> Result<Seen, RepositoryError> {
    let chain = match folder.chain(expected.trust).await {
        Ok(chain) => chain,
        Err(RepositoryError::Chain(error)) => return Ok(without_chain(expected, &error)),
        Err(error) => return Err(error),
    };
    let mut seen = compare(folder, &chain, expected).await?;
    seen.chain = Some(chain);
    Ok(seen)
}

/// Compares what the chain shows with what this host expects.
async fn compare(
    folder: &HostFolder,
    chain: &Chain,
    expected: Expected<'_>,
) -> Result<Seen, RepositoryError> {
    let mut seen = Seen {
        chain: None,
        cores: chain
            .snapshots
            .iter()
            .map(|one| one.manifest.core_hash)
            .collect(),
        notes: Vec::new(),
        shown: TargetShown {
            newest: None,
            problems: chain_problems(&chain.findings, expected.given_up),
            recipients: Vec::new(),
            ..expected.before
        },
    };
    if let Some(change) = chain.signer_change() {
        let problem = Problem::SignerChange(change.clone());
        match expected
            .signer
            .is_some_and(|signer| signer.is_unknown(&change))
        {
            true => seen.shown.problems.extend(ShownProblem::of(&problem)),
            false => seen.notes.push(problem.to_string()),
        }
    }
    let Some(newest) = chain.snapshots.last() else {
        return Ok(seen);
    };
    let core = &newest.manifest.core;
    if let Some(published) = &expected.published
        && published.sequence > core.sequence
    {
        seen.shown.problems.push(gone(published));
    }
    seen.shown.newest = Some(ShownSnapshot {
        stamp: core.stamp,
        sequence: core.sequence,
        next_by: core.next_by,
    });
    let table = match folder.table(&newest.manifest).await {
        Ok(table) => table,
        Err(error) if is_damage(&error) => {
            seen.shown.problems.push(lost(with_causes(&error)));
            return Ok(seen);
        }
        Err(error) => return Err(error),
    };
    let present = folder.archives_present().await?;
    seen.shown.archives = Some(present.len() as u64);
    seen.shown.stored_bytes = Some(present.values().sum());
    seen.shown
        .problems
        .extend(incomplete(&table, &present).map(lost));
    seen.shown.recipients = access(&core.recipients, &table);
    Ok(seen)
}

/// Returns what a folder shows whose manifests form no chain.
fn without_chain(expected: Expected<'_>, error: &ChainError) -> Seen {
    let problem = match (error, &expected.published) {
        // Nothing was sent there yet.
        (ChainError::Empty(_), None) => None,
        (ChainError::Empty(_), Some(published)) => Some(ShownProblem {
            text: error.to_string(),
            ..gone(published)
        }),
        _ => Some(ShownProblem {
            code: FindingCode::Chain,
            text: error.to_string(),
            next: "see who writes there; `sealift verify` says more".to_owned(),
        }),
    };
    Seen {
        chain: None,
        cores: HashSet::new(),
        notes: Vec::new(),
        shown: TargetShown {
            newest: None,
            archives: None,
            stored_bytes: None,
            problems: problem.into_iter().collect(),
            recipients: Vec::new(),
            ..expected.before
        },
    }
}

/// Returns the findings of a chain that need attention; the target never gets those of `given_up`.
pub(super) fn chain_problems(findings: &[Finding], given_up: &HashSet<Hash>) -> Vec<ShownProblem> {
    let is_expected = |finding: &&Finding| matches!(finding, Finding::Missing(known) if given_up.contains(&known.core));
    let findings = findings.iter().filter(|one| !is_expected(one));
    let findings = findings.take(MOST_PROBLEMS);
    findings.map(ShownProblem::of_chain).collect()
}

fn gone(published: &ShownSnapshot) -> ShownProblem {
    let next = Problem::Gone {
        stamp: published.stamp,
        sequence: published.sequence,
    };
    ShownProblem {
        code: FindingCode::Chain,
        text: format!(
            "snapshot {} was published there and is gone",
            published.stamp
        ),
        next: next.next().to_owned(),
    }
}

fn lost(text: String) -> ShownProblem {
    ShownProblem {
        code: FindingCode::LostArchives,
        text,
        next: "`sealift verify --repair` brings them from another target or the spool".to_owned(),
    }
}

/// Whether the target answered, and a page of the archive table is missing or damaged.
fn is_damage(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Target(error) => error.kind == ErrorKind::NotFound,
        RepositoryError::PageHash { .. }
        | RepositoryError::PageFormat { .. }
        | RepositoryError::Table { .. } => true,
        _ => false,
    }
}

fn access(recipients: &[String], table: &ArchiveTable) -> Vec<RecipientAccess> {
    let access = recipients.iter().map(|recipient| {
        let opens = |set: &String| {
            let set = table.sets.get(set);
            set.is_some_and(|set| set.contains(recipient))
        };
        RecipientAccess {
            recipient: recipient.clone(),
            opens_in_full: table.rows.values().all(|row| opens(&row.recipient_set)),
        }
    });
    access.collect()
}
