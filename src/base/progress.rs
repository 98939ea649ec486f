//! Progress of a job while it runs, as typed events.
//!
//! A job reports to one [`Progress`]; the command line draws a line from the events, and another
//! front end may write them out as JSON. What came of a job is in its report, which it returns at
//! its end.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// Receives the events of a job.
///
/// Events come from several threads, some of them for every packed entry, so an implementation
/// counts with atomics and never waits.
pub trait Progress: Send + Sync {
    /// Takes one event into account.
    fn report(&self, event: &ProgressEvent<'_>);
}

/// One step of a job. All numbers are increments, except for totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProgressEvent<'a> {
    /// The job began its next stage.
    StageStarted {
        /// The stage that begins; the one before it has ended.
        stage: Stage,
    },
    /// The size of the work became known.
    BytesExpected {
        /// Bytes to read from the target in total.
        bytes: u64,
    },
    /// The packer finished one entry of the snapshot.
    EntryPacked {
        /// Size of the entry's content.
        bytes: u64,
        /// The part of `bytes` that no earlier snapshot holds.
        new_bytes: u64,
    },
    /// Ciphertext arrived from a target.
    BytesFetched {
        /// Ciphertext bytes of this piece.
        bytes: u64,
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

/// A part of a job that takes long enough to be named. `Display` writes what a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A push lists what each target holds.
    InspectingTargets,
    /// A push reads the snapshot and seals archives; uploads go on at the same time.
    Packing,
    /// A push waits for its uploads and publishes the manifests.
    Shipping,
    /// A restore checks what it wrote and puts it in place.
    Finishing,
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InspectingTargets => "looking at the targets",
            Self::Packing => "packing",
            Self::Shipping => "shipping",
            Self::Finishing => "checking and finishing",
        })
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

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
        let started = ProgressEvent::StageStarted { stage };
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
                r#"{"event":"stage_started","stage":"inspecting_targets"}"#,
                r#"{"event":"retrying","target":"s3","cause":"connection refused","left_seconds":120}"#,
            ]
        );
    }
}
