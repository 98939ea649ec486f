//! The snapshots on a target, as their manifests show them; with an identity, also what their
//! sealed indexes say.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::choose::read_header;
use super::super::context::{FrontEnd, open_catalog};
use super::super::error::JobError;
use super::super::local_retention::pins_of;
use super::has_all;
use crate::base::ids::{HostName, Stamp};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::base::units::count;
use crate::config::Config;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::manifest::Totals;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::state::catalog::SnapshotAbout;

/// The snapshots of a host on a target.
#[derive(Debug, Serialize)]
pub(crate) struct RemoteListReport {
    /// Oldest first.
    pub(crate) snapshots: Vec<RemoteSnapshot>,
    /// Irregularities of the host's folder.
    pub(crate) findings: Vec<String>,
    /// Snapshots that are not listed because their tags are not known here; 0 without `--tag`.
    pub(crate) without_known_tags: u64,
}

/// A snapshot on a target.
#[derive(Debug, Serialize)]
pub(crate) struct RemoteSnapshot {
    pub(crate) stamp: Stamp,
    /// The time of the stamp.
    pub(crate) time: DateTime<Utc>,
    pub(crate) sequence: u64,
    pub(crate) host: HostName,
    /// The manifest's name.
    pub(crate) manifest: String,
    /// The signer's fingerprint.
    pub(crate) signer: String,
    pub(crate) totals: Totals,
    pub(crate) recipients: Vec<String>,
    /// When the next push is due.
    pub(crate) next_by: Option<DateTime<Utc>>,
    /// `None`: they are encrypted, and no identity was given.
    pub(crate) tags: Option<Vec<String>>,
    /// Where in it the sources belong that it holds. `None` as for `tags`.
    pub(crate) sources: Option<Vec<String>>,
    /// Whether it is pinned on this machine. `None`: the host is another machine.
    pub(crate) pinned: Option<bool>,
}

/// A host's folder whose snapshots are listed.
pub(crate) struct RemoteListing<'a> {
    pub(crate) folder: &'a HostFolder,
    pub(crate) chain: &'a Chain,
    /// Decrypt the indexes. `None`: tags and sources are not known, or only from this host.
    pub(crate) identities: Option<&'a Arc<Identities>>,
    /// The configuration of this machine, if it is the host.
    pub(crate) config: Option<&'a Config>,
}

impl RemoteListing<'_> {
    /// Lists the snapshots that `choice`, which is `latest` within bounds, admits.
    pub(crate) async fn run(
        &self,
        choice: &SnapshotChoice,
        front: &dyn FrontEnd,
    ) -> Result<RemoteListReport, JobError> {
        let catalog = self.config.map(open_catalog).transpose()?.flatten();
        let pins = self.config.map(pins_of).transpose()?;
        let admits = |snapshot: &&VerifiedSnapshot| {
            let (stamp, sequence) = (snapshot.stamp(), snapshot.sequence());
            choice.admits(stamp, Some(sequence), std::iter::empty())
        };
        let chosen: Vec<_> = self.chain.snapshots.iter().filter(admits).collect();
        if self.identities.is_some() && chosen.len() > 1 {
            let indexes = count(chosen.len() as u64, "snapshot");
            front.note(&format!("reading the tags of {indexes}"));
        }
        let (mut snapshots, mut without_known_tags) = (Vec::new(), 0);
        for one in chosen {
            let about = match (self.identities, &catalog) {
                (Some(identities), _) => Some(self.decrypt(one, identities).await?),
                (None, Some(catalog)) => catalog.about(&one.manifest.core_hash)?,
                (None, None) => None,
            };
            let has_tags = match &about {
                _ if choice.tags().is_empty() => true,
                Some(about) => has_all(choice.tags(), &about.tags),
                None => {
                    without_known_tags += 1;
                    false
                }
            };
            if !has_tags {
                continue;
            }
            let stamp = one.stamp();
            let pinned = pins.as_ref().map(|pins| pins.by_hand.contains(&stamp));
            snapshots.push(RemoteSnapshot::of(one, about, pinned));
        }
        Ok(RemoteListReport {
            snapshots,
            findings: self
                .chain
                .findings
                .iter()
                .map(ToString::to_string)
                .collect(),
            without_known_tags,
        })
    }

    async fn decrypt(
        &self,
        snapshot: &VerifiedSnapshot,
        identities: &Arc<Identities>,
    ) -> Result<SnapshotAbout, JobError> {
        let header = read_header(self.folder, snapshot, identities).await?;
        Ok(SnapshotAbout::from(header))
    }
}

impl RemoteSnapshot {
    fn of(snapshot: &VerifiedSnapshot, about: Option<SnapshotAbout>, pinned: Option<bool>) -> Self {
        let core = &snapshot.manifest.core;
        let (tags, sources) = match about {
            Some(about) => (Some(about.tags), Some(about.sources)),
            None => (None, None),
        };
        Self {
            stamp: core.stamp,
            time: core.stamp.time(),
            sequence: core.sequence,
            host: core.host.clone(),
            manifest: snapshot.manifest.name().to_string(),
            signer: snapshot.signer.clone(),
            totals: core.totals,
            recipients: core.recipients.clone(),
            next_by: core.next_by,
            tags,
            sources,
            pinned,
        }
    }
}
