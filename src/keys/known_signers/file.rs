//! The file of known signers: read whole, extended by appending, shortened by replacing it.
//!
//! Every access holds the lock of the file's directory, so writers do not meet, and a reader sees
//! no half line. A new line is one write at the end, followed by a flush; if that fails, the file
//! gets its old length back. A power cut can leave a part of the last line, which is then a damaged
//! line and trusts nothing. Appending needs no right on the directory, so a process that gives up
//! the right to write elsewhere can open the file before and add to it later.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{KnownSigner, KnownSigners};
use crate::base::dir_lock::DirLock;
use crate::base::fs::{create_private_dir, write_atomic};
use crate::base::ownership::{self, Exposure};
use crate::base::user_dirs;

/// The file's name in the user's configuration directory.
pub const FILE_NAME: &str = "known_signers";
/// Largest file that is read, in bytes: some thirty thousand lines.
const MAX_BYTES: u64 = 8 << 20;
const HEADER: &str = "# The signers that sealift remembers: place, host, public key, fingerprint, since when, how it became known.\n\
     # `sealift remote forget` removes a line.\n";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownSignersError {
    /// Neither `HOME` nor `XDG_CONFIG_HOME` is set.
    #[error("neither HOME nor XDG_CONFIG_HOME names a directory")]
    NoHome,
    /// Other users can change the file.
    #[error("{exposure}: others can change which signers it names")]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Names what others can change.
        exposure: Exposure,
    },
    /// The file cannot be read or written.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// `read`, `write` or `lock`.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process remembered another signer meanwhile.
    #[error("{} line {line} remembers another signer since a moment ago", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
}

/// Returns the path of the file.
pub fn path() -> Result<PathBuf, KnownSignersError> {
    let dir = user_dirs::sealift_dir().ok_or(KnownSignersError::NoHome)?;
    Ok(dir.join(FILE_NAME))
}

fn failed(what: &'static str, file: &Path) -> impl Fn(io::Error) -> KnownSignersError {
    move |source| KnownSignersError::Io {
        what,
        file: file.to_owned(),
        source,
    }
}

/// Reads the file; one that does not exist is empty. Fails if others can change it.
pub fn read(path: &Path) -> Result<KnownSigners, KnownSignersError> {
    let _lock = match DirLock::shared(parent(path)) {
        Err(error) if is_absent(&error) || user_dirs::is_home_of_another_user(&error) => {
            return Ok(KnownSigners::default());
        }
        taken => taken.map_err(failed("lock", path))?,
    };
    match ownership::open_regular(path) {
        Err(error) if is_absent(&error) => Ok(KnownSigners::default()),
        Err(error) => Err(failed("read", path)(error)),
        Ok(file) => {
            refuse_exposed(&file, path)?;
            Ok(KnownSigners::parse(&content(&file, path)?))
        }
    }
}

/// Whether there is no file, or no directory for one.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn refuse_exposed(file: &File, path: &Path) -> Result<(), KnownSignersError> {
    match ownership::exposure_of(file, path).map_err(failed("read", path))? {
        None => Ok(()),
        Some(exposure) => Err(KnownSignersError::Exposed {
            file: path.to_owned(),
            exposure,
        }),
    }
}

fn content(file: &File, path: &Path) -> Result<Vec<u8>, KnownSignersError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    let read = read.and_then(|_| match bytes.len() as u64 > MAX_BYTES {
        true => Err(io::Error::other(format!(
            "it is larger than {} MiB",
            MAX_BYTES >> 20
        ))),
        false => Ok(()),
    });
    read.map_err(failed("read", path))?;
    Ok(bytes)
}

/// The file, open to add lines.
#[derive(Debug)]
pub struct SignerFile {
    path: PathBuf,
    file: File,
}

impl SignerFile {
    /// Opens the file, and makes it (0600) and its directory (0700) if they do not exist. Fails if
    /// others can change it.
    pub fn open(path: &Path) -> Result<Self, KnownSignersError> {
        let unwritable = failed("write", path);
        create_private_dir(parent(path)).map_err(&unwritable)?;
        let at = ownership::exposure_at(path).map_err(&unwritable)?;
        if let Some(exposure) = at {
            let file = path.to_owned();
            return Err(KnownSignersError::Exposed { file, exposure });
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(&unwritable)?;
        let is_file = file.metadata().map_err(&unwritable)?.is_file();
        if !is_file {
            return Err(unwritable(io::Error::other("it is not a regular file")));
        }
        refuse_exposed(&file, path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Adds those of `signers` that are not in the file. Returns for each the number of its line,
    /// and whether the line is new.
    ///
    /// Fails, and adds nothing, if the file names a signer of one of these hosts and places that
    /// neither `signers` has nor `is_known` accepts.
    pub fn add(
        &self,
        signers: &[KnownSigner],
        is_known: &dyn Fn(&KnownSigner) -> bool,
    ) -> Result<Vec<(usize, bool)>, KnownSignersError> {
        let unwritable = failed("write", &self.path);
        let _lock = DirLock::exclusive(parent(&self.path)).map_err(failed("lock", &self.path))?;
        // `forget` replaces the file.
        let current = ownership::open_regular(&self.path).map_err(&unwritable)?;
        let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        if id(&current).map_err(&unwritable)? != id(&self.file).map_err(&unwritable)? {
            let text = "another process replaced it meanwhile; the next command remembers it";
            return Err(unwritable(io::Error::other(text)));
        }
        let before = content(&current, &self.path)?;
        let known = KnownSigners::parse(&before);
        let mut text = match before.last() {
            None => HEADER.to_owned(),
            Some(b'\n') => String::new(),
            Some(_) => "\n".to_owned(),
        };
        let first = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let mut lines = Vec::new();
        for signer in signers {
            let of_it = known.of(&signer.place, &signer.host);
            let is_same = |one: &KnownSigner| one.key == signer.key;
            let is_new = |one: &KnownSigner| signers.iter().any(|new| new.key == one.key);
            let other = of_it.iter().find(|(_, one)| !is_new(one) && !is_known(one));
            if let Some((line, _)) = other {
                let (file, line) = (self.path.clone(), *line);
                return Err(KnownSignersError::Changed { file, line });
            }
            lines.push(match of_it.iter().find(|(_, one)| is_same(one)) {
                Some((line, _)) => (*line, false),
                None => {
                    let line = first + text.matches('\n').count();
                    text += &format!("{signer}\n");
                    (line, true)
                }
            });
        }
        if before.len() as u64 + text.len() as u64 > MAX_BYTES {
            let text = format!("it would be larger than {} MiB", MAX_BYTES >> 20);
            return Err(unwritable(io::Error::other(text)));
        }
        if lines.iter().any(|(_, is_new)| *is_new) {
            self.append(text.as_bytes(), before.len() as u64)
                .map_err(&unwritable)?;
        }
        Ok(lines)
    }

    fn append(&self, bytes: &[u8], old_bytes: u64) -> io::Result<()> {
        let mut file = &self.file;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // What stays is a damaged line, which trusts nothing.
            let _ = file.set_len(old_bytes);
        }
        written
    }
}

/// Removes the lines of the signers that `goes` chooses. Returns them; everything else in the file
/// stays as it is.
pub fn forget(
    path: &Path,
    goes: impl Fn(&KnownSigner) -> bool,
) -> Result<Vec<(usize, KnownSigner)>, KnownSignersError> {
    let unwritable = failed("write", path);
    let _lock = match DirLock::exclusive(parent(path)) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        taken => taken.map_err(failed("lock", path))?,
    };
    let file = match ownership::open_regular(path) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        opened => opened.map_err(failed("read", path))?,
    };
    refuse_exposed(&file, path)?;
    let before = content(&file, path)?;
    let mut known = KnownSigners::parse(&before);
    known.lines.retain(|(_, signer)| goes(signer));
    if known.lines.is_empty() {
        return Ok(Vec::new());
    }
    let lines = before.split_inclusive(|byte| *byte == b'\n').enumerate();
    let is_gone = |index: usize| known.lines.iter().any(|(number, _)| *number == index + 1);
    let kept = lines.filter(|(index, _)| !is_gone(*index));
    let after: Vec<u8> = kept.flat_map(|(_, line)| line.iter().copied()).collect();
    // A link to the file stays one.
    let real = path.canonicalize().map_err(&unwritable)?;
    write_atomic(&real, &after, 0o600).map_err(&unwritable)?;
    Ok(known.lines)
}
