//! Reads and puts the receipts of a host's folder, within limits. Whether one is believed is
//! decided in [`crate::format::receipt`].

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{CONCURRENT_GETS, HostFolder};
use crate::base::ids::{ObjectKey, RECEIPTS, Stamp};
use crate::format::manifest::ManifestName;
use crate::format::receipt::{MAX_RECEIPT_BYTES, MAX_RECEIPTS, Receipt};
use crate::storage::{Body, PutMode, TargetError};

/// A receipt as it is stored. Nothing is verified.
#[derive(Debug, Clone)]
pub struct StoredReceipt {
    /// Its name.
    pub name: ManifestName,
    /// Its content. `None`: it is too large to be one.
    pub bytes: Option<Vec<u8>>,
    /// The content of its signature. `None`: there is none.
    pub signature: Option<Vec<u8>>,
}

/// The receipts of a folder.
#[derive(Debug, Clone, Default)]
pub struct StoredReceipts {
    /// Those that were read: the newest by name of those about snapshots that the caller knows.
    pub read: Vec<StoredReceipt>,
    /// The newest by name of those about snapshots that the caller does not know. They were not
    /// read.
    pub of_unknown: Vec<ManifestName>,
    /// Number of further receipts that were not read.
    pub unread: usize,
}

/// The names of the receipts of a folder, the newest first.
#[derive(Debug, Clone, Default)]
pub struct ReceiptListing {
    /// Name, size, and whether there is a signature.
    named: Vec<(ManifestName, u64, bool)>,
}

impl ReceiptListing {
    /// Whether there is no receipt.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Returns sequence and stamp of the snapshots that the names name, without repetition next to
    /// each other.
    pub fn snapshots(&self) -> impl Iterator<Item = (u64, Stamp)> {
        let mut last = None;
        self.named.iter().filter_map(move |(name, ..)| {
            let one = (name.sequence, name.stamp);
            (last.replace(one) != Some(one)).then_some(one)
        })
    }
}

impl HostFolder {
    /// Lists the receipts. Nothing is verified.
    pub async fn receipt_listing(&self) -> Result<ReceiptListing, TargetError> {
        let listed = self.list(RECEIPTS).await?;
        let named = listed.iter().filter_map(|(key, bytes)| {
            let name = Receipt::name_of(key)?;
            let signature = ObjectKey::receipt_signature(&name);
            let is_signed = listed.contains_key(signature.as_str());
            Some((name, *bytes, is_signed))
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|a, b| b.cmp(a));
        Ok(ReceiptListing { named })
    }

    /// Reads the newest receipts by name about snapshots for which `is_known` holds, at most
    /// [`MAX_RECEIPTS`]. Receipts about other snapshots cannot crowd them out.
    pub async fn receipts(
        &self,
        listing: ReceiptListing,
        is_known: impl Fn(u64, Stamp) -> bool,
    ) -> Result<StoredReceipts, TargetError> {
        let (known, unknown): (Vec<_>, Vec<_>) = listing
            .named
            .into_iter()
            .partition(|(name, ..)| is_known(name.sequence, name.stamp));
        let unread =
            known.len().saturating_sub(MAX_RECEIPTS) + unknown.len().saturating_sub(MAX_RECEIPTS);
        let read: Vec<StoredReceipt> = futures::stream::iter(known.into_iter().take(MAX_RECEIPTS))
            .map(|(name, bytes, is_signed)| self.stored_receipt(name, bytes, is_signed))
            .buffered(CONCURRENT_GETS)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await?;
        let unknown = unknown.into_iter().take(MAX_RECEIPTS);
        Ok(StoredReceipts {
            read,
            of_unknown: unknown.map(|(name, ..)| name).collect(),
            unread,
        })
    }

    /// Returns `None` if the receipt is gone since the listing.
    async fn stored_receipt(
        &self,
        name: ManifestName,
        bytes: u64,
        is_signed: bool,
    ) -> Result<Option<StoredReceipt>, TargetError> {
        let signature = match is_signed {
            false => None,
            true => {
                let key = ObjectKey::receipt_signature(&name);
                self.get_small(&key, MAX_RECEIPT_BYTES).await?
            }
        };
        if bytes > MAX_RECEIPT_BYTES {
            return Ok(Some(StoredReceipt {
                name,
                bytes: None,
                signature,
            }));
        }
        let key = ObjectKey::receipt(&name);
        let content = self.get_small(&key, MAX_RECEIPT_BYTES).await?;
        Ok(content.map(|content| StoredReceipt {
            name,
            bytes: Some(content),
            signature,
        }))
    }

    /// Puts a receipt's objects one after the other: its signature, then the receipt.
    pub async fn put_receipt(&self, objects: &[(ObjectKey, Vec<u8>)]) -> Result<(), TargetError> {
        for (key, bytes) in objects {
            let body = Body::Bytes(Bytes::copy_from_slice(bytes));
            self.target
                .put(&self.key(key), body, PutMode::Create)
                .await?;
        }
        Ok(())
    }
}
