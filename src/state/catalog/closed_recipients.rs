//! Recipients who must open nothing new: `backup --reseal` closes new snapshots to them.

use std::collections::BTreeSet;

use super::{Catalog, CatalogError};

/// The key in `meta`. The value is a JSON list.
const KEY: &str = "closed recipients";

impl Catalog {
    /// Closes new snapshots to every recipient that any archive is sealed to and that is not one of
    /// `recipients`, the ones that are configured now. Returns those that are closed out.
    pub fn close_recipients(
        &self,
        recipients: &[String],
    ) -> Result<BTreeSet<String>, CatalogError> {
        let sets = self.recipient_sets()?;
        let mut closed: BTreeSet<String> = sets.into_values().flatten().collect();
        closed.extend(self.stored_closed_recipients()?);
        for recipient in recipients {
            closed.remove(recipient);
        }
        self.set_meta(KEY, &serde_json::json!(closed).to_string())?;
        Ok(closed)
    }

    /// Returns the recipients to whom new snapshots are closed. One that is among `recipients`, the
    /// ones that are configured now, is not: the operator took it back.
    pub fn closed_recipients(
        &self,
        recipients: &[String],
    ) -> Result<BTreeSet<String>, CatalogError> {
        let mut closed = self.stored_closed_recipients()?;
        closed.retain(|one| !recipients.contains(one));
        Ok(closed)
    }

    fn stored_closed_recipients(&self) -> Result<BTreeSet<String>, CatalogError> {
        let stored = self.meta(KEY)?;
        let parsed = stored.and_then(|text| serde_json::from_str(&text).ok());
        Ok(parsed.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_that_is_taken_back_is_open_again() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let names = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        catalog.remember_recipients(&names(&["a", "b"])).unwrap();
        catalog.remember_recipients(&names(&["a", "c"])).unwrap();
        let closed = catalog.closed_recipients(&names(&["a"])).unwrap();
        assert!(closed.is_empty());
        let closed = catalog.close_recipients(&names(&["a"])).unwrap();
        assert_eq!(closed, ["b".to_owned(), "c".to_owned()].into());
        let closed = catalog.closed_recipients(&names(&["a", "b"])).unwrap();
        assert_eq!(closed, ["c".to_owned()].into());
        // A later reseal does not open what an earlier one closed.
        let closed = catalog.close_recipients(&names(&["a", "d"])).unwrap();
        assert_eq!(closed.len(), 2);
    }
}
