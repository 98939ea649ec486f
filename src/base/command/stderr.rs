//! Keeps the end of what a command writes to stderr, however much that is.
//!
//! It is a file, not a pipe: a grandchild that keeps a pipe open would keep us waiting, and a
//! service that a hook starts would die of a closed one. The file is truncated when it has grown
//! too long.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Bytes of stderr that are kept.
const TAIL_BYTES: usize = 2048;
/// Bytes beyond which [`Stderr::bound`] truncates the file.
const MOST_BYTES: u64 = 1 << 20;

/// Creates a file without a name in memory, which needs no disk.
pub(crate) fn in_memory(name: &str) -> io::Result<File> {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(file.into())
}

/// The stderr of one command.
pub(super) struct Stderr {
    file: File,
    /// The end of the truncated text.
    tail: Vec<u8>,
}

impl Stderr {
    /// Creates a file without a name.
    pub(crate) fn new() -> io::Result<Self> {
        // On a full disk, too: then a command that raises an alarm is wanted most.
        let file = tempfile::tempfile().or_else(|_| in_memory("sealift-output"))?;
        // After a truncation the command goes on at the new end.
        fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::APPEND)?;
        Ok(Self {
            file,
            tail: Vec::new(),
        })
    }

    /// Returns the handle to give to the command.
    pub(crate) fn for_command(&self) -> io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    /// Truncates the file if it is long. Text that is written at that moment may be lost.
    pub(crate) fn bound(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > MOST_BYTES {
            self.read_tail()?;
            self.file.set_len(0)?;
        }
        Ok(())
    }

    fn read_tail(&mut self) -> io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        self.file
            .seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES as u64)))?;
        let tail = &mut self.tail;
        self.file
            .by_ref()
            .take(TAIL_BYTES as u64)
            .read_to_end(tail)?;
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
        Ok(())
    }

    /// Returns the end of the text, in whole characters and without surrounding blanks.
    pub(crate) fn end(mut self) -> String {
        // If it cannot be read, only a message lacks it.
        let _ = self.read_tail();
        let text = String::from_utf8_lossy(&self.tail);
        text.trim_start_matches('\u{fffd}').trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_end_is_kept_across_truncations() {
        let mut stderr = Stderr::new().unwrap();
        let mut command = stderr.file.try_clone().unwrap();
        for round in 0..3 {
            command.write_all(&vec![b'x'; 2 << 20]).unwrap();
            writeln!(command, "round {round}").unwrap();
            stderr.bound().unwrap();
            assert_eq!(stderr.file.metadata().unwrap().len(), 0);
        }
        write!(command, "é the last").unwrap();
        let end = stderr.end();
        assert!(
            end.ends_with("round 2\né the last") && end.len() <= TAIL_BYTES,
            "{end}"
        );
        let empty = Stderr::new().unwrap();
        assert_eq!(empty.end(), "");
    }
}
