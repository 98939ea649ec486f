//! Sizes of backups: what each target stores, what each snapshot added, what it alone needs, and
//! how the storage grew.
//!
//! No identity is needed. There are two sources of numbers:
//!
//! - the catalog of this host ([`remembered`]), which asks no target and does not know which
//!   snapshot needs which archive;
//! - the manifests and archive tables of one host on a target, and a listing of its objects
//!   ([`measured`]).
//!
//! A number that its source does not show is `None`, and [`StoredBackups::unknown`] says why.

mod growth;
mod measured;
mod remembered;

use serde::Serialize;

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use crate::base::ids::{HostName, Stamp};
use crate::config::Config;
use crate::format::chain::Chain;
use crate::jobs::targets::no_such_target;
use crate::repository::HostFolder;
pub(crate) use growth::{GrowthPeriod, GrowthUnit};

/// Sizes of backups on one or more targets.
#[derive(Debug, Serialize)]
pub(crate) struct StatsReport {
    pub(crate) backups: Vec<StoredBackups>,
}

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StatsSource {
    /// The catalog of this host, as of its last backup.
    Catalog,
    /// The manifests and objects on the target.
    Target,
}

/// The backups of one host on one target.
#[derive(Debug, Serialize)]
pub(crate) struct StoredBackups {
    /// The target's label.
    pub(crate) target: String,
    pub(crate) host: HostName,
    pub(crate) source: StatsSource,
    /// Bytes of the files of all snapshots together.
    pub(crate) bytes: u64,
    pub(crate) stored: StoredClasses,
    /// Bytes of archives that the newest snapshot does not need and an older one does: they are
    /// freed as older snapshots are deleted.
    pub(crate) older_only_bytes: Option<u64>,
    pub(crate) ratios: Ratios,
    pub(crate) growth_unit: GrowthUnit,
    /// Oldest first; periods without a snapshot are left out.
    pub(crate) growth: Vec<GrowthPeriod>,
    /// By sequence, lowest first.
    pub(crate) snapshots: Vec<SnapshotSizes>,
    /// Which numbers are not known, and why.
    pub(crate) unknown: Vec<String>,
    /// Irregularities of the manifests, as `list` reports them.
    pub(crate) findings: Vec<String>,
}

/// Objects and bytes on a target, by class.
#[derive(Debug, Default, Serialize)]
pub(crate) struct StoredClasses {
    pub(crate) data_archives: ClassSize,
    pub(crate) index_archives: ClassSize,
    /// Manifests, tables, signatures, marks, tombstones and recovery documents.
    pub(crate) manifests_and_tables: Option<ClassSize>,
    /// Archives that no snapshot needs. The next prune after a backup frees those that a prune
    /// marked.
    pub(crate) unused_archives: Option<ClassSize>,
    /// All classes that are known.
    pub(crate) total: ClassSize,
}

/// Number and size of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ClassSize {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// How much smaller the stored data are than the files of all snapshots.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Ratios {
    /// Bytes of the files of all snapshots, divided by bytes of the data archives' content.
    pub(crate) deduplication: Option<f64>,
    /// Bytes of the data archives' content, divided by their stored bytes.
    pub(crate) compression: Option<f64>,
    /// Both together: bytes of the files of all snapshots, divided by the bytes of the data
    /// archives.
    pub(crate) total: Option<f64>,
}

/// Sizes of one snapshot.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotSizes {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Bytes of its files that no archive held before.
    pub(crate) new_bytes: u64,
    /// Bytes of the archives that only this snapshot needs: what its deletion alone would free.
    pub(crate) unique_bytes: Option<u64>,
    /// Bytes of the archives that this snapshot and all earlier ones need.
    pub(crate) stored_bytes: Option<u64>,
}

/// Returns what the catalog knows of every target of this host, or of the one called `name`.
pub(crate) fn remembered(config: &Config, name: Option<&str>) -> Result<StatsReport, JobError> {
    let targets = config.targets.iter();
    let chosen = targets.filter(|target| name.is_none_or(|name| name == target.name));
    let chosen: Vec<_> = chosen.collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        return Err(no_such_target(config, name));
    }
    let Some(catalog) = open_catalog(config)? else {
        return Err(JobError::work("nothing was ever pushed from here")
            .with_next("`sealift backup` makes the first snapshot"));
    };
    let backups = chosen
        .into_iter()
        .map(|target| remembered::of_target(config, &catalog, target));
    Ok(StatsReport {
        backups: backups.collect::<Result<_, _>>()?,
    })
}

/// Measures the backups in `folder`, whose manifests are verified in `chain`. `config`: of the
/// machine, `None` if it has none; the catalog of the host itself knows how well its archives
/// compress.
pub(crate) async fn measured(
    folder: &HostFolder,
    chain: &Chain,
    config: Option<&Config>,
    front: &dyn FrontEnd,
) -> Result<StoredBackups, JobError> {
    let own = config.filter(|config| config.host == folder.host);
    let catalog = match own.map(open_catalog).transpose() {
        Ok(catalog) => catalog.flatten(),
        Err(error) => {
            front.warn(&error.with_causes());
            None
        }
    };
    let mut measured = measured::measure(folder, chain).await?;
    measured.compare_with(catalog.as_ref())?;
    Ok(measured.finish(folder, chain))
}

impl ClassSize {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

impl StoredClasses {
    fn sum_up(&mut self) {
        let known = [
            Some(self.data_archives),
            Some(self.index_archives),
            self.manifests_and_tables,
            self.unused_archives,
        ];
        self.total = ClassSize::default();
        for class in known.into_iter().flatten() {
            self.total.objects += class.objects;
            self.total.bytes += class.bytes;
        }
    }
}

impl Ratios {
    /// `bytes`: of the files of all snapshots; `content`: of the data archives, `None` if unknown;
    /// `stored`: bytes of the data archives.
    fn of(bytes: u64, content: Option<u64>, stored: u64) -> Self {
        Self {
            deduplication: content.and_then(|content| quotient(bytes, content)),
            compression: content.and_then(|content| quotient(content, stored)),
            total: quotient(bytes, stored),
        }
    }
}

/// Returns the quotient with two decimals; `None` if there is nothing to divide.
fn quotient(dividend: u64, divisor: u64) -> Option<f64> {
    let exact = dividend as f64 / divisor as f64;
    (dividend > 0 && divisor > 0).then_some((exact * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_divide_what_is_known() {
        let ratios = Ratios::of(1000, Some(400), 100);
        assert_eq!(ratios.deduplication, Some(2.5));
        assert_eq!(ratios.compression, Some(4.0));
        assert_eq!(ratios.total, Some(10.0));
        let ratios = Ratios::of(1000, None, 300);
        assert_eq!((ratios.deduplication, ratios.compression), (None, None));
        assert_eq!(ratios.total, Some(3.33));
        assert_eq!(Ratios::of(0, Some(0), 0), Ratios::default());
    }
}
