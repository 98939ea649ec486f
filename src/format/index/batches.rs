//! Parses an index's lines on several threads, in batches that come back in order.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::entries::EntryList;
use super::entry::Entry;
use super::error::IndexError;
use super::reader::{IndexReader, next_line};

/// Approximate bytes of lines in one batch.
const BATCH_BYTES: usize = 128 << 10;
const MOST_THREADS: usize = 4;

/// Consecutive lines of an index.
#[derive(Default)]
struct LineBatch {
    /// Number of the first line.
    first_line: u64,
    /// The lines, one after the other, without newlines.
    text: Vec<u8>,
    /// Position in `text` at which each line ends.
    ends: Vec<usize>,
}

/// The number of each line, and its entry or the rule that it breaks.
type ParsedLines = Vec<(u64, Result<Entry, String>)>;

impl LineBatch {
    fn parse(&self) -> ParsedLines {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lines = starts.zip(&self.ends);
        let parse = |(number, (start, end)): (u64, (usize, &usize))| {
            (number, Entry::from_line(&self.text[start..*end]))
        };
        (self.first_line..).zip(lines).map(parse).collect()
    }
}

impl<R: BufRead> IndexReader<R> {
    /// Reads all entries that are left. Reports the same error as reading one by one.
    pub fn read_rest(&mut self) -> Result<EntryList, IndexError> {
        let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        let (to_parse, jobs) = sync_channel::<(LineBatch, SyncSender<ParsedLines>)>(threads);
        let jobs = Mutex::new(jobs);
        thread::scope(|scope| {
            for _ in 0..threads {
                let named = thread::Builder::new().name("parse".to_owned());
                named
                    .spawn_scoped(scope, || parse_batches(&jobs))
                    .map_err(IndexError::Read)?;
            }
            // Dropped at the end of this scope, which ends the threads.
            let to_parse = to_parse;
            let mut entries = EntryList::default();
            let mut under_way: VecDeque<Receiver<ParsedLines>> = VecDeque::new();
            loop {
                // An error in a later line is reported only if all lines before it are valid.
                let mut batch = LineBatch::default();
                let read = self.fill(&mut batch);
                let ended = read.is_err() || batch.ends.is_empty();
                if !batch.ends.is_empty() {
                    let (parsed, oldest) = sync_channel(1);
                    under_way.push_back(oldest);
                    to_parse.send((batch, parsed)).map_err(|_| stopped())?;
                }
                while under_way.len() > if ended { 0 } else { 2 * threads } {
                    self.take_oldest(&mut under_way, &mut entries)?;
                }
                read?;
                if ended {
                    self.check_end()?;
                    return Ok(entries);
                }
            }
        })
    }

    /// Reads the next lines into `batch`. After an error, `batch` has the lines before it.
    fn fill(&mut self, batch: &mut LineBatch) -> Result<(), IndexError> {
        batch.first_line = self.line + 1;
        while batch.text.len() < BATCH_BYTES
            && next_line(&mut self.input, &mut self.line, &mut self.text)?
        {
            batch.text.extend_from_slice(&self.text);
            batch.ends.push(batch.text.len());
        }
        Ok(())
    }

    fn take_oldest(
        &mut self,
        under_way: &mut VecDeque<Receiver<ParsedLines>>,
        entries: &mut EntryList,
    ) -> Result<(), IndexError> {
        let oldest = under_way.pop_front().and_then(|oldest| oldest.recv().ok());
        for (line, parsed) in oldest.ok_or_else(stopped)? {
            let accepted = parsed.and_then(|entry| {
                self.accept(&entry)?;
                entries.push(&entry);
                Ok(())
            });
            accepted.map_err(|what| IndexError::Malformed { line, what })?;
        }
        Ok(())
    }
}

fn parse_batches(jobs: &Mutex<Receiver<(LineBatch, SyncSender<ParsedLines>)>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((batch, parsed)) = job else { return };
        // The reader drops the receiver after an error in an earlier batch.
        let _ = parsed.send(batch.parse());
    }
}

fn stopped() -> IndexError {
    IndexError::Read(std::io::Error::other("a parsing thread ended early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an index of `lines` entries; `broken` replaces one line.
    fn index(lines: usize, broken: Option<(usize, &str)>) -> Vec<u8> {
        let header = format!(
            r#"{{"format":1,"host":"h","stamp":"20260407T060000Z","salt":"","sources":[],"validation":{{"valid":true,"checked_at":"2026-04-07T06:00:00Z","errors":[]}},"databases":[],"skipped":[],"archives":0,"entries":{lines}}}"#
        );
        let mut text = header.into_bytes();
        for number in 0..lines {
            let line = format!(
                r#"{{"path":"d{number:06}","type":"dir","mode":493,"uid":0,"gid":0,"mtime":{number}}}"#
            );
            let line = match broken {
                Some((position, instead)) if position == number => instead,
                _ => &line,
            };
            text.push(b'\n');
            text.extend_from_slice(line.as_bytes());
        }
        text.push(b'\n');
        text
    }

    #[test]
    fn many_threads_read_the_same_entries_as_one_and_fail_at_the_same_line() {
        let out_of_order = r#"{"path":"a","type":"dir","mode":493,"uid":0,"gid":0,"mtime":1}"#;
        for (lines, broken) in [
            (0, None),
            (1, None),
            (9000, None),
            (9000, Some((0, "no JSON"))),
            (9000, Some((8999, "no JSON"))),
            (9000, Some((4321, "no JSON"))),
            (9000, Some((5000, out_of_order))),
        ] {
            let text = index(lines, broken);
            let mut one = IndexReader::new(text.as_slice()).unwrap();
            let expected: Result<Vec<Entry>, IndexError> = one.by_ref().collect();
            let mut many = IndexReader::new(text.as_slice()).unwrap();
            match (many.read_rest(), expected) {
                (Ok(list), Ok(entries)) => {
                    assert_eq!(list.len(), lines);
                    assert!(list.iter().map(|e| e.to_entry()).eq(entries));
                }
                (found, expected) => assert_eq!(
                    found.unwrap_err().to_string(),
                    expected.unwrap_err().to_string()
                ),
            }
        }
        // An end within a line, fewer entries than promised, and an end within a line that follows
        // a broken one.
        let (text, broken) = (index(9000, None), index(9000, Some((8998, "no JSON"))));
        for text in [
            &text[..text.len() - 1],
            &text[..text.len() - 67 * 5],
            &broken[..broken.len() - 1],
        ] {
            let mut one = IndexReader::new(text).unwrap();
            let expected = one.find_map(Result::err).unwrap();
            let mut many = IndexReader::new(text).unwrap();
            let found = many.read_rest().unwrap_err();
            assert_eq!(found.to_string(), expected.to_string());
        }
    }
}
