//! Compares the histories on several targets.

use std::collections::HashSet;

use crate::base::ids::Hash;
use crate::format::chain::Chain;

/// How the history on a target differs from that on the target with the longest one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// It ends earlier.
    #[error("it ends at sequence {its}, {other} at {others}: it was set back, or is behind")]
    Shorter {
        /// Its highest sequence.
        its: u64,
        /// The other target's name.
        other: String,
        /// The other target's highest sequence.
        others: u64,
    },
    /// It has another snapshot of the same sequence.
    #[error(
        "its sequence {sequence} is another snapshot than that of {other}: their histories parted"
    )]
    Parted {
        /// The sequence.
        sequence: u64,
        /// The other target's name.
        other: String,
    },
}

/// Compares `chains`, each with its target's name. Returns the divergences by index in `chains`.
pub fn compare_heads(chains: &[(&str, &Chain)]) -> Vec<(usize, Divergence)> {
    let head = |chain: &Chain| chain.snapshots.last().map_or(0, |s| s.sequence());
    let longest = chains.iter().max_by_key(|(_, chain)| head(chain));
    let Some((longest_name, longest)) = longest else {
        return Vec::new();
    };
    let here = longest.snapshots.iter();
    let here = here.map(|s| (s.sequence(), s.manifest.core_hash));
    let before = longest
        .known
        .iter()
        .map(|known| (known.sequence, known.core));
    let known: HashSet<(u64, Hash)> = here.chain(before).collect();
    let mut odd = Vec::new();
    for (at, (_, chain)) in chains.iter().enumerate() {
        let strange = chain.snapshots.iter().find(|s| {
            let same = |(sequence, _): &&(u64, Hash)| *sequence == s.sequence();
            let is_known = known.contains(&(s.sequence(), s.manifest.core_hash));
            !is_known && known.iter().any(|k| same(&k))
        });
        if let Some(strange) = strange {
            let (sequence, other) = (strange.sequence(), (*longest_name).to_owned());
            odd.push((at, Divergence::Parted { sequence, other }));
        } else if head(chain) < head(longest) {
            odd.push((
                at,
                Divergence::Shorter {
                    its: head(chain),
                    other: (*longest_name).to_owned(),
                    others: head(longest),
                },
            ));
        }
    }
    odd
}
