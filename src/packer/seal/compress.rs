//! Compresses stretches of tar stream to frames, and checks that they decompress to their content.
//!
//! A reader of a part of a file decompresses the frame from its begin. Large frames are smaller in
//! all, but hardly so where little can be saved; so the less the content compresses, the shorter
//! the frames are.

use std::io::{self, Cursor, Seek as _, SeekFrom};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

use super::error::SealError;
use super::work::{CompressorsShared, FRAME_BYTES, FrameSize, TarStretch, Texture, WriterMessage};

/// The level for which the parameters below replace zstd's own.
const TUNED_LEVEL: i32 = 3;

/// zstd's parameters, with the whole frame as window. 0 stands for the level's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuning {
    strategy: Strategy,
    hash_log: u32,
    chain_log: u32,
    search_log: u32,
    min_match: u32,
    target_length: u32,
}

const fn simple(hash_log: u32, min_match: u32) -> Tuning {
    Tuning {
        strategy: Strategy::ZSTD_fast,
        hash_log,
        chain_log: 0,
        search_log: 0,
        min_match,
        target_length: 0,
    }
}

impl Tuning {
    fn set(self, compressor: &mut Compressor<'_>) -> io::Result<()> {
        for parameter in [
            CParameter::WindowLog(FRAME_BYTES.ilog2()),
            CParameter::Strategy(self.strategy),
            CParameter::HashLog(self.hash_log),
            CParameter::ChainLog(self.chain_log),
            CParameter::SearchLog(self.search_log),
            CParameter::MinMatch(self.min_match),
            CParameter::TargetLength(self.target_length),
        ] {
            compressor.set_parameter(parameter)?;
        }
        Ok(())
    }
}

/// Pages of databases: text in short pieces.
const PAGES: Tuning = simple(18, 5);
/// Files, and highly repetitive content.
const FILES: Tuning = simple(17, 6);
/// Content that hardly compresses: numbers, compressed files.
const NOISE: Tuning = simple(16, 6);
/// For frames for which there is time: a fifth smaller, at a third of the speed.
const THOROUGH: Tuning = Tuning {
    strategy: Strategy::ZSTD_lazy,
    hash_log: 21,
    chain_log: 20,
    search_log: 4,
    min_match: 5,
    target_length: 8,
};
/// A compressor that waited this long for its next frame has time: little content is new, or it
/// arrives slowly.
const IDLE: Duration = Duration::from_millis(150);
/// If more than this share of a frame remains, the next one counts as noise.
const NOISE_ABOVE_PERCENT: usize = 75;
/// If less than this share of a frame remains, pages in the next one are treated as files.
const REPETITIVE_BELOW_PERCENT: usize = 25;

/// Bytes of a frame that has lines of an index: a search decodes a frame for each of its steps. It
/// is one block of zstd.
const LINES_FRAME_BYTES: usize = 128 << 10;
/// Bytes of a frame of content that hardly compresses.
const NOISE_FRAME_BYTES: usize = 1 << 20;

/// Returns the bytes of the next frame, if `remained_percent` remained of the last one.
fn frame_bytes(texture: Texture, remained_percent: usize) -> usize {
    match (texture, remained_percent) {
        (Texture::Lines, _) => LINES_FRAME_BYTES,
        (_, NOISE_ABOVE_PERCENT..) => NOISE_FRAME_BYTES,
        (Texture::Pages, _) => FRAME_BYTES,
        // About 1 MiB of compressed bytes.
        (Texture::Other, 50..) => FRAME_BYTES / 8,
        (Texture::Other, 25..) => FRAME_BYTES / 4,
        (Texture::Other, 13..) => FRAME_BYTES / 2,
        (Texture::Other, _) => FRAME_BYTES,
    }
}

/// zstd at one level. At [`TUNED_LEVEL`] the parameters are chosen frame by frame, by its content
/// and by the outcome of the frame before.
struct Zip {
    zstd: Compressor<'static>,
    /// Current parameters; `None` at other levels.
    tuning: Option<Tuning>,
    /// Compressed share of the last frame.
    remained_percent: usize,
}

impl Zip {
    fn new(level: i32) -> io::Result<Self> {
        let mut zip = Self {
            zstd: Compressor::new(level)?,
            tuning: None,
            remained_percent: 50,
        };
        if level == TUNED_LEVEL {
            zip.tune(FILES)?;
        }
        Ok(zip)
    }

    fn tune(&mut self, tuning: Tuning) -> io::Result<()> {
        if self.tuning != Some(tuning) {
            tuning.set(&mut self.zstd)?;
            self.tuning = Some(tuning);
        }
        Ok(())
    }

    /// Compresses `tar` to one frame behind what `zstd` has, which must have enough capacity.
    /// Returns the frame's bytes.
    fn compress(&mut self, tar: &[u8], texture: Texture, zstd: &mut Vec<u8>) -> io::Result<usize> {
        if self.tuning.is_some() {
            self.tune(match self.remained_percent {
                NOISE_ABOVE_PERCENT.. => NOISE,
                REPETITIVE_BELOW_PERCENT.. if texture == Texture::Pages => PAGES,
                _ => FILES,
            })?;
        }
        append(&mut self.zstd, tar, zstd)
    }

    /// Compresses `stretch` to `zstd`, which is empty and has enough capacity. Returns the frames.
    fn compress_all(
        &mut self,
        stretch: &TarStretch,
        thorough: Option<&Mutex<Option<Compressor<'static>>>>,
        zstd: &mut Vec<u8>,
    ) -> io::Result<Vec<FrameSize>> {
        let (texture, mut rest) = (stretch.texture(), stretch.tar.as_slice());
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let length = frame_bytes(texture, self.remained_percent).min(rest.len());
            let (tar, later) = rest.split_at(length);
            let zstd_bytes = match thorough {
                Some(shared) => compress_thoroughly(shared, tar, zstd)?,
                None => self.compress(tar, texture, zstd)?,
            };
            self.remained_percent = zstd_bytes * 100 / length;
            frames.push(FrameSize {
                tar_bytes: length,
                zstd_bytes,
            });
            rest = later;
        }
        Ok(frames)
    }
}

/// Appends `tar` as a frame to `zstd`, within its capacity. Returns the frame's bytes.
fn append(compressor: &mut Compressor<'_>, tar: &[u8], zstd: &mut Vec<u8>) -> io::Result<usize> {
    let mut end = Cursor::new(&mut *zstd);
    end.seek(SeekFrom::End(0))?;
    compressor.compress_to_buffer(tar, &mut end)
}

/// Returns the most bytes of all frames of a stretch of `bytes`.
fn bound(bytes: usize) -> usize {
    let frames = bytes.div_ceil(LINES_FRAME_BYTES);
    frames * compress_bound(LINES_FRAME_BYTES)
}

/// Appends `tar` as a frame by the shared compressor for content for which there is time.
fn compress_thoroughly(
    shared: &Mutex<Option<Compressor<'static>>>,
    tar: &[u8],
    zstd: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut made = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let compressor = match &mut *made {
        Some(compressor) => compressor,
        None => {
            let mut compressor = Compressor::new(TUNED_LEVEL)?;
            THOROUGH.set(&mut compressor)?;
            made.insert(compressor)
        }
    };
    append(compressor, tar, zstd)
}

/// Compresses stretches until there are no more. `check` is the number of the buffer for
/// decompressing them again.
pub(super) fn compress_frames(shared: &CompressorsShared, check: usize) {
    let tools = Zip::new(shared.level).and_then(|zip| Ok((zip, Decompressor::new()?)));
    let (mut zip, mut unzip) = match tools {
        Ok(tools) => tools,
        Err(error) => {
            let failed = WriterMessage::Failed(SealError::Compress(error));
            let _ = shared.messages.send(failed);
            return;
        }
    };
    let check = &shared.checks[check];
    loop {
        let Some(mut zstd) = next(&shared.buffers) else {
            return;
        };
        let began = Instant::now();
        let Some(stretch) = next(&shared.stretches) else {
            return;
        };
        let has_time = shared.level == TUNED_LEVEL && began.elapsed() >= IDLE;
        let thorough = has_time.then_some(&shared.thorough);
        let compressed = checked(&stretch.tar, &mut zstd, check, &mut unzip, |zstd| {
            zip.compress_all(&stretch, thorough, zstd)
        });
        let order = stretch.order;
        // Fails if the packer is gone; then it needs no more stretches.
        let _ = shared.used.send(stretch);
        let message = match compressed {
            Ok(frames) => WriterMessage::Compressed {
                order,
                frames,
                zstd,
            },
            Err(error) => WriterMessage::Failed(error),
        };
        if shared.messages.send(message).is_err() {
            return;
        }
    }
}

fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().ok()?.recv().ok()
}

/// Compresses `tar` into `zstd`, and accepts that only if it decompresses to `tar`.
fn checked<T>(
    tar: &[u8],
    zstd: &mut Vec<u8>,
    check: &Mutex<Vec<u8>>,
    unzip: &mut Decompressor<'_>,
    compress: impl FnOnce(&mut Vec<u8>) -> io::Result<T>,
) -> Result<T, SealError> {
    zstd.clear();
    zstd.reserve_exact(bound(tar.len()));
    let compressed = compress(zstd).map_err(SealError::Compress)?;
    let mut check = check.lock().unwrap_or_else(PoisonError::into_inner);
    check.clear();
    check.reserve_exact(tar.len());
    unzip
        .decompress_to_buffer(zstd, &mut *check)
        .map_err(SealError::Compress)?;
    match check.as_slice() == tar {
        true => Ok(compressed),
        false => Err(SealError::FrameMismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bad memory between the compressor and the seal must not reach an archive.
    #[test]
    fn a_frame_that_decompresses_to_something_else_is_not_sealed() {
        let tar = b"what the host has".repeat(100);
        let check = |tar: &[u8], zstd: io::Result<Vec<u8>>| {
            let mut unzip = Decompressor::new().unwrap();
            checked(tar, &mut Vec::new(), &Mutex::default(), &mut unzip, |out| {
                out.extend(zstd?);
                Ok(out.len())
            })
        };
        assert!(check(&tar, zstd::bulk::compress(&tar, 3)).is_ok());
        for wrong in [
            b"what the disk has".repeat(100),
            tar[..90].to_vec(),
            Vec::new(),
        ] {
            let refused = check(&tar, zstd::bulk::compress(&wrong, 3));
            assert!(matches!(refused, Err(SealError::FrameMismatch)));
        }
        let garbage = check(&tar, Ok(b"no zstd".to_vec()));
        assert!(matches!(garbage, Err(SealError::Compress(_))));
    }

    #[test]
    fn parameters_follow_a_frames_content_and_the_outcome_of_the_last_one() {
        let mut zip = Zip::new(TUNED_LEVEL).unwrap();
        let mut noise = vec![0; 1 << 20];
        getrandom::fill(&mut noise).unwrap();
        let text: Vec<u8> = noise.iter().map(|byte| b'a' + byte % 8).collect();
        let repetitive = b"again and again ".repeat(1 << 16);
        let mut compress = |tar: &[u8], page_bytes: usize| {
            let mut zstd = Vec::with_capacity(bound(tar.len()));
            let stretch = TarStretch {
                tar: tar.to_vec(),
                page_bytes,
                ..TarStretch::default()
            };
            zip.compress_all(&stretch, None, &mut zstd).unwrap();
            assert_eq!(zstd::bulk::decompress(&zstd, tar.len()).unwrap(), tar);
            zip.tuning
        };
        assert_eq!(compress(&text, text.len()), Some(PAGES));
        assert_eq!(compress(&text, 0), Some(FILES));
        assert_eq!(compress(&noise, 0), Some(FILES));
        assert_eq!(compress(&noise, noise.len()), Some(NOISE));
        assert_eq!(compress(&repetitive, 0), Some(NOISE));
        assert_eq!(compress(&repetitive, repetitive.len()), Some(FILES));
        assert_eq!(Zip::new(9).unwrap().tuning, None);
        let mut zstd = Vec::with_capacity(compress_bound(text.len()));
        compress_thoroughly(&Mutex::default(), &text, &mut zstd).unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, text.len()).unwrap(), text);
    }

    #[test]
    fn the_less_content_compresses_the_shorter_are_its_frames() {
        let mut noise = vec![0; FRAME_BYTES];
        getrandom::fill(&mut noise).unwrap();
        let half: Vec<u8> = noise.iter().map(|byte| byte % 16).collect();
        let little = b"again and again ".repeat(FRAME_BYTES / 16);
        let mib = 1 << 20;
        for (tar, texture, longest) in [
            (&noise, Texture::Other, mib),
            (&noise, Texture::Pages, mib),
            (&half, Texture::Other, mib),
            (&half, Texture::Pages, 8 * mib),
            (&little, Texture::Other, 8 * mib),
            (&little, Texture::Lines, mib / 8),
        ] {
            let mut zip = Zip::new(TUNED_LEVEL).unwrap();
            let is = |one| usize::from(texture == one) * tar.len();
            let stretch = TarStretch {
                order: 0,
                tar: tar.clone(),
                page_bytes: is(Texture::Pages),
                line_bytes: is(Texture::Lines),
            };
            // The first time, nothing is known of the content.
            for _ in 0..2 {
                let mut zstd = Vec::with_capacity(bound(tar.len()));
                let frames = zip.compress_all(&stretch, None, &mut zstd).unwrap();
                let (mut tar_at, mut zstd_at) = (0, 0);
                for frame in &frames {
                    let one = &zstd[zstd_at..zstd_at + frame.zstd_bytes];
                    let content = zstd::bulk::decompress(one, frame.tar_bytes).unwrap();
                    assert!(content == tar[tar_at..tar_at + frame.tar_bytes]);
                    (tar_at, zstd_at) = (tar_at + frame.tar_bytes, zstd_at + frame.zstd_bytes);
                }
                assert_eq!((tar_at, zstd_at), (tar.len(), zstd.len()));
            }
            let mut zstd = Vec::with_capacity(bound(tar.len()));
            let frames = zip.compress_all(&stretch, None, &mut zstd).unwrap();
            let found = frames.iter().map(|frame| frame.tar_bytes).max();
            assert_eq!(found, Some(longest), "{texture:?}");
        }
    }
}
