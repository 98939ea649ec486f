//! The lock of the agent that serves a state directory. Another agent on it would start the same
//! jobs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

const NAME: &str = "serve.lock";

/// Why an agent cannot serve a state directory.
#[derive(Debug, thiserror::Error)]
pub enum ServeLockError {
    /// Another agent does.
    #[error("another agent serves this state directory{}", by(*pid))]
    Taken {
        /// Its process. `None`: it has only just begun.
        pid: Option<u32>,
    },
    /// The file cannot be used.
    #[error("cannot lock {path}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// The lock, until it is dropped or the process ends.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

impl ServeLock {
    /// Locks the state directory `dir` for this agent, and creates it if it is missing.
    pub fn take(dir: &Path) -> Result<Self, ServeLockError> {
        let path = dir.join(NAME);
        let failed = |source: io::Error| ServeLockError::Io {
            path: path.display().to_string(),
            source,
        };
        crate::base::fs::create_private_dir(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Without its number the message is still right.
                let _ = file.take(20).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(ServeLockError::Taken { pid });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_serves_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = ServeLock::take(dir.path()).unwrap();
        let refused = ServeLock::take(dir.path()).unwrap_err().to_string();
        let own = std::process::id();
        let expected = format!("another agent serves this state directory (pid {own})");
        assert_eq!(refused, expected);
        drop(lock);
        ServeLock::take(dir.path()).unwrap();
    }
}
