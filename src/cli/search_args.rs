//! What the commands that search many snapshots share: where, which, and with which identity.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::cache_args::CacheArgs;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::list::remote::tell_findings;
use super::output::{self, count, shell_word};
use super::target_args::RemoteArgs;
use crate::base::progress::Stage;
use crate::browse::find::{FindRequest, FindResult, SearchedSnapshot, find};
use crate::browse::snapshot_range::SnapshotRange;
use crate::format::chain::VerifiedSnapshot;
use crate::jobs::context::{FrontEnd as _, runtime};
use crate::restore::open::Identities;
use crate::restore::{RangeReader, RangeReaderOptions};

/// Most memory for decrypted frames: a search reads each part once.
const MEMORY_BYTES: u64 = 16 << 20;
/// Most snapshots that are named because they could not be searched.
const MOST_UNSEEN: usize = 20;

/// Where a search looks.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// From snapshot A to B: A..B, A.. or ..B, or one: sequences, stamps or dates such as
    /// 2026-04-01..2026-04-30 [default: all]
    #[arg(long = "in", value_name = "A..B", value_parser = SnapshotRange::parse)]
    range: Option<SnapshotRange>,
    /// Only the last N snapshots
    #[arg(long, value_name = "N", conflicts_with = "range")]
    last: Option<usize>,
    /// All snapshots: the default, for scripts that say so
    #[arg(long, conflicts_with_all = ["range", "last"])]
    all: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file (age, age with a passphrase, OpenSSH); can be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    identity: Vec<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Read only what the cache has, and name the snapshots that it lacks
    #[arg(long)]
    offline: bool,
}

impl SearchArgs {
    /// Searches. Fails if no snapshot could be searched.
    pub(super) fn search(
        &self,
        context: &Context,
        request: FindRequest,
    ) -> Result<Searched, Failure> {
        let identities = Arc::new(Identities::load(&self.identity, &prompt())?);
        let options = self.cache.options(context)?;
        let request = Arc::new(request);
        let searched = runtime()?.block_on(async {
            let remote = self
                .remote
                .open_kept(context, &options, self.offline)
                .await?;
            tell_findings(&remote.chain);
            let snapshots = self.range().of(&remote.chain)?;
            if snapshots.is_empty() {
                return Err(Failure::from_error("no snapshot is in this range")
                    .hint("`sealift list` with the same place shows them"));
            }
            context.stage(Stage::Reading, Some(remote.folder.target.label()));
            let options = RangeReaderOptions {
                memory_bytes: options.memory_bytes.min(MEMORY_BYTES),
                ..options
            };
            let reader = RangeReader::new(remote.folder.clone(), identities, options);
            let snapshots: Vec<&VerifiedSnapshot> = snapshots;
            let findings = remote.chain.findings.iter().map(ToString::to_string);
            Ok(Searched {
                findings: findings.collect(),
                found: find(&remote.folder, &snapshots, Arc::new(reader), &request).await,
            })
        })?;
        let unseen: Vec<&SearchedSnapshot> = searched.unseen().collect();
        if unseen.len() == searched.found.snapshots.len() && !self.offline {
            return Err(all_unseen(&unseen));
        }
        tell_unseen(&unseen);
        Ok(searched)
    }

    fn range(&self) -> SnapshotRange {
        match (&self.range, self.last) {
            (Some(range), _) => range.clone(),
            (None, Some(last)) => SnapshotRange::Last(last),
            (None, None) => SnapshotRange::All,
        }
    }

    /// Returns the options that say where the snapshots are, for another command on a line.
    pub(super) fn place_words(&self) -> String {
        let remote = &self.remote;
        let texts = [
            ("--from", &remote.from),
            ("--target", &remote.target),
            ("--signer", &remote.signer),
            ("--endpoint", &remote.endpoint),
            ("--region", &remote.region),
            ("--ssh", &remote.ssh),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| {
            let text = PathBuf::from(text.as_ref()?);
            Some(format!(" {name} {}", shell_word(&text)))
        });
        let host = remote.host.iter().map(|host| format!(" --host {host}"));
        let files = self.identity.iter();
        let files = files.map(|file| format!(" --identity {}", shell_word(file)));
        texts.chain(host).chain(files).collect()
    }
}

/// What a search found, and what it could not see.
pub(super) struct Searched {
    pub(super) found: FindResult,
    /// Irregularities of the host's folder: a manifest that is refused was not searched either.
    pub(super) findings: Vec<String>,
}

impl Searched {
    /// Returns the snapshots that could not be searched.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &SearchedSnapshot> {
        let all = self.found.snapshots.iter();
        all.filter(|one| one.unseen.is_some())
    }

    /// Returns them as JSON.
    pub(super) fn unseen_json(&self) -> Vec<Value> {
        let one = |one: &SearchedSnapshot| {
            json!({
                "stamp": one.stamp,
                "sequence": one.sequence,
                "reason": one.unseen.as_ref().map(|reason| reason.text.as_str()),
            })
        };
        self.unseen().map(one).collect()
    }

    /// Returns the number of snapshots that were searched.
    pub(super) fn count(&self) -> u64 {
        (self.found.snapshots.len() - self.unseen().count()) as u64
    }

    /// Returns how the command ends.
    pub(super) fn outcome(&self) -> Outcome {
        match self.unseen().next().is_none() && self.findings.is_empty() {
            true => Outcome::Complete,
            false => Outcome::Partial,
        }
    }
}

fn tell_unseen(unseen: &[&SearchedSnapshot]) {
    for one in unseen.iter().take(MOST_UNSEEN) {
        if let Some(reason) = &one.unseen {
            output::tell(format_args!(
                "warning: snapshot {} ({}) was not searched: {}",
                one.stamp, one.sequence, reason.text
            ));
        }
    }
    if let more @ 1.. = unseen.len().saturating_sub(MOST_UNSEEN) {
        output::tell(format_args!(
            "warning: and {} more; --json has all",
            count(more as u64, "snapshot")
        ));
    }
}

fn all_unseen(unseen: &[&SearchedSnapshot]) -> Failure {
    let mut reasons = unseen.iter().filter_map(|one| one.unseen.as_ref());
    let lacks_identity = reasons.clone().all(|reason| reason.lacks_identity);
    let reason = reasons.next_back().map_or("", |reason| &reason.text);
    let stamp = unseen.last().map(|one| one.stamp.to_string());
    let error = Failure::from_error(format!(
        "no snapshot could be searched; {}: {reason}",
        stamp.unwrap_or_default(),
    ));
    match lacks_identity {
        true => error.hint("give the identity of one of their recipients with --identity"),
        false => error.hint("`sealift verify` shows what is damaged; another target may have it"),
    }
}
