//! Restores a snapshot in place on another host: it is decrypted and verified on this machine, and
//! sent to `sealift restore --in-place --stdin` there.
//!
//! The identity stays here. The other side answers with events, one JSON object a line:
//!
//! 1. `ready`, with its host and version. Only then is anything fetched.
//! 2. We send how much room the content needs, and the tar of the restored directory.
//! 3. `received`: all of it is there and verified. Only then do we say [`GO`].
//! 4. `stage`, `progress`, `note`, `warning` and `alive`, so that it is never silent for long.
//! 5. `verdict`, the result of the restore in place, and `report`, with the errors.
//!
//! If the connection breaks before 3, nothing is changed there; after it, the host goes on alone.

mod answers;

use std::io::{self, Write};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::context::FrontEnd;
use super::error::JobError;
use super::in_place_content::{ContentScratch, FetchError, FetchRequest, GO, room_line};
use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::format::restored::RestoredRecord;
use crate::restore::{PackRestoredError, RestorePlan, RestoreReport, pack_restored, written_bytes};
use crate::storage::{ViaCommand, ViaInput, ViaProcess};
use answers::{Answered, Ended, Until};

/// How long the other side may take until it is ready: a person may type a password meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Longest silence after that; it reports that it is alive every 10 s.
const SILENCE: Duration = Duration::from_secs(120);
/// How long its process may take to end after its last line.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks at a thread.
const POLL: Duration = Duration::from_millis(10);
const BUFFER_BYTES: usize = 256 << 10;
/// The tree in the scratch directory.
const TREE: &str = "content";

/// The request for the other side.
#[derive(Debug, Clone)]
pub(crate) struct PushRestoreRequest {
    /// The command that leads there.
    pub(crate) via: ViaCommand,
    /// The sources to restore; empty: all.
    pub(crate) only: Vec<String>,
    /// Options without a value that are passed on, such as `--no-checks`.
    pub(crate) flags: Vec<&'static str>,
    /// What becomes of the old content, as the option `--preserve` has it. `None`: the host's
    /// setting.
    pub(crate) preserve: Option<String>,
}

/// How a restore by push ended.
#[derive(Debug)]
pub(crate) struct PushRestoreReport {
    /// The other side, as its configuration names it.
    pub(crate) host: String,
    /// The restore on this machine.
    pub(crate) restored: RestoreReport,
    /// The result there. `None`: it ended before it had one.
    pub(crate) verdict: Option<Value>,
    /// The errors there.
    pub(crate) errors: Vec<RemoteError>,
    /// The exit code of the other side.
    pub(crate) exit_code: u8,
}

/// An error that the other side reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteError {
    /// What failed.
    pub(crate) text: String,
    /// Why, from the outermost cause on.
    pub(crate) causes: Vec<String>,
    /// The next step.
    pub(crate) next: Option<String>,
}

impl PushRestoreRequest {
    /// Returns the words after the command that leads to the other machine. None of them names a
    /// file of this machine.
    fn words(&self) -> Result<Vec<String>, JobError> {
        let fixed = [
            "sealift",
            "--json",
            "restore",
            "--in-place",
            "--stdin",
            "--yes",
        ];
        let mut words: Vec<String> = fixed.map(str::to_owned).to_vec();
        for name in &self.only {
            // ssh passes them to a shell; names in a configuration have no other characters.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || name.starts_with('-') || !name.chars().all(is_plain) {
                let what = format!("--only {name:?} is not the name of a source");
                return Err(JobError::request(what));
            }
            words.extend(["--only".to_owned(), name.clone()]);
        }
        if let Some(preserve) = &self.preserve {
            words.extend(["--preserve".to_owned(), preserve.clone()]);
        }
        words.extend(self.flags.iter().map(|flag| (*flag).to_owned()));
        Ok(words)
    }

    /// Starts the other side and waits until it is ready.
    pub(crate) fn connect(self, front: &dyn FrontEnd) -> Result<PushRestore, JobError> {
        let process = self.via.start(&self.words()?).map_err(|error| {
            JobError::from(error).with_next("--via takes a command such as \"ssh root@HOST\"")
        })?;
        front.stage(Stage::Starting, None);
        let via = self.via.text();
        match answers::until(&process, Until::Ready(READY_WITHIN), &via, front)? {
            Answered::Ready(host) => Ok(PushRestore { process, via, host }),
            Answered::Ended(ended) => {
                let end = process.end(END_WITHIN).ok();
                Err(answers::never_ready(&via, &ended, end.as_ref()))
            }
            Answered::Received => Err(JobError::work(format!("{via} is no sealift"))),
        }
    }
}

/// The other side, which is ready and waits.
pub(crate) struct PushRestore {
    process: ViaProcess,
    /// The command that leads there.
    via: String,
    /// Its host name, as its configuration has it.
    host: String,
}

impl PushRestore {
    /// Fetches the snapshot into `scratch`, sends it, and follows the restore there to its end.
    pub(crate) async fn run(
        self,
        fetch: FetchRequest,
        scratch: &ContentScratch,
        announce: &dyn Fn(&RestorePlan),
        front: &dyn FrontEnd,
    ) -> Result<PushRestoreReport, FetchError> {
        let host = &fetch.folder.host;
        if self.host != host.as_str() {
            let (via, there) = (&self.via, &self.host);
            front.warn(&format!(
                "this is the backup of {host}, and {via} leads to {there}"
            ));
        }
        let dir = scratch.dir();
        let (restored, record) = fetch.restore_into(dir, TREE, announce, front).await?;
        let tree = dir.sub(TREE).map_err(JobError::from)?;
        Ok(self.send(&tree, &record, restored, front)?)
    }

    fn send(
        mut self,
        tree: &Dir,
        record: &RestoredRecord,
        restored: RestoreReport,
        front: &dyn FrontEnd,
    ) -> Result<PushRestoreReport, JobError> {
        let input = self.process.take_input()?;
        let display = front.show_transfer(Stage::Shipping, &self.host, record.bytes());
        let content = Sending {
            tree,
            record,
            progress: &*display.progress,
        };
        let (answered, sent) = std::thread::scope(|scope| {
            let named = std::thread::Builder::new().name("send".to_owned());
            let sending = named.spawn_scoped(scope, move || content.send(input))?;
            let until = Until::Received(SILENCE);
            let answered = answers::until(&self.process, until, &self.host, front);
            match answered {
                // Then all of it was sent; if not, the other side does not do what it says.
                Ok(Answered::Received) if has_ended(&sending, END_WITHIN) => {}
                Ok(Answered::Received) => self.process.stop(Duration::ZERO),
                // The thread may be within a write that nothing takes.
                Ok(_) => self.process.stop(END_WITHIN),
                Err(_) => self.process.stop(Duration::ZERO),
            }
            let stopped = |_| {
                Err(PackRestoredError::Write(io::Error::other(
                    "a thread stopped",
                )))
            };
            Ok::<_, JobError>((answered, sending.join().unwrap_or_else(stopped)))
        })?;
        drop(display);
        let error = match (answered?, sent) {
            (Answered::Received, Ok(mut input)) => {
                let said = input.write_all(GO).and_then(|()| input.flush());
                drop(input);
                match said {
                    Ok(()) => return self.follow(restored, front),
                    Err(error) => Some(PackRestoredError::Write(error)),
                }
            }
            (
                Answered::Ended(Ended {
                    verdict,
                    report: Some(report),
                }),
                _,
            ) => {
                return Ok(self.concluded(restored, verdict, &report));
            }
            (_, sent) => sent.err(),
        };
        Err(self.broke_off(error))
    }

    /// Follows the restore there, which goes on whatever becomes of the connection.
    fn follow(
        self,
        restored: RestoreReport,
        front: &dyn FrontEnd,
    ) -> Result<PushRestoreReport, JobError> {
        let why = match answers::until(&self.process, Until::End(SILENCE), &self.host, front) {
            Ok(Answered::Ended(Ended {
                verdict,
                report: Some(report),
            })) => {
                return Ok(self.concluded(restored, verdict, &report));
            }
            Ok(_) => answers::how_it_ended(self.process.end(END_WITHIN).ok().as_ref()),
            Err(error) => error.with_causes(),
        };
        let (host, via) = (self.host, self.via);
        let text = format!("the connection was lost while {host} put the content in place: {why}");
        Err(JobError::work(text).with_next(format!(
            "{host} goes on alone; look at its result there: {via} sealift rollback --list"
        )))
    }

    /// Returns the error of a connection that broke before the other side had everything.
    fn broke_off(self, sent: Option<PackRestoredError>) -> JobError {
        let next = "nothing was changed there; run the same command again";
        if let Some(error @ PackRestoredError::Read { .. }) = sent {
            return JobError::from(error).with_next(next);
        }
        let how = answers::how_it_ended(self.process.end(END_WITHIN).ok().as_ref());
        JobError::work(format!(
            "the connection broke while the restored files were sent: {how}"
        ))
        .with_next(next)
    }

    fn concluded(
        self,
        restored: RestoreReport,
        verdict: Option<Value>,
        report: &Value,
    ) -> PushRestoreReport {
        let code = report["exit_code"].as_i64();
        PushRestoreReport {
            host: self.host,
            restored,
            verdict,
            errors: answers::errors(report),
            exit_code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        }
    }
}

/// Whether the thread ends within `patience`.
fn has_ended<T>(thread: &ScopedJoinHandle<'_, T>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(POLL);
    }
    thread.is_finished()
}

/// The content that a thread sends.
struct Sending<'a> {
    tree: &'a Dir,
    record: &'a RestoredRecord,
    progress: &'a dyn Progress,
}

impl Sending<'_> {
    /// Sends all of it, and returns the open input.
    fn send(self, mut input: ViaInput) -> Result<ViaInput, PackRestoredError> {
        let mut out = io::BufWriter::with_capacity(BUFFER_BYTES, &mut input);
        let sent = |bytes| {
            let event = ProgressEvent::BytesFetched { bytes };
            self.progress.report(&event);
        };
        let room = written_bytes(self.tree, self.record)?;
        let line = room_line(room);
        out.write_all(line.as_bytes())
            .map_err(PackRestoredError::Write)?;
        pack_restored(self.tree, self.record, &mut out, &sent)?;
        // It was flushed.
        let _ = out.into_parts();
        Ok(input)
    }
}
