//! Compresses frames, and checks that each decompresses to its content.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

use super::error::SealError;
use super::work::{CompressorsShared, FRAME_BYTES, WriterMessage};

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

    /// Compresses `tar`, of which `page_bytes` are pages of databases, into `zstd`, which must have
    /// enough capacity. Returns the compressed bytes.
    fn compress(&mut self, tar: &[u8], page_bytes: usize, zstd: &mut Vec<u8>) -> io::Result<usize> {
        if self.tuning.is_some() {
            let pages = page_bytes * 2 > tar.len();
            self.tune(match self.remained_percent {
                NOISE_ABOVE_PERCENT.. => NOISE,
                REPETITIVE_BELOW_PERCENT.. if pages => PAGES,
                _ => FILES,
            })?;
        }
        let bytes = self.zstd.compress_to_buffer(tar, zstd)?;
        self.remained_percent = bytes * 100 / tar.len().max(1);
        Ok(bytes)
    }
}

/// Compresses `tar` with the shared compressor for frames for which there is time.
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
    compressor.compress_to_buffer(tar, zstd)
}

/// Compresses frames until there are no more. `check` is the number of the buffer for decompressing
/// them again.
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
        let Some(frame) = next(&shared.frames) else {
            return;
        };
        let waited = began.elapsed();
        let compressed = checked(
            &frame.tar,
            &mut zstd,
            check,
            &mut unzip,
            |tar, zstd| match shared.level == TUNED_LEVEL && waited >= IDLE {
                true => compress_thoroughly(&shared.thorough, tar, zstd),
                false => zip.compress(tar, frame.page_bytes, zstd),
            },
        );
        let (order, tar_bytes) = (frame.order, frame.tar.len());
        // Fails if the packer is gone; then it needs no more frames.
        let _ = shared.used.send(frame);
        let message = match compressed {
            Ok(()) => WriterMessage::Compressed {
                order,
                tar_bytes,
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

/// Compresses one frame into `zstd`, and accepts it only if it decompresses to its content.
fn checked(
    tar: &[u8],
    zstd: &mut Vec<u8>,
    check: &Mutex<Vec<u8>>,
    unzip: &mut Decompressor<'_>,
    compress: impl FnOnce(&[u8], &mut Vec<u8>) -> io::Result<usize>,
) -> Result<(), SealError> {
    zstd.clear();
    zstd.reserve_exact(compress_bound(tar.len()));
    compress(tar, zstd).map_err(SealError::Compress)?;
    let mut check = check.lock().unwrap_or_else(PoisonError::into_inner);
    check.clear();
    check.reserve_exact(tar.len());
    unzip
        .decompress_to_buffer(zstd, &mut *check)
        .map_err(SealError::Compress)?;
    match check.as_slice() == tar {
        true => Ok(()),
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
            checked(
                tar,
                &mut Vec::new(),
                &Mutex::default(),
                &mut unzip,
                |_, out| {
                    out.extend(zstd?);
                    Ok(out.len())
                },
            )
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
            let mut zstd = Vec::with_capacity(compress_bound(tar.len()));
            zip.compress(tar, page_bytes, &mut zstd).unwrap();
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
}
