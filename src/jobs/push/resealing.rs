//! What a new recipient costs: content that only archives of the earlier recipients have is
//! encrypted and sent again.

use std::collections::BTreeSet;

use crate::base::units::{count, size};
use crate::format::archive_table::ArchiveKind;
use crate::state::catalog::{Catalog, CatalogError};

/// Returns a note if the next push must encrypt content again for `recipients`, the ones that are
/// configured now: how much, and for whom. `None`: it need not.
pub(crate) fn resealing(
    catalog: &Catalog,
    recipients: &[String],
) -> Result<Option<String>, CatalogError> {
    let sets = catalog.recipient_sets()?;
    let (mut archives, mut bytes) = (0, 0);
    let mut added: BTreeSet<&str> = BTreeSet::new();
    for archive in catalog.archives_in_use()? {
        if archive.row.kind != ArchiveKind::Data {
            continue;
        }
        let members = sets.get(&archive.row.recipient_set);
        let is_member = |one: &&String| members.is_some_and(|members| members.contains(*one));
        let lacking = recipients.iter().filter(|one| !is_member(one));
        let lacking: Vec<&str> = lacking.map(String::as_str).collect();
        if lacking.is_empty() {
            continue;
        }
        added.extend(lacking);
        archives += 1;
        bytes += archive.live_bytes.unwrap_or(archive.tar_bytes);
    }
    let Some(first) = added.iter().next() else {
        return Ok(None);
    };
    let whom = match added.len() - 1 {
        0 => (*first).to_owned(),
        more => format!("{first} and {more} more"),
    };
    Ok(Some(format!(
        "{} in {} must be encrypted and sent again, because the new recipient {whom} cannot decrypt what is there; \
         compressed it may be less",
        size(bytes),
        count(archives, "archive")
    )))
}
