//! Compressing frames, and proof that each gives back what went in.

use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

use super::pipeline::{Frame, Message};
use super::{FRAME_BYTES, SealError};

/// The level with parameters of our own.
const TUNED_LEVEL: i32 = 3;

/// zstd's parameters, with the whole frame as window. 0 is the level's own.
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

/// Pages of databases: text in short pieces.
const PAGES: Tuning = simple(18, 5);
/// Files, and whatever repeats itself much.
const FILES: Tuning = simple(17, 6);
/// What hardly compresses: numbers, what is compressed already.
const NOISE: Tuning = simple(16, 6);
/// Where there is time: a fifth smaller, at a third of the speed.
const THOROUGH: Tuning = Tuning {
    strategy: Strategy::ZSTD_lazy,
    hash_log: 21,
    chain_log: 20,
    search_log: 4,
    min_match: 5,
    target_length: 8,
};
/// A compressor that waited so long for its next frame has time: little is new, or it comes slowly.
const IDLE: Duration = Duration::from_millis(150);
/// A frame of which more than this share remains makes the next one count as noise, as long as that lasts.
const NOISE_ABOVE_PERCENT: usize = 75;
/// Pages of which less than this share remains are treated as files.
const REPETITIVE_BELOW_PERCENT: usize = 25;

/// zstd at one level. At [`TUNED_LEVEL`] the parameters are chosen frame by frame, by what is in it and how
/// the one before went.
struct Zip {
    zstd: Compressor<'static>,
    /// Of other levels, none.
    tuning: Option<Tuning>,
    /// What remained of the last frame.
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
            let set = &mut zip.zstd;
            set.set_parameter(CParameter::WindowLog(FRAME_BYTES.ilog2()))?;
            zip.tune(FILES)?;
        }
        Ok(zip)
    }

    fn tune(&mut self, tuning: Tuning) -> io::Result<()> {
        if self.tuning != Some(tuning) {
            let set = &mut self.zstd;
            set.set_parameter(CParameter::Strategy(tuning.strategy))?;
            set.set_parameter(CParameter::HashLog(tuning.hash_log))?;
            set.set_parameter(CParameter::ChainLog(tuning.chain_log))?;
            set.set_parameter(CParameter::SearchLog(tuning.search_log))?;
            set.set_parameter(CParameter::MinMatch(tuning.min_match))?;
            set.set_parameter(CParameter::TargetLength(tuning.target_length))?;
            self.tuning = Some(tuning);
        }
        Ok(())
    }

    /// Compresses `tar` into `zstd`, which has room. `page_bytes` of it are pages of databases; it was
    /// `waited` for so long.
    fn compress(
        &mut self,
        tar: &[u8],
        page_bytes: usize,
        waited: Duration,
        zstd: &mut Vec<u8>,
    ) -> io::Result<usize> {
        if self.tuning.is_some() {
            let pages = page_bytes * 2 > tar.len();
            self.tune(match self.remained_percent {
                _ if waited >= IDLE => THOROUGH,
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

/// Compresses what comes from `queue` until it ends. `check` is for the second look; several may share it.
pub(super) fn compress_frames(
    queue: &Mutex<Receiver<Frame>>,
    out: &Sender<Message>,
    level: i32,
    check: &Mutex<Vec<u8>>,
) {
    let tools = Zip::new(level).and_then(|zip| Ok((zip, Decompressor::new()?)));
    let (mut zip, mut unzip) = match tools {
        Ok(tools) => tools,
        Err(error) => {
            let _ = out.send(Message::Failed(SealError::Compress(error)));
            return;
        }
    };
    loop {
        let began = Instant::now();
        let frame = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok(mut frame) = frame else {
            return;
        };
        let Frame {
            tar,
            zstd,
            page_bytes,
            ..
        } = &mut frame;
        let waited = began.elapsed();
        let compressed = checked(tar, zstd, check, &mut unzip, |tar, zstd| {
            zip.compress(tar, *page_bytes, waited, zstd)
        });
        let message = match compressed {
            Ok(()) => Message::Compressed(frame),
            Err(error) => Message::Failed(error),
        };
        if out.send(message).is_err() {
            return;
        }
    }
}

/// Compresses one frame into `zstd`, and lets it through only if it gives back what went in.
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
    fn a_frame_that_gives_back_something_else_is_not_sealed() {
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
    fn parameters_follow_what_is_in_a_frame_and_how_the_last_one_went() {
        let mut zip = Zip::new(TUNED_LEVEL).unwrap();
        let mut noise = vec![0; 1 << 20];
        getrandom::fill(&mut noise).unwrap();
        let text: Vec<u8> = noise.iter().map(|byte| b'a' + byte % 8).collect();
        let repetitive = b"again and again ".repeat(1 << 16);
        let mut compress = |tar: &[u8], page_bytes: usize, waited: Duration| {
            let mut zstd = Vec::with_capacity(compress_bound(tar.len()));
            zip.compress(tar, page_bytes, waited, &mut zstd).unwrap();
            assert_eq!(zstd::bulk::decompress(&zstd, tar.len()).unwrap(), tar);
            zip.tuning
        };
        let busy = Duration::ZERO;
        assert_eq!(compress(&text, 0, IDLE), Some(THOROUGH));
        assert_eq!(compress(&text, text.len(), busy), Some(PAGES));
        assert_eq!(compress(&text, 0, busy), Some(FILES));
        assert_eq!(compress(&noise, 0, busy), Some(FILES));
        assert_eq!(compress(&noise, noise.len(), busy), Some(NOISE));
        assert_eq!(compress(&repetitive, 0, busy), Some(NOISE));
        assert_eq!(compress(&repetitive, repetitive.len(), busy), Some(FILES));
        assert_eq!(Zip::new(9).unwrap().tuning, None);
    }
}
