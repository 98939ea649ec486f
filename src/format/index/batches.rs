//! Parsing an index's lines on several threads, in batches that come back in order.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Entry, EntryList, IndexError, IndexReader, next_line};

/// Bytes of lines in one batch, about.
const BATCH_BYTES: usize = 128 << 10;
const MOST_THREADS: usize = 4;

#[derive(Default)]
struct Batch {
    first_line: u64,
    text: Vec<u8>,
    /// Where each line ends in `text`.
    ends: Vec<usize>,
}

/// A line's number and its entry.
type Parsed = Vec<(u64, Result<Entry, String>)>;

impl Batch {
    fn parse(&self) -> Parsed {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lines = starts.zip(&self.ends);
        let parse = |(number, (start, end)): (u64, (usize, &usize))| {
            (number, Entry::from_line(&self.text[start..*end]))
        };
        (self.first_line..).zip(lines).map(parse).collect()
    }
}

impl<R: BufRead> IndexReader<R> {
    /// Reads all entries that are left.
    pub fn read_rest(&mut self) -> Result<EntryList, IndexError> {
        let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        let (to_parse, jobs) = sync_channel::<(Batch, SyncSender<Parsed>)>(threads);
        let jobs = Mutex::new(jobs);
        thread::scope(|scope| {
            for _ in 0..threads {
                let named = thread::Builder::new().name("parse".to_owned());
                named
                    .spawn_scoped(scope, || parse_batches(&jobs))
                    .map_err(IndexError::Read)?;
            }
            // Dropped with this, which ends the threads.
            let to_parse = to_parse;
            let mut entries = EntryList::default();
            let mut under_way: VecDeque<Receiver<Parsed>> = VecDeque::new();
            loop {
                // What is wrong further on is told only if all before it is well.
                let mut batch = Batch::default();
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

    /// Reads the next lines; after an error those before it are there.
    fn fill(&mut self, batch: &mut Batch) -> Result<(), IndexError> {
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
        under_way: &mut VecDeque<Receiver<Parsed>>,
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

fn parse_batches(jobs: &Mutex<Receiver<(Batch, SyncSender<Parsed>)>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((batch, parsed)) = job else { return };
        // If nobody waits for it any more, something before it was wrong.
        let _ = parsed.send(batch.parse());
    }
}

fn stopped() -> IndexError {
    IndexError::Read(std::io::Error::other("a thread that parses it stopped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some batches of lines, one of them (if any) replaced.
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
                Some((at, instead)) if at == number => instead,
                _ => &line,
            };
            text.push(b'\n');
            text.extend_from_slice(line.as_bytes());
        }
        text.push(b'\n');
        text
    }

    #[test]
    fn many_threads_read_what_one_reads_and_stumble_at_the_same_line() {
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
        // A promise that is not kept, an end within a line, and one behind a line that is worse.
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
