//! One mount from its begin to its end: Ctrl-C, SIGTERM, `umount`, or no use for long.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::Context;
use super::super::choose;
use super::super::failure::{Failure, Outcome};
use super::super::key::prompt;
use super::super::output::{self, count, shell_word};
use super::super::target_args::Remote;
use super::{MountArgs, ShownOwner};
use crate::base::ids::Hash;
use crate::browse::mount::{
    MountAccess, MountActivity, MountError, MountLimits, MountSession, MountSettings,
    SnapshotSource, check_mount_point, unmount,
};
use crate::jobs::context::runtime;
use crate::restore::open::Identities;

/// Time for which a mount that is in use is tried to be unmounted; then it is detached.
const BUSY: Duration = Duration::from_secs(5);
/// Time between two tries to unmount.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// Time between two looks whether the mount is in use.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Receives the signals that end the process, while something is mounted.
static SIGNALS: OnceLock<mpsc::UnboundedSender<()>> = OnceLock::new();

/// Passes a signal on to the mount. Returns whether there is one, which ends the process.
pub(in crate::cli) fn was_told_to_end() -> bool {
    SIGNALS.get().is_some_and(|mount| mount.send(()).is_ok())
}

pub(super) fn run(context: &Context, args: &MountArgs) -> Result<Outcome, Failure> {
    let dir = check_mount_point(&args.dir).map_err(failure)?;
    let reader = args.cache.options(context)?;
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let remote = args.remote.open(context).await?;
        let only = args.only(context, &remote, &identities).await?;
        let settings = MountSettings {
            access: args.access(),
            keeps_owners: args.keeps_owners(),
            limits: MountLimits {
                wait: args.timeout,
                ahead_bytes: args.read_ahead,
            },
            reader,
        };
        let host = remote.folder.host.clone();
        let source = SnapshotSource {
            folder: remote.folder,
            trust: remote.trust,
            identities,
            only,
        };
        let notes = Box::new(|line: &str| output::tell(format_args!("sealift: {line}")));
        // Before anything is mounted, since a process that just ended would leave a dead mount. A
        // process mounts once.
        let (signals, signaled) = mpsc::unbounded_channel();
        let _ = SIGNALS.set(signals);
        let mount = MountSession::mount(source, &remote.chain, &dir, settings, notes);
        let mount = mount.map_err(failure)?;
        context.displays.end_stage();
        let snapshots = count(mount.snapshots() as u64, "snapshot");
        context.note(format_args!(
            "{snapshots} of {host} mounted on {}; to unmount: Ctrl-C, or fusermount3 -u {}",
            dir.display(),
            shell_word(&dir)
        ));
        let activity = mount.activity();
        let (ending, ended) = oneshot::channel();
        let serving = std::thread::Builder::new().name("mount".to_owned());
        serving.spawn(move || ending.send(mount.serve()))?;
        let mounted = Mounted {
            context,
            dir,
            activity,
            idle: args.idle,
            signaled,
            ended,
        };
        mounted.wait().await
    });
    // What is still being fetched is of no use now.
    runtime.shutdown_background();
    ended
}

fn failure(error: MountError) -> Failure {
    let hint = error.hint();
    Failure::from_error(error).hint(hint)
}

impl MountArgs {
    fn access(&self) -> MountAccess {
        match (self.allow_other, self.allow_root) {
            (true, _) => MountAccess::Everyone,
            (false, true) => MountAccess::OwnerAndRoot,
            (false, false) => MountAccess::Owner,
        }
    }

    fn keeps_owners(&self) -> bool {
        let is_root = rustix::process::geteuid().is_root();
        match self.owner {
            Some(owner) => owner == ShownOwner::Keep,
            None => is_root,
        }
    }

    /// Returns the core hashes of the snapshots that `--snapshot` names; `None` without it.
    async fn only(
        &self,
        context: &Context,
        remote: &Remote,
        identities: &Arc<Identities>,
    ) -> Result<Option<HashSet<Hash>>, Failure> {
        if self.snapshot.is_empty() {
            return Ok(None);
        }
        let (folder, chain) = (&remote.folder, &remote.chain);
        let mut only = HashSet::new();
        for choice in &self.snapshot {
            let choice = choose::exactly(context, folder, chain, choice, identities).await?;
            only.insert(chain.resolve(&choice)?.manifest.core_hash);
        }
        Ok(Some(only))
    }
}

/// A mount that is being served.
struct Mounted<'a> {
    context: &'a Context,
    dir: PathBuf,
    activity: MountActivity,
    /// `--idle`.
    idle: Option<Duration>,
    signaled: mpsc::UnboundedReceiver<()>,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Why the mount is to be taken away.
enum UnmountReason {
    Signal,
    Idle,
}

impl Mounted<'_> {
    /// Waits until the mount has ended.
    async fn wait(mut self) -> Result<Outcome, Failure> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let reason = tokio::select! {
                ended = &mut self.ended => return self.conclude(ended),
                _ = self.signaled.recv() => UnmountReason::Signal,
                _ = look.tick() => match self.idle {
                    Some(most) if self.activity.idle() >= most => UnmountReason::Idle,
                    _ => continue,
                },
            };
            match reason {
                UnmountReason::Signal => return self.take_away().await,
                // While a shell is in it, the next look tries again.
                UnmountReason::Idle => {
                    if try_unmount(&self.dir, false).await.is_ok() {
                        let ended = (&mut self.ended).await;
                        return self.conclude(ended);
                    }
                }
            }
        }
    }

    /// Unmounts. If something uses the mount for long, detaches it and waits for that to end, or
    /// for another signal.
    async fn take_away(mut self) -> Result<Outcome, Failure> {
        let until = Instant::now() + BUSY;
        while try_unmount(&self.dir, false).await.is_err() {
            if Instant::now() >= until {
                break;
            }
            tokio::select! {
                ended = &mut self.ended => return self.conclude(ended),
                () = tokio::time::sleep(TRY_EVERY) => {}
                _ = self.signaled.recv() => break,
            }
        }
        if let Ok(ended) = tokio::time::timeout(TRY_EVERY, &mut self.ended).await {
            return self.conclude(ended);
        }
        let detached = try_unmount(&self.dir, true).await;
        if let Err(error) = detached {
            let text = format!("cannot unmount {}: {error}", self.dir.display());
            return Err(Failure::from_error(text));
        }
        output::tell(format_args!(
            "sealift: {} is in use: it is detached, and ends when nothing uses it any more; Ctrl-C \
             again ends it now",
            self.dir.display()
        ));
        tokio::select! {
            ended = &mut self.ended => self.conclude(ended),
            // The end of the process ends the mount: what reads from it fails.
            _ = self.signaled.recv() => Ok(Outcome::Complete),
        }
    }

    fn conclude(
        &self,
        ended: Result<io::Result<()>, oneshot::error::RecvError>,
    ) -> Result<Outcome, Failure> {
        let failed = |error: io::Error| {
            let text = format!("the mount on {} ended: {error}", self.dir.display());
            Failure::from_error(text)
        };
        match ended {
            Ok(Ok(())) => {
                let dir = self.dir.display();
                self.context.note(format_args!("{dir} is unmounted"));
                Ok(Outcome::Complete)
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(io::Error::other("its thread ended early"))),
        }
    }
}

/// Unmounts on a thread of its own, since that may wait for the kernel.
async fn try_unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    let dir = dir.to_owned();
    let done = tokio::task::spawn_blocking(move || unmount(&dir, lazily)).await;
    done.map_err(io::Error::other)?
}
