//! A check of a restored file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Attempt;
use super::expect::Outcome;
use crate::base::ownership::open_regular;
use crate::config::FileCheck;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Looks at the file once.
pub(super) fn attempt(
    check: &FileCheck,
    find: &(dyn Fn(&Path) -> Option<PathBuf> + Sync),
    timeout: Duration,
) -> Attempt {
    let Some(path) = find(&check.path) else {
        return Attempt::failed(format!("{} is not part of it", check.path.display()));
    };
    let looked = open_regular(&path).and_then(|file| look(check, &path, &file, timeout));
    looked.unwrap_or_else(|error| Attempt::failed(format!("{}: {error}", path.display())))
}

fn look(check: &FileCheck, path: &Path, file: &File, timeout: Duration) -> io::Result<Attempt> {
    let meta = file.metadata()?;
    let mut outcome = Outcome::default();
    let size = meta.len();
    let is_large = check.min_bytes.is_none_or(|least| size >= least);
    outcome.note(
        is_large,
        match (is_large, check.min_bytes) {
            (false, Some(least)) => {
                format!(
                    "{} has {size} bytes, expected at least {least}",
                    path.display()
                )
            }
            _ => format!("{} has {size} bytes", path.display()),
        },
    );
    let (uid, gid) = (meta.uid(), meta.gid());
    if let Some((want_uid, want_gid)) = check.owner.filter(|owner| *owner != (uid, gid)) {
        let text = format!("its owner is {uid}:{gid}, expected {want_uid}:{want_gid}");
        outcome.note(false, text);
    }
    let mode = meta.mode() & 0o7777;
    if let Some(wanted) = check.mode.filter(|wanted| *wanted != mode) {
        outcome.note(
            false,
            format!("its mode is {mode:04o}, expected {wanted:04o}"),
        );
    }
    if let Some(text) = &check.contains
        && !contains(file, text.as_bytes(), timeout)?
    {
        outcome.note(false, format!("it does not contain {text:?}"));
    }
    Ok(outcome.finish())
}

/// Whether `wanted` is anywhere in the file. A file that is not read in time is an error.
fn contains(mut file: &File, wanted: &[u8], timeout: Duration) -> io::Result<bool> {
    if wanted.is_empty() {
        return Ok(true);
    }
    let started = Instant::now();
    let mut window = Vec::new();
    loop {
        let before = window.len();
        let limit = BUFFER_BYTES as u64;
        if file.by_ref().take(limit).read_to_end(&mut window)? == 0 {
            return Ok(false);
        }
        if window.windows(wanted.len()).any(|part| part == wanted) {
            return Ok(true);
        }
        if started.elapsed() > timeout {
            let what = format!("it could not be read within {} s", timeout.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        // A text may begin in this piece and end in the next.
        let keep = (wanted.len() - 1).min(window.len());
        debug_assert!(window.len() > before);
        window.drain(..window.len() - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: FileCheck, content: &[u8], mode: u32) -> Attempt {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let find = |_: &Path| Some(path.clone());
        attempt(&check, &find, Duration::from_secs(30))
    }

    fn any() -> FileCheck {
        FileCheck {
            path: "file".into(),
            min_bytes: None,
            owner: None,
            mode: None,
            contains: None,
        }
    }

    #[test]
    fn size_mode_owner_and_content_are_compared() {
        assert!(found(any(), b"", 0o600).passed);
        let mut check = any();
        check.min_bytes = Some(3);
        check.mode = Some(0o600);
        check.contains = Some("bc".to_owned());
        assert!(found(check.clone(), b"abc", 0o600).passed);
        let wrong = found(check.clone(), b"ab", 0o640);
        assert!(!wrong.passed);
        for text in [
            "has 2 bytes, expected at least 3",
            "mode is 0640",
            "contain \"bc\"",
        ] {
            assert!(wrong.found.contains(text), "{}", wrong.found);
        }
        check.owner = Some((1, u32::MAX - 1));
        assert!(
            found(check, b"abc", 0o600)
                .found
                .contains("expected 1:4294967294")
        );
    }

    #[test]
    fn a_text_that_crosses_two_pieces_is_found() {
        let mut check = any();
        check.contains = Some("needle".to_owned());
        for before in [0, BUFFER_BYTES - 3, BUFFER_BYTES, 3 * BUFFER_BYTES - 1] {
            let content = [&vec![b'n'; before][..], b"needle"].concat();
            assert!(found(check.clone(), &content, 0o600).passed, "{before}");
            assert!(!found(check.clone(), &content[..before + 5], 0o600).passed);
        }
    }

    #[test]
    fn what_is_no_file_fails() {
        let missing = |path: &Path| Some(path.to_owned());
        let mut check = any();
        check.path = "/nowhere/at/all".into();
        assert!(!attempt(&check, &missing, Duration::ZERO).passed);
        check.path = "/".into();
        assert!(!attempt(&check, &missing, Duration::ZERO).passed);
        assert!(
            attempt(&check, &|_| None, Duration::ZERO)
                .found
                .contains("not part")
        );
    }
}
