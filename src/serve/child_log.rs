//! The log of a run: what its process prints, in `logs/ID.log` of the state directory.
//!
//! The process writes into the file itself, so that it goes on if the agent ends. A log that grows
//! beyond all measure is cut from time to time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The directory of the logs in the state directory.
const DIR: &str = "logs";
/// The size at which a log is cut.
const MOST: u64 = 4 << 20;
/// Bytes at its end that stay.
const KEPT: u64 = 1 << 20;
/// Bytes at the end of a log that are read for a message.
const TAIL: u64 = 16 << 10;
/// Lines of a message.
const TAIL_LINES: usize = 20;

/// Returns the log of the run `id` in the state directory `state`.
pub(super) fn path(state: &Path, id: &str) -> PathBuf {
    state.join(DIR).join(format!("{id}.log"))
}

/// Opens the log of the run `id` for its process.
pub(super) fn open(state: &Path, id: &str) -> io::Result<File> {
    crate::base::fs::create_private_dir(&state.join(DIR))?;
    options().create(true).mode(0o600).open(path(state, id))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Cuts a log that is too long. Its process appends, so it goes on at the new end.
pub(super) fn cut(path: &Path) -> io::Result<()> {
    let mut file = match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let bytes = file.metadata()?.len();
    if bytes <= MOST {
        return Ok(());
    }
    let end = read_end(&mut file, KEPT)?;
    file.set_len(0)?;
    let gone = bytes - end.len() as u64;
    writeln!(file, "[the first {gone} bytes of this log were removed]")?;
    file.write_all(&end)
}

/// Returns the last lines of a log; empty: there is none.
pub(super) fn last_lines(path: &Path) -> String {
    let read = options()
        .open(path)
        .and_then(|mut file| read_end(&mut file, TAIL));
    let text = String::from_utf8_lossy(&read.unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_end(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_log_is_private_and_cut_at_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path(), "01J").unwrap();
        let path = path(dir.path(), "01J");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for number in 0..100 {
            writeln!(writer, "{number}").unwrap();
        }
        cut(&path).unwrap();
        let lines = last_lines(&path);
        assert_eq!(lines.lines().count(), TAIL_LINES);
        assert!(
            lines.starts_with("80\n") && lines.ends_with("\n99"),
            "{lines}"
        );
        let long = "x".repeat(1 << 20);
        for _ in 0..5 {
            writeln!(writer, "{long}").unwrap();
        }
        cut(&path).unwrap();
        writeln!(writer, "after").unwrap();
        let bytes = path.metadata().unwrap().len();
        assert!(bytes < KEPT + 200, "{bytes}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[the first ") && text.ends_with("after\n"));
    }
}
