//! `mount`: snapshots as a read-only file system, until it is taken away.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Context;
use super::cache_args::CacheArgs;
use super::failure::{Failure, Outcome};
use super::target_args::RemoteArgs;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::{parse_duration, parse_size};

#[cfg(feature = "mount")]
mod session;
#[cfg(feature = "mount")]
pub(super) use session::was_told_to_end;

#[derive(Debug, Args)]
#[cfg_attr(not(feature = "mount"), allow(dead_code))]
pub(super) struct MountArgs {
    /// An empty directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show only this snapshot: latest, a sequence, a stamp, a hash, or a time; can be repeated.
    /// Without it all are shown, and new ones appear within a minute
    #[arg(long, value_name = "SNAPSHOT", value_parser = SnapshotChoice::parse)]
    snapshot: Vec<SnapshotChoice>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file, to decrypt the snapshots; can be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    pub(super) identity: Vec<PathBuf>,
    /// Let every user look into it, as owners and modes of the files allow
    #[arg(long, conflicts_with = "allow_root")]
    allow_other: bool,
    /// Let root look into it, too
    #[arg(long)]
    allow_root: bool,
    /// Show the files' own owners, or this user as the owner of all [default: keep for root, me
    /// for others]
    #[arg(long, value_enum)]
    owner: Option<ShownOwner>,
    /// Of a file that is read from start to end, fetch this much ahead; 0: nothing
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = parse_size)]
    read_ahead: u64,
    /// How long a program waits for the target before its read fails
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,
    /// Unmount after this time without use
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    idle: Option<Duration>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Whose files a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShownOwner {
    /// The owners that the files have in the snapshot
    Keep,
    /// The user who mounts
    Me,
}

#[cfg(feature = "mount")]
pub(super) fn run(context: &Context, args: &MountArgs) -> Result<Outcome, Failure> {
    session::run(context, args)
}

/// Refuses, since this build has no FUSE.
#[cfg(not(feature = "mount"))]
pub(super) fn run(_: &Context, _: &MountArgs) -> Result<Outcome, Failure> {
    Err(Failure::from_error("this build of sealift has no mount")
        .hint("use restore or ls, or a build with the cargo feature `mount`"))
}

/// Returns false: nothing is mounted.
#[cfg(not(feature = "mount"))]
pub(super) fn was_told_to_end() -> bool {
    false
}
