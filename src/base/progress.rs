//! Progress of a job while it runs, as typed events.
//!
//! A job reports to one [`Progress`]; the command line draws lines from the events, and writes some
//! of them out as JSON. What came of a job is in its report, which it returns at its end.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Receives the events of a job.
///
/// Events come from several threads, some of them for every packed entry, so an implementation
/// counts with atomics and never waits.
pub trait Progress: Send + Sync {
    /// Takes one event into account.
    fn report(&self, event: &ProgressEvent<'_>);
}

/// One step of a job. Numbers are increments unless their field says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProgressEvent<'a> {
    /// The job began its next stage.
    StageStarted {
        /// The stage that begins; the one before it has ended.
        stage: Stage,
        /// The source, host or target that the stage is about; `None`: all of them.
        subject: Option<&'a str>,
    },
    /// The size of the work became known.
    BytesExpected {
        /// Bytes to read from the target in total.
        bytes: u64,
    },
    /// The packer reads a large file.
    FileRead {
        /// The bytes of this file that were read so far. The file's entry replaces them.
        bytes: u64,
    },
    /// The packer finished one entry of the snapshot.
    EntryPacked {
        /// Number of files that were packed so far.
        files: u64,
        /// Size of the entry's content.
        bytes: u64,
        /// The part of `bytes` that no earlier snapshot holds.
        new_bytes: u64,
    },
    /// The packer sealed an archive.
    ArchiveSealed {
        /// Ciphertext bytes of the archive.
        bytes: u64,
    },
    /// Ciphertext arrived from a target.
    BytesFetched {
        /// Ciphertext bytes of this piece.
        bytes: u64,
    },
    /// A target has begun to do something else.
    TargetChanged {
        /// The target's configured name, or its label if it is in no config.
        target: &'a str,
        /// What it does now.
        activity: &'a TargetActivity,
    },
    /// More objects are to be sent to a target than was known before.
    BytesQueued {
        /// The target's name, as above.
        target: &'a str,
        /// Bytes of these objects.
        bytes: u64,
    },
    /// Bytes of an object move that is not complete yet. Once it is complete, or its transfer
    /// failed, all its bytes are taken back, so the sum of all changes is 0 at the end.
    BytesInFlight {
        /// The target's name, as above.
        target: &'a str,
        /// Bytes that moved; negative: bytes that are taken back.
        change: i64,
    },
    /// A target confirmed one object.
    BytesShipped {
        /// The target's configured name, or its label if it is in no config.
        target: &'a str,
        /// Size of the object.
        bytes: u64,
    },
    /// A target does not answer, or its requests fail; they are retried.
    Retrying {
        /// The target's configured name, or its label if it is in no config.
        target: &'a str,
        /// What the last attempt failed with, without its object's name.
        cause: &'a str,
        /// Seconds for which the request is still retried; `None`: the first attempt goes on.
        left_seconds: Option<u64>,
    },
    /// Something that the operator may want to know, and that changes no exit code.
    Note {
        /// A sentence without its final period.
        text: &'a str,
    },
    /// Something that keeps the job from a full success (exit code 3).
    Warning {
        /// A sentence without its final period.
        text: &'a str,
    },
}

/// What a push does with one target. `Display` writes what a terminal shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TargetActivity {
    /// The push lists what the target holds.
    Looking,
    /// Nothing is to be sent now.
    Waiting,
    /// Objects of the spool go there.
    Sending,
    /// Archives that the spool lacks come from another target.
    Copying {
        /// The other target's label.
        from: String,
    },
    /// The snapshots become visible there.
    Publishing,
    /// The target has every snapshot.
    Done,
    /// The target gets nothing in this run.
    Away {
        /// The error and its causes.
        reason: String,
    },
}

impl TargetActivity {
    /// Returns the activity as one word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Copying { .. } => "copying",
            Self::Publishing => "publishing",
            Self::Done => "done",
            Self::Away { .. } => "away",
        }
    }
}

impl Display for TargetActivity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copying { from } => write!(f, "copying from {from}"),
            Self::Away { reason } => write!(f, "away: {reason}"),
            other => f.write_str(other.word()),
        }
    }
}

/// A part of a job that takes long enough to be named. `Display` writes what a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The command prepares its work.
    Starting,
    /// A source is copied into the snapshot.
    Producing,
    /// The copies of the sources are checked.
    Validating,
    /// What a target holds is listed and its manifests are read.
    InspectingTargets,
    /// A push reads the snapshot and seals archives; uploads go on at the same time.
    Packing,
    /// A push waits for its uploads.
    Shipping,
    /// The manifests become visible on the targets.
    Publishing,
    /// Snapshots that retention no longer keeps are deleted.
    Pruning,
    /// Archives are read and compared with their hashes.
    Reading,
    /// Archives are fetched and files are restored.
    Restoring,
    /// Archives are copied from one target to another.
    Copying,
    /// The host's index is rebuilt from the targets.
    Rebuilding,
    /// A target is tried with objects that are deleted again.
    Trying,
    /// A restore checks what it wrote and puts it in place.
    Finishing,
    /// A restore in place copies a source's new content beside its live path.
    Staging,
    /// A restore in place stops what uses the data.
    StoppingService,
    /// A restore in place closes up a source's old content, or copies it.
    KeepingOld,
    /// A restore in place exchanges a source's old and new content.
    PuttingInPlace,
    /// A restore in place starts what uses the data.
    StartingService,
    /// The checks of a restore in place run.
    CheckingService,
    /// A restore in place brings old content back.
    RollingBack,
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Producing => "copying the sources",
            Self::Validating => "checking the copies",
            Self::InspectingTargets => "looking at the targets",
            Self::Packing => "packing",
            Self::Shipping => "sending",
            Self::Publishing => "publishing",
            Self::Pruning => "pruning",
            Self::Reading => "reading archives",
            Self::Restoring => "restoring",
            Self::Copying => "copying archives",
            Self::Rebuilding => "rebuilding the index",
            Self::Trying => "trying the targets",
            Self::Finishing => "checking and finishing",
            Self::Staging => "copying the new content",
            Self::StoppingService => "stopping the service",
            Self::KeepingOld => "keeping the old content",
            Self::PuttingInPlace => "putting it in place",
            Self::StartingService => "starting the service",
            Self::CheckingService => "checking the service",
            Self::RollingBack => "rolling back",
        })
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Silent {
    /// Returns a shared one.
    pub fn shared() -> Arc<dyn Progress> {
        Arc::new(Self)
    }
}

impl Progress for Silent {
    fn report(&self, _event: &ProgressEvent<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_json_object() {
        let (target, bytes) = ("s3", 7);
        let shipped = ProgressEvent::BytesShipped { target, bytes };
        let stage = Stage::InspectingTargets;
        let subject = None;
        let started = ProgressEvent::StageStarted { stage, subject };
        let retrying = ProgressEvent::Retrying {
            target,
            cause: "connection refused",
            left_seconds: Some(120),
        };
        let lines =
            [shipped, started, retrying].map(|event| serde_json::to_string(&event).unwrap());
        assert_eq!(
            lines,
            [
                r#"{"event":"bytes_shipped","target":"s3","bytes":7}"#,
                r#"{"event":"stage_started","stage":"inspecting_targets","subject":null}"#,
                r#"{"event":"retrying","target":"s3","cause":"connection refused","left_seconds":120}"#,
            ]
        );
    }
}
