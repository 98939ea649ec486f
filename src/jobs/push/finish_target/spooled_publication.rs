//! A spooled snapshot as the shipper publishes it.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::tidy_spool::known_objects;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::{self, MANIFEST_NAMESPACE};
use crate::packer::Packed;
use crate::repository::parse_page;
use crate::shipper::Publication;
use crate::state::State;

/// Reads the snapshot `name` from the spool, with the archives that its own pages name. `packed` is
/// the new snapshot; `None`: there is none. Returns `None` if some of it is gone or damaged.
pub(super) fn spooled_publication(
    state: &State,
    packed: Option<&Packed>,
    name: &ManifestName,
) -> Option<Publication> {
    let bytes = state.spool.read(&name.key()).ok()?;
    let manifest = Manifest::parse_named(name, &bytes).ok()?;
    // A signature that is not here is on the target already.
    if let Ok(signature) = state.spool.read(&name.signature_key()) {
        signature::verify(&signature, MANIFEST_NAMESPACE, &bytes).ok()?;
    }
    let mut archives = Vec::new();
    for hash in &manifest.pages {
        let bytes = state.spool.read(&ObjectKey::table(hash)).ok()?;
        let page = parse_page(hash, &bytes).ok()?;
        archives.extend(page.rows);
    }
    let is_new = |packed: &&Packed| manifest.name() == packed.manifest.name();
    if let Some(packed) = packed.filter(is_new) {
        let objects = packed.known.iter();
        let at_hand = objects.map(|(name, bytes)| (*name, Bytes::copy_from_slice(bytes)));
        return Some(Publication {
            manifest,
            archives,
            known: packed.known.iter().map(|(name, _)| *name).collect(),
            at_hand: at_hand.collect(),
        });
    }
    let known = known_objects(&state.spool, &manifest)?;
    // Pages that are not here were on every target when the snapshot was packed.
    let is_right = |name: &Hash| match state.spool.read(&ObjectKey::table(name)) {
        Ok(bytes) => Hash::sha256(&bytes) == *name,
        Err(_) => !state.spool.contains(&ObjectKey::table(name)),
    };
    known.iter().all(is_right).then_some(Publication {
        manifest,
        archives,
        known,
        at_hand: HashMap::new(),
    })
}
