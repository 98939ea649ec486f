//! Prints files of a snapshot directory of this host.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;

use super::super::Context;
use super::super::choose;
use super::super::failure::{Failure, Outcome};
use super::super::ls;
use super::super::output::printable;
use super::{CatArgs, DataOutput};
use crate::base::openat::{Dir, Kind};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::jobs::local_snapshots;
use crate::producer;

const BUFFER_BYTES: usize = 256 << 10;

pub(super) fn run(
    context: &Context,
    args: &CatArgs,
    choice: &SnapshotChoice,
) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let snapshot = local_snapshots::find(&config, choice, context)?;
    let dir = Dir::open(&snapshot)?;
    let in_place = producer::in_place_of(&snapshot);
    let paths = args.paths.iter().map(|path| choose::snapshot_path(path));
    let paths: Vec<Vec<u8>> = paths.collect();
    for path in &paths {
        require_file(&dir, path, args, &in_place)?;
    }
    let mut out = DataOutput::new();
    for path in &paths {
        copy(&dir, path, args, &mut out)?;
    }
    Ok(Outcome::Complete)
}

/// Fails unless `path` is a regular file of the snapshot.
fn require_file(
    dir: &Dir,
    path: &[u8],
    args: &CatArgs,
    in_place: &[String],
) -> Result<(), Failure> {
    let found = match path.is_empty() {
        true => None,
        false => dir.try_meta(OsStr::from_bytes(path)).ok().flatten(),
    };
    let what = match found.as_ref().map(|meta| meta.kind()) {
        Some(Kind::File) => return Ok(()),
        Some(Kind::Dir) => "a directory",
        Some(Kind::Symlink) => "a symbolic link",
        Some(_) => "no regular file",
        None => {
            let elsewhere = ls::is_elsewhere("cat", args.snapshot.text(), path, in_place);
            return Err(elsewhere.unwrap_or_else(|| ls::no_such_local(dir, path)));
        }
    };
    Err(Failure::from_error(format!(
        "{} is {what}, and not a file",
        printable(path)
    )))
}

fn copy(dir: &Dir, path: &[u8], args: &CatArgs, out: &mut DataOutput) -> Result<(), Failure> {
    let (mut file, _) = dir.open_file(OsStr::from_bytes(path))?;
    let range = args.range();
    file.seek(SeekFrom::Start(range.start.min(i64::MAX as u64)))?;
    let mut left = file.take(range.end - range.start);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match left.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write(&buffer[..count])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
