//! Finds the archives of a restore that are in cold storage, and requests their thawing.
//!
//! No listing shows that. A target must be asked object by object, so that is done only for a
//! reason: a rule that moves objects into cold storage goes by age, and a storage class is
//! configured on some day, so the oldest and the newest archive show both.

use std::fmt;

use futures::{StreamExt as _, TryStreamExt as _};

use super::plan::ArchiveJob;
use crate::base::ids::ObjectKey;
use crate::repository::HostFolder;
use crate::storage::{TargetError, Thaw};

/// Requests at the same time.
const AT_ONCE: usize = 16;

/// Archives that cannot be read as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Their keys below the host's folder, and their bytes of ciphertext.
    pub archives: Vec<(ObjectKey, u64)>,
    /// How many archives are needed, these among them.
    pub needed: usize,
}

impl Frozen {
    /// Returns the ciphertext of all of them.
    pub fn bytes(&self) -> u64 {
        let bytes = self.archives.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the {} archives that are needed ({} bytes) are in cold storage and cannot be read until they \
             are thawed: `sealift restore --thaw` requests that",
            self.archives.len(),
            self.needed,
            self.bytes()
        )
    }
}

/// The archives of a plan: key and bytes of ciphertext, the oldest first.
pub(super) struct NeededArchives(Vec<(ObjectKey, u64)>);

impl NeededArchives {
    /// Returns the archives of `jobs`, which are sorted by archive id.
    pub(crate) fn by(jobs: &[ArchiveJob]) -> Self {
        let archives = jobs.iter().map(|job| (job.row.key(), job.row.bytes));
        Self(archives.collect())
    }

    /// Returns the frozen archives if the oldest or the newest is frozen.
    pub(crate) async fn frozen_by_the_ends(&self, folder: &HostFolder) -> Option<Frozen> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        let ends = futures::future::join(is_frozen(folder, &first.0), is_frozen(folder, &last.0));
        match ends.await {
            (false, false) => None,
            _ => Some(self.frozen(folder).await),
        }
    }

    /// Returns the frozen archives. Asks for each.
    pub(crate) async fn frozen(&self, folder: &HostFolder) -> Frozen {
        let found = futures::stream::iter(&self.0)
            .map(async |archive| is_frozen(folder, &archive.0).await.then(|| archive.clone()))
            .buffered(AT_ONCE)
            .filter_map(async |frozen| frozen);
        Frozen {
            archives: found.collect().await,
            needed: self.0.len(),
        }
    }
}

/// Whether the archive is in cold storage. Any other defect shows when it is fetched.
async fn is_frozen(folder: &HostFolder, key: &ObjectKey) -> bool {
    let answer = folder.target.is_frozen(&folder.key(key)).await;
    answer.unwrap_or(false)
}

/// The answers to a request to thaw archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thawing {
    /// Requested now.
    pub asked: u64,
    /// Requested earlier.
    pub under_way: u64,
    /// Readable already.
    pub ready: u64,
}

/// Requests that all archives of `frozen` become readable for `days` days. Doing so twice does no
/// harm.
pub async fn thaw(folder: &HostFolder, frozen: &Frozen, days: u16) -> Result<Thawing, TargetError> {
    let answers = futures::stream::iter(&frozen.archives)
        .map(async |(key, _)| folder.target.thaw(&folder.key(key), days).await)
        .buffer_unordered(AT_ONCE);
    let count = async |mut thawing: Thawing, answer| {
        match answer {
            Thaw::Asked => thawing.asked += 1,
            Thaw::UnderWay => thawing.under_way += 1,
            Thaw::Ready => thawing.ready += 1,
        }
        Ok(thawing)
    };
    answers.try_fold(Thawing::default(), count).await
}
