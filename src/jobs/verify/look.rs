//! The first look at each target, compared with this host's catalog and with the other targets.

use super::super::error::JobError;
use super::{Run, Subject, TargetVerdict};
use crate::base::error_chain::with_causes;
use crate::base::units::count;
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::scrub::{self, Divergence, Problem};
use crate::state::catalog::{Catalog, PublicationState, Publications};

impl Run<'_> {
    /// Examines everything except the content of archives.
    pub(super) async fn look(&self, subject: &Subject) -> Result<TargetVerdict, JobError> {
        let mut verdict = TargetVerdict::of(subject);
        let (folder, wanted) = (&subject.folder, &self.request.snapshots);
        let publications = self.catalog.as_ref();
        let publications = publications.map(|catalog| catalog.publications(&subject.name));
        verdict.remembered = publications.transpose()?;
        let examined = scrub::examine(folder, &subject.trust, wanted, self.now).await;
        let mut examined = match examined {
            Ok(examined) => examined,
            Err(error) => {
                verdict.failure = Some(with_causes(&error));
                return Ok(verdict);
            }
        };
        for choice in wanted {
            let chosen = examined.chain.resolve(choice).ok();
            if let Some(text) = chosen.and_then(|chosen| choice.explain(chosen.stamp())) {
                self.front.note(&text);
            }
        }
        verdict.problems = std::mem::take(&mut examined.problems);
        let head = head(&examined.chain);
        if let Some(least) = self.request.at_least
            && head < least
        {
            verdict.problems.push(Problem::TooShort { head, least });
        }
        let change = examined.chain.signer_change();
        if let (Some(change), Some(present)) = (change, &self.signer)
            && present.is_unknown(&change)
        {
            verdict.problems.push(Problem::SignerChange(change));
        }
        if let Some(catalog) = &self.catalog {
            recall(catalog, subject, &examined.chain, &mut verdict).await?;
        }
        verdict.examined = Some(examined);
        Ok(verdict)
    }

    /// Compares the targets with each other. A shorter history is no problem of its own if this
    /// host knows the target to be behind.
    pub(super) fn add_divergences(&self, verdicts: &mut [TargetVerdict]) -> Result<(), JobError> {
        let chains: Vec<(usize, &str, &Chain)> = verdicts
            .iter()
            .enumerate()
            .filter_map(|(index, v)| Some((index, v.name.as_str(), &v.examined.as_ref()?.chain)))
            .collect();
        let named: Vec<(&str, &Chain)> = chains
            .iter()
            .map(|(_, name, chain)| (*name, *chain))
            .collect();
        let longest = named
            .iter()
            .map(|(_, chain)| *chain)
            .max_by_key(|c| head(c));
        let mut odd = Vec::new();
        for (index, divergence) in scrub::compare_heads(&named) {
            let (index, _, chain) = chains[index];
            let is_behind = match (&divergence, longest, &self.catalog) {
                (Divergence::Shorter { .. }, Some(longest), Some(catalog)) => {
                    let remembered = verdicts[index].remembered.as_ref();
                    is_behind(catalog, remembered, head(chain), longest)?
                }
                _ => false,
            };
            if !is_behind {
                odd.push((index, Problem::Diverged(divergence)));
            }
        }
        for (index, problem) in odd {
            verdicts[index].problems.push(problem);
        }
        Ok(())
    }
}

/// Returns the sequence of the newest snapshot, 0 if there is none.
pub(super) fn head(chain: &Chain) -> u64 {
    chain.snapshots.last().map_or(0, VerifiedSnapshot::sequence)
}

/// Whether all that the longest chain has beyond `head` are snapshots of this host that it did not
/// send to the target yet, of which it remembered the publications `remembered`.
fn is_behind(
    catalog: &Catalog,
    remembered: Option<&Publications>,
    head: u64,
    longest: &Chain,
) -> Result<bool, JobError> {
    let known = catalog.snapshots()?;
    for snapshot in longest.snapshots.iter().filter(|s| s.sequence() > head) {
        let core = &snapshot.manifest.core_hash;
        let is_ours = known.iter().any(|row| row.known.core == *core);
        if !is_ours || remembered.is_some_and(|states| states.contains_key(core)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares `chain` with what the catalog remembers of the target. Adds problems for snapshots that
/// were published there and are gone without a signed deletion, and for those not sent yet.
/// Snapshots that the target never gets are a note.
async fn recall(
    catalog: &Catalog,
    subject: &Subject,
    chain: &Chain,
    verdict: &mut TargetVerdict,
) -> Result<(), JobError> {
    let (mut behind, mut newest, mut never) = (0, None, 0);
    let mut gone = Vec::new();
    for row in catalog.snapshots()?.iter() {
        let core = row.known.core;
        let mut present = chain.snapshots.iter();
        // One that is refused for its signer is there, and the chain's findings name it.
        if present.any(|snapshot| snapshot.manifest.core_hash == core)
            || chain.is_of_stranger(&core)
        {
            continue;
        }
        let is_it = |problem: &Problem| matches!(problem, Problem::Chain(Finding::Missing(known)) if known.core == core);
        match verdict
            .remembered
            .as_ref()
            .and_then(|states| states.get(&core))
        {
            Some(PublicationState::Published) => gone.push(row.known),
            Some(PublicationState::GivenUp) => {
                verdict.problems.retain(|problem| !is_it(problem));
                never += 1;
            }
            Some(_) => {}
            None => {
                verdict.problems.retain(|problem| !is_it(problem));
                behind += 1;
                newest = Some(row.known.stamp);
            }
        }
    }
    let names = gone.iter().map(|k| (k.sequence, k.stamp)).collect();
    let (folder, signers) = (&subject.folder, chain.signers());
    let deleted = folder.deletions(&subject.trust, &signers, &names).await?;
    let missing = gone.into_iter().filter(|k| !deleted.contains(&k.core));
    verdict.problems.extend(missing.map(|known| Problem::Gone {
        stamp: known.stamp,
        sequence: known.sequence,
    }));
    if let Some(newest) = newest {
        verdict.problems.push(Problem::Behind {
            count: behind,
            newest,
        });
    }
    if never > 0 {
        verdict.notes.push(format!(
            "{} from before this target was added, or with lost archives, not available there",
            count(never, "snapshot")
        ));
    }
    Ok(())
}
