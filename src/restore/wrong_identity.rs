//! Which identity a snapshot wants, if none of the given ones decrypts it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::fetch::Damaged;
use super::open::Identities;
use super::plan::ArchiveJob;
use crate::base::ids::{ArchiveId, Stamp};
use crate::keys::recipients::short;

/// None of the given identities is one of a snapshot's recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongIdentity {
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The recipients of the given identities, as far as they are known.
    pub given: Vec<String>,
    /// The recipients to which it is encrypted.
    pub wanted: Vec<String>,
    /// The identities decrypt the other archives that are needed.
    pub is_partial: bool,
}

impl fmt::Display for WrongIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.is_partial {
            true => "a part of ",
            false => "",
        };
        write!(
            f,
            "the identity cannot decrypt {part}snapshot {}: it is encrypted to {}, ",
            self.stamp,
            list(&self.wanted),
        )?;
        match self.given.is_empty() {
            true => f.write_str("and the identity file does not name its own recipient"),
            false => write!(f, "and the identity is of {}", list(&self.given)),
        }
    }
}

impl std::error::Error for WrongIdentity {}

/// The recipients of the archives that a restore needs.
pub(super) struct NeededRecipients<'a> {
    sets: &'a BTreeMap<String, Vec<String>>,
    /// The name of each archive's set.
    set_of: HashMap<ArchiveId, String>,
}

impl<'a> NeededRecipients<'a> {
    /// Returns those of `jobs`; `sets` are the recipient sets by name.
    pub(super) fn of(jobs: &[ArchiveJob], sets: &'a BTreeMap<String, Vec<String>>) -> Self {
        let named = jobs.iter();
        let set_of = named.map(|job| (job.row.id, job.row.recipient_set.clone()));
        Self {
            sets,
            set_of: set_of.collect(),
        }
    }

    /// Returns the error, if no archive is `damaged` otherwise than by being encrypted to others
    /// than `identities`.
    pub(super) fn explain(
        &self,
        stamp: Stamp,
        damaged: &[Damaged],
        identities: &Identities,
    ) -> Option<WrongIdentity> {
        let is_only_that = damaged.iter().all(|one| one.error.lacks_identity());
        if damaged.is_empty() || !is_only_that {
            return None;
        }
        let sets = damaged
            .iter()
            .filter_map(|one| self.set_of.get(&one.archive));
        let sets: BTreeSet<&String> = sets.collect();
        let wanted = sets.into_iter().filter_map(|set| self.sets.get(set));
        let wanted: BTreeSet<&String> = wanted.flatten().collect();
        // What should be possible by the host's own table is not the identity's fault.
        let given = identities.recipients();
        if given.iter().any(|one| wanted.contains(one)) {
            return None;
        }
        Some(WrongIdentity {
            stamp,
            given: identities.recipients().to_vec(),
            wanted: wanted.into_iter().cloned().collect(),
            is_partial: damaged.len() < self.set_of.len(),
        })
    }
}

/// Returns the recipients as a list, long ones shortened.
fn list(recipients: &[String]) -> String {
    let shown: Vec<String> = recipients.iter().map(|one| short(one)).collect();
    match shown.as_slice() {
        [] => "no known recipient".to_owned(),
        several => several.join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_both_sides_and_no_long_key_in_full() {
        let long = format!("age1plugin1{}", "q".repeat(700));
        let wrong = WrongIdentity {
            stamp: "20260407T060000Z".parse().unwrap(),
            given: vec!["age1own".to_owned()],
            wanted: vec!["age1wanted".to_owned(), long],
            is_partial: false,
        };
        let text = wrong.to_string();
        assert!(
            text.contains("encrypted to age1wanted or age1plugin1qq"),
            "{text}"
        );
        assert!(text.ends_with("and the identity is of age1own"), "{text}");
        assert!(text.len() < 300, "{text}");
    }
}
