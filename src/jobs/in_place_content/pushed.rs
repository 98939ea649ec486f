//! Content that the key holder's machine sends: how much room it needs, a tar whose first member is
//! the record, and a last word.
//!
//! Nothing is put in place before the last word, which the sender says once this side has reported
//! that all of it is here and verified. So a connection that breaks, at whatever byte, changes
//! nothing.

use std::io::{self, Read};
use std::time::Duration;

use super::{ContentOrigin, ContentScratch, InPlaceContent};
use crate::base::progress::Stage;
use crate::base::timed_reader::TimedReader;
use crate::config::Config;
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::restore::{self, UnpackError, Unpacked};

/// The last word of the sender.
pub(crate) const GO: &[u8] = b"go\n";
/// The version of this exchange; each side refuses another one.
pub(crate) const EXCHANGE: u64 = 2;
/// Digits of the number in the first line, and of its checksum.
const ROOM_DIGITS: usize = 16;
/// Bytes of the first line.
const ROOM_LINE_BYTES: usize = 2 * ROOM_DIGITS + 2;

/// How long the first byte may take: the sender fetches and decrypts the snapshot meanwhile.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Longest silence after it.
const SILENCE: Duration = Duration::from_secs(600);
/// Bytes that an entry takes in addition to its content.
const ENTRY_BYTES: u64 = 4 << 10;
const SEND_AGAIN: &str = "nothing was changed; run the restore again on the key holder's machine";

/// Content that is being received.
pub(crate) struct Receiving {
    input: TimedReader,
}

impl Receiving {
    /// Begins to read `input`.
    pub(crate) fn start(input: impl Read + Send + 'static) -> Result<Self, JobError> {
        Ok(Self {
            input: TimedReader::start(input, FIRST_BYTE_WITHIN)?,
        })
    }

    /// Receives everything into a private directory, and verifies it. Then calls `received`, and
    /// waits for the sender's last word. `wanted` is as for a directory.
    pub(crate) fn receive(
        mut self,
        config: &Config,
        wanted: &[&str],
        received: &dyn Fn(),
        front: &dyn FrontEnd,
    ) -> Result<InPlaceContent, JobError> {
        let mut first = [0; ROOM_LINE_BYTES];
        match self.input.read(&mut first[..1]) {
            Ok(0) => return Err(failed(UnpackError::BrokeOff)),
            Ok(_) => {}
            Err(error) => return Err(failed(UnpackError::Read(error))),
        }
        self.input.set_patience(SILENCE);
        let mut input = self.input;
        let content_bytes = read_room(&mut first, &mut input).map_err(failed)?;
        let record = restore::read_record(&mut input).map_err(failed)?;
        record.require(wanted)?;
        let entries = record.entries.len() as u64;
        // Holes take no room.
        let content_bytes = content_bytes.min(record.bytes());
        let room = content_bytes.saturating_add(entries.saturating_mul(ENTRY_BYTES));
        let scratch = ContentScratch::make(config, room)?;
        let (name, path) = scratch.tree();
        let tree = scratch
            .dir()
            .make_dir(name, 0o700)
            .map_err(JobError::from)?;
        let subject = record.header.host.to_string();
        let display = front.show_transfer(Stage::Restoring, &subject, record.bytes());
        let unpacked = restore::unpack(&mut input, &record, &tree, &*display.progress);
        drop(display);
        warn(&unpacked.map_err(failed)?, front);
        received();
        last_word(&mut input)?;
        Ok(InPlaceContent {
            dir: path,
            stamp: record.header.stamp,
            host: subject,
            origin: ContentOrigin::Pushed,
            record: Some(record),
            _scratch: Some(scratch),
        })
    }
}

/// Returns the first line of the stream: the bytes of content that the other side writes, and a
/// checksum, so that a line that was damaged on the way is refused.
pub(crate) fn room_line(bytes: u64) -> String {
    let number = format!("{bytes:0ROOM_DIGITS$x}");
    let checksum = blake3::hash(number.as_bytes()).to_hex();
    format!("{number} {}\n", &checksum[..ROOM_DIGITS])
}

/// Reads the rest of the first line, whose first byte was read.
fn read_room(line: &mut [u8], input: &mut dyn Read) -> Result<u64, UnpackError> {
    let read = input.read_exact(&mut line[1..]);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => UnpackError::BrokeOff,
        _ => UnpackError::Read(error),
    })?;
    let digits = line.get(..ROOM_DIGITS);
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let bytes = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let bytes = bytes.filter(|bytes| room_line(*bytes).as_bytes() == line);
    bytes.ok_or_else(|| {
        let what = "it does not begin with the room that it needs";
        UnpackError::Stream(what.to_owned())
    })
}

fn failed(error: UnpackError) -> JobError {
    let is_local = matches!(error, UnpackError::Make { .. });
    let error = JobError::from(error);
    match is_local {
        // The general advice applies: this machine has no room, or no permission.
        true => error,
        false => error.with_next(SEND_AGAIN),
    }
}

/// Waits for the word of the sender that the restore may go on, and the end of the stream.
fn last_word(input: &mut dyn Read) -> Result<(), JobError> {
    let mut word = Vec::new();
    let read = input.take(GO.len() as u64 + 1).read_to_end(&mut word);
    match read {
        Ok(_) if word == GO => Ok(()),
        Ok(_) if GO.starts_with(&word) => Err(failed(UnpackError::BrokeOff)),
        Ok(_) => {
            let what = "something else follows its end";
            Err(failed(UnpackError::Stream(what.to_owned())))
        }
        Err(error) => Err(failed(UnpackError::Read(error))),
    }
}

fn warn(unpacked: &Unpacked, front: &dyn FrontEnd) {
    for problem in &unpacked.problems {
        front.warn(problem);
    }
    for lost in &unpacked.not_kept {
        match lost.expected {
            true => front.note(&lost.to_string()),
            false => front.warn(&lost.to_string()),
        }
    }
}
