//! Decides of which archives only parts are fetched.

use super::plan::{ArchiveJob, Piece};

/// Most bytes of content in a frame.
const FRAME_BYTES: u64 = 8 << 20;
/// What is fetched beside the frames: the ends of the archive.
const ENDS_BYTES: u64 = 72 << 10;
/// What is fetched of each frame beside what is needed.
const SLACK_BYTES: u64 = 160 << 10;
/// A smaller archive is fetched whole.
const LEAST_BYTES: u64 = 1 << 20;
/// Parts are fetched if they are at most such a part of the whole.
const CLEARLY_LESS: u64 = 2;

/// The archives of a restore.
#[derive(Debug, Default)]
pub(super) struct SplitJobs {
    /// Those that are fetched whole.
    pub(super) whole: Vec<ArchiveJob>,
    /// Those of which only parts are fetched.
    pub(super) parts: Vec<ArchiveJob>,
}

impl SplitJobs {
    /// Splits `jobs`, whose target `has_ranges`.
    pub(super) fn of(jobs: Vec<ArchiveJob>, has_ranges: bool) -> Self {
        let is_part = |job: &ArchiveJob| has_ranges && parts_bytes(job).is_some();
        let (parts, whole) = jobs.into_iter().partition(is_part);
        Self { whole, parts }
    }
}

/// Returns about how many bytes of ciphertext are fetched for `jobs`.
pub(super) fn planned_bytes(jobs: &[ArchiveJob], has_ranges: bool) -> u64 {
    let of_job = |job: &ArchiveJob| {
        let parts = parts_bytes(job).filter(|_| has_ranges);
        parts.unwrap_or(job.row.bytes)
    };
    jobs.iter().map(of_job).fold(0, u64::saturating_add)
}

/// Returns about how many bytes the parts have that `job` needs. `None`: the archive is fetched
/// whole.
fn parts_bytes(job: &ArchiveJob) -> Option<u64> {
    let stream = job.stream.filter(|_| job.row.bytes >= LEAST_BYTES)?;
    let (content, frames) =
        needed_content(&job.pieces, frame_bytes(job.row.bytes, stream.tar_bytes));
    // In 128 bits nothing overflows, whatever the index says.
    let share =
        u128::from(content) * u128::from(job.row.bytes) / u128::from(stream.tar_bytes.max(1));
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    let bytes = share.saturating_add(ENDS_BYTES + frames * SLACK_BYTES);
    (bytes.saturating_mul(CLEARLY_LESS) <= job.row.bytes).then_some(bytes)
}

/// Returns about how much content a frame has in an archive that compressed `tar_bytes` to `bytes`:
/// packers make frames the shorter, the less their content compresses.
fn frame_bytes(bytes: u64, tar_bytes: u64) -> u64 {
    match u128::from(bytes) * 100 / u128::from(tar_bytes.max(1)) {
        50.. => FRAME_BYTES / 8,
        25.. => FRAME_BYTES / 4,
        13.. => FRAME_BYTES / 2,
        _ => FRAME_BYTES,
    }
}

/// Returns the content that must be decoded for `pieces`, which are sorted, and the number of
/// frames of `frame_bytes` it is in. A frame is decoded from its begin.
fn needed_content(pieces: &[Piece], frame_bytes: u64) -> (u64, u64) {
    let (mut content, mut frames) = (0_u64, 0);
    // The last frame, and up to where it is needed.
    let (mut last, mut reached) = (None, 0);
    for piece in pieces {
        let end = piece.tar_offset + piece.length;
        let mut at = piece.tar_offset;
        while at < end {
            let frame = at / frame_bytes;
            let start = frame * frame_bytes;
            let upto = end.min(start + frame_bytes);
            if last != Some(frame) {
                (last, reached) = (Some(frame), start);
                frames += 1;
            }
            content = content.saturating_add(upto.saturating_sub(reached));
            reached = reached.max(upto);
            at = upto;
        }
    }
    (content, frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_from_its_begin_and_once() {
        let piece = |tar_offset, length| Piece {
            entry: 0,
            file_offset: 0,
            tar_offset,
            length,
        };
        let frame = FRAME_BYTES;
        assert_eq!(needed_content(&[], frame), (0, 0));
        assert_eq!(needed_content(&[piece(4096, 100)], frame), (4196, 1));
        let overlapping = [piece(10, 100), piece(20, 10), piece(50, 100)];
        assert_eq!(needed_content(&overlapping, frame), (150, 1));
        let across = [piece(frame - 10, 20), piece(3 * frame, 5)];
        assert_eq!(needed_content(&across, frame), (frame + 10 + 5, 3));
    }
}
