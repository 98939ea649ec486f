//! Content from a directory that `restore --to` made, on this machine or another.

use std::io::{self, BufReader};
use std::path::Path;

use super::{ContentOrigin, InPlaceContent};
use crate::base::openat::Dir;
use crate::base::progress::Stage;
use crate::format::restored::{RESTORED, RestoredError, RestoredRecord};
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::restore::{RecordDifferences, check_record};

/// Entries beside the record that are named.
const MOST_ADDITIONAL: usize = 10;
const RESTORE_AGAIN: &str = "restore the snapshot again with `sealift restore --to DIR`, and copy all of DIR \
     (`rsync -aHAX`, or `restore --via` without a copy)";

impl InPlaceContent {
    /// Returns the content of `dir`, after every file was compared with the directory's record.
    /// `wanted` are the paths within the snapshot that are to be put in place; of a directory that
    /// does not hold the whole snapshot, they must be there in full.
    pub(crate) fn of_directory(
        dir: &Path,
        wanted: &[&str],
        front: &dyn FrontEnd,
    ) -> Result<Self, JobError> {
        let shown = dir.display();
        let opened = Dir::open_trusted(dir).map_err(|error| {
            JobError::work(format!("cannot open {shown}: {error}"))
                .with_next("give the directory that `sealift restore --to` made, or its copy")
        })?;
        let record = read_record(&opened, dir)?;
        record.require(wanted)?;
        let display = front.show_transfer(Stage::Finishing, RESTORED, record.bytes());
        let found = check_record(&record, &opened, &*display.progress);
        drop(display);
        let found = found.map_err(JobError::from)?;
        if !found.is_whole() {
            return Err(
                JobError::work(format!("{shown} is not what was restored:{found}"))
                    .with_next(RESTORE_AGAIN),
            );
        }
        refuse_additional(&found, wanted, dir)?;
        warn_of_additional(&found, dir, front);
        let header = &record.header;
        Ok(Self {
            dir: opened.path().to_path_buf(),
            stamp: header.stamp,
            host: header.host.to_string(),
            origin: ContentOrigin::Directory,
            record: Some(record),
            _scratch: None,
        })
    }
}

fn read_record(opened: &Dir, dir: &Path) -> Result<RestoredRecord, JobError> {
    let shown = dir.display();
    let file = match opened.open_file(RESTORED) {
        Ok((file, _)) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!(
                "{shown} has no {RESTORED}: a restore did not make it, or the copy left that file out"
            );
            return Err(JobError::work(what).with_next(RESTORE_AGAIN));
        }
        Err(error) => {
            let what = format!("cannot read {}: {error}", dir.join(RESTORED).display());
            return Err(JobError::work(what));
        }
    };
    RestoredRecord::read(BufReader::with_capacity(1 << 16, file)).map_err(|error| {
        let newer = matches!(error, RestoredError::Version(_));
        let error = JobError::work(format!("{shown} cannot be used: {error}"));
        match newer {
            true => error,
            false => error.with_next(RESTORE_AGAIN),
        }
    })
}

impl RestoredRecord {
    /// Requires that the record covers each of the paths `wanted`.
    pub(super) fn require(&self, wanted: &[&str]) -> Result<(), JobError> {
        let lacks = wanted.iter().filter(|to| !self.covers(to.as_bytes()));
        let lacks: Vec<&str> = lacks.copied().collect();
        if lacks.is_empty() {
            return Ok(());
        }
        let text = format!(
            "only a part of snapshot {} was restored there, without all of {}",
            self.header.stamp,
            lacks.join(", ")
        );
        Err(JobError::work(text).with_next(
            "name the sources that are there in full with --only, or restore the whole snapshot: `sealift restore --to DIR`",
        ))
    }
}

/// Refuses entries that were not restored there, within the paths that are to be put in place.
fn refuse_additional(
    found: &RecordDifferences,
    wanted: &[&str],
    dir: &Path,
) -> Result<(), JobError> {
    let is_within = |path: &&String| {
        let mut places = wanted.iter();
        places.any(|to| Path::new(path.as_str()).starts_with(to))
    };
    let within: Vec<&str> = found
        .additional
        .iter()
        .filter(is_within)
        .map(String::as_str)
        .collect();
    if within.is_empty() {
        return Ok(());
    }
    let named = within.iter().take(MOST_ADDITIONAL).copied();
    let mut named = named.collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = within.len().checked_sub(MOST_ADDITIONAL) {
        named += &format!(" and {more} more");
    }
    let text = format!(
        "in {} there is more than was restored: {named}",
        dir.display()
    );
    Err(JobError::work(text)
        .with_next("remove what does not belong there, or restore the snapshot again"))
}

fn warn_of_additional(found: &RecordDifferences, dir: &Path, front: &dyn FrontEnd) {
    for path in found.additional.iter().take(MOST_ADDITIONAL) {
        let path = dir.join(path);
        front.warn(&format!("{} was not restored there", path.display()));
    }
    if let Some(more @ 1..) = found.additional.len().checked_sub(MOST_ADDITIONAL) {
        front.warn(&format!("and {more} more entries were not restored there"));
    }
}
