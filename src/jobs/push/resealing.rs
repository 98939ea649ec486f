//! What a change of recipients costs: content that only unsuitable archives have is encrypted and
//! sent again.

use std::collections::BTreeSet;

use crate::base::units::{count, size};
use crate::format::archive_table::ArchiveKind;
use crate::state::catalog::{Catalog, CatalogError};

/// Whether a push may reuse what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resealing {
    /// Archives that are sealed to at least today's recipients are reused.
    #[default]
    AsNeeded,
    /// From now on no archive is reused that a former recipient can open.
    FormerRecipients,
}

/// Returns a note if the next push must encrypt content again for `recipients`, the ones that are
/// configured now: how much, and for whom. `None`: it need not.
pub(crate) fn resealing(
    catalog: &Catalog,
    recipients: &[String],
) -> Result<Option<String>, CatalogError> {
    let sets = catalog.recipient_sets()?;
    let closed = catalog.closed_recipients(recipients)?;
    let (mut archives, mut bytes) = (0, 0);
    let mut added: BTreeSet<&str> = BTreeSet::new();
    let mut former: BTreeSet<&str> = BTreeSet::new();
    for archive in catalog.archives_in_use()? {
        if archive.row.kind != ArchiveKind::Data {
            continue;
        }
        let members = sets.get(&archive.row.recipient_set);
        let members = members.map_or(&[][..], Vec::as_slice);
        let lacking = recipients.iter().filter(|one| !members.contains(one));
        let lacking: Vec<&str> = lacking.map(String::as_str).collect();
        let opening = closed.iter().filter(|one| members.contains(one));
        let opening: Vec<&str> = opening.map(String::as_str).collect();
        if lacking.is_empty() && opening.is_empty() {
            continue;
        }
        added.extend(lacking);
        former.extend(opening);
        archives += 1;
        bytes += archive.live_bytes.unwrap_or(archive.tar_bytes);
    }
    let why = match (some_of(&added), some_of(&former)) {
        (None, None) => return Ok(None),
        (Some(added), None) => format!("the new recipient {added} cannot decrypt what is there"),
        (None, Some(former)) => format!("the former recipient {former} can decrypt what is there"),
        (Some(added), Some(former)) => format!(
            "the new recipient {added} cannot decrypt what is there, and the former recipient {former} can"
        ),
    };
    Ok(Some(format!(
        "{} in {} must be encrypted and sent again, because {why}; compressed it may be less",
        size(bytes),
        count(archives, "archive")
    )))
}

/// Returns the first of `recipients` and the number of the others; `None`: there are none.
fn some_of(recipients: &BTreeSet<&str>) -> Option<String> {
    let first = recipients.first()?;
    Some(match recipients.len() - 1 {
        0 => (*first).to_owned(),
        more => format!("{first} and {more} more"),
    })
}
