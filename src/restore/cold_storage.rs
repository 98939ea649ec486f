//! Archives in cold storage: which of those that a restore needs must be thawed before it can read them.
//!
//! No listing tells. A target is asked object by object, and only where there is a reason to: a rule that
//! moves objects into cold storage goes by age, so does a class that was configured one day, and the oldest
//! and the newest archive show either.

use std::fmt;

use futures::{StreamExt as _, TryStreamExt as _};

use super::plan::ArchiveJob;
use crate::base::ids::ObjectKey;
use crate::repository::HostFolder;
use crate::storage::{TargetError, Thaw};

const AT_ONCE: usize = 16;

/// Archives that cannot be read as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// And their bytes.
    pub archives: Vec<(ObjectKey, u64)>,
    /// How many archives are needed, these among them.
    pub needed: usize,
}

impl Frozen {
    pub fn bytes(&self) -> u64 {
        let bytes = self.archives.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the {} archives that are needed ({} bytes) lie in cold storage and cannot be read until they \
             are thawed: `sealift restore --thaw` asks for that",
            self.archives.len(),
            self.needed,
            self.bytes()
        )
    }
}

/// The archives of a plan, by key.
pub(super) struct NeededArchives(Vec<(ObjectKey, u64)>);

impl NeededArchives {
    /// `jobs` by archive id: the oldest first.
    pub(crate) fn by(jobs: &[ArchiveJob]) -> Self {
        let archives = jobs.iter().map(|job| (job.row.key(), job.row.bytes));
        Self(archives.collect())
    }

    /// What is frozen, as far as the oldest and the newest tell whether anything is.
    pub(crate) async fn frozen_by_the_ends(&self, folder: &HostFolder) -> Option<Frozen> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        let ends = futures::future::join(is_frozen(folder, &first.0), is_frozen(folder, &last.0));
        match ends.await {
            (false, false) => None,
            _ => Some(self.frozen(folder).await),
        }
    }

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

/// Whatever else is wrong with it, fetching it will tell.
async fn is_frozen(folder: &HostFolder, key: &ObjectKey) -> bool {
    let answer = folder.target.is_frozen(&folder.key(key)).await;
    answer.unwrap_or(false)
}

/// What became of asking for frozen archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thawing {
    pub asked: u64,
    /// Asked for earlier.
    pub under_way: u64,
    /// Can be read by now.
    pub ready: u64,
}

/// Asks for all of `frozen`, to be readable for so many days. Asking twice does no harm.
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
