//! The first look at each target, held against this host's memory and against the other targets.

use super::super::failure::Failure;
use super::super::output;
use super::{Run, Subject, Verdict};
use crate::base::error_chain::with_causes;
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::scrub::{self, Divergence, Problem};
use crate::state::catalog::Catalog;
use crate::state::catalog::PublicationState;

impl Run<'_> {
    /// Looks at everything, reads what is small.
    pub(super) async fn look(&self, subject: &Subject) -> Result<Verdict, Failure> {
        let mut verdict = Verdict::of(subject);
        let (folder, wanted) = (&subject.folder, &self.args.snapshots);
        let examined = scrub::examine(folder, &subject.trust, wanted, self.now).await;
        let mut examined = match examined {
            Ok(examined) => examined,
            Err(error) => {
                verdict.failure = Some(with_causes(&error));
                return Ok(verdict);
            }
        };
        verdict.problems = std::mem::take(&mut examined.problems);
        let head = head(&examined.chain);
        if let Some(least) = self.args.at_least
            && head < least
        {
            verdict.problems.push(Problem::TooShort { head, least });
        }
        if let Some(catalog) = &self.catalog {
            recall(catalog, subject, &examined.chain, &mut verdict).await?;
        }
        verdict.examined = Some(examined);
        Ok(verdict)
    }

    /// Targets held against each other. That one is shorter is no news where this host knows it to be behind.
    pub(super) fn add_divergences(&self, verdicts: &mut [Verdict]) -> Result<(), Failure> {
        let chains: Vec<(usize, &str, &Chain)> = verdicts
            .iter()
            .enumerate()
            .filter_map(|(at, v)| Some((at, v.name.as_str(), &v.examined.as_ref()?.chain)))
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
        for (at, divergence) in scrub::compare_heads(&named) {
            let (at, name, chain) = chains[at];
            let is_behind = match (&divergence, longest, &self.catalog) {
                (Divergence::Shorter { .. }, Some(longest), Some(catalog)) => {
                    is_behind(catalog, name, head(chain), longest)?
                }
                _ => false,
            };
            if !is_behind {
                odd.push((at, Problem::Diverged(divergence)));
            }
        }
        for (at, problem) in odd {
            verdicts[at].problems.push(problem);
        }
        Ok(())
    }
}

pub(super) fn head(chain: &Chain) -> u64 {
    chain.snapshots.last().map_or(0, VerifiedSnapshot::sequence)
}

/// Whether this host never shipped to target `name` what the longest chain has beyond `head`.
fn is_behind(catalog: &Catalog, name: &str, head: u64, longest: &Chain) -> Result<bool, Failure> {
    let known = catalog.snapshots()?;
    for snapshot in longest.snapshots.iter().filter(|s| s.sequence() > head) {
        let core = &snapshot.manifest.core_hash;
        let is_ours = known.iter().any(|row| row.known.core == *core);
        if !is_ours || catalog.publication(name, core)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What this host remembers of a target: snapshots that it published there and that are gone though nobody signed
/// for that, those that it has not shipped yet, and those that will never be there, which is no finding.
async fn recall(
    catalog: &Catalog,
    subject: &Subject,
    chain: &Chain,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let (mut behind, mut newest, mut never) = (0, None, 0);
    let mut gone = Vec::new();
    for row in catalog.snapshots()?.iter() {
        let core = row.known.core;
        let mut there = chain.snapshots.iter();
        if there.any(|snapshot| snapshot.manifest.core_hash == core) {
            continue;
        }
        let is_it = |problem: &Problem| matches!(problem, Problem::Chain(Finding::Missing(known)) if known.core == core);
        match catalog.publication(&subject.name, &core)? {
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
    let stolen = gone.into_iter().filter(|k| !deleted.contains(&k.core));
    verdict.problems.extend(stolen.map(|known| Problem::Gone {
        stamp: known.stamp,
        sequence: known.sequence,
    }));
    if let Some(newest) = newest {
        let count = behind;
        verdict.problems.push(Problem::Behind { count, newest });
    }
    if never > 0 {
        verdict.notes.push(format!(
            "{} from before it was a target, or that could not be shipped, will not be there",
            output::count(never, "snapshot")
        ));
    }
    Ok(())
}
