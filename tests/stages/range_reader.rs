//! Parts of archives are what the whole of them says, whatever is damaged, cached or asked for at a time.

mod scene;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use sealift::format::index::Extent;
use sealift::restore::{RangeError, RangeReaderOptions};

use crate::support::files::files;
use crate::support::handmade_repo::run;
use crate::support::is_long;
use scene::{Scene, Table, memory_only, with_cache};

fn small_frames() -> impl Strategy<Value = Vec<(u64, usize)>> {
    // Noise and text: a seed of 0 is text.
    proptest::collection::vec((0..3_u64, 1..90_000_usize), 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if is_long() { 256 } else { 24 }))]

    /// Kind: a part of an archive is not what the whole of it has there.
    #[test]
    fn any_ranges_are_what_the_whole_tar_stream_has(
        frames in small_frames(),
        ranges in proptest::collection::vec((0..1000_u64, 0..1000_u64), 1..8),
        table in prop_oneof![Just(Table::Right), Just(Table::Absent), Just(Table::Shifted)],
        has_ranges: bool,
    ) {
        let scene = Scene::new(&frames, table);
        scene.target.has_ranges.store(has_ranges, Ordering::Relaxed);
        let cache = tempfile::tempdir().unwrap();
        for options in [memory_only(), with_cache(cache.path()), with_cache(cache.path())] {
            let reader = scene.reader(options);
            run(async {
                let total = scene.tar.len() as u64;
                for (a, b) in &ranges {
                    let (a, b) = (a.min(b) * total / 1000, a.max(b) * total / 1000);
                    let bytes = reader.read_archive(&scene.row, a..b).await.unwrap();
                    assert!(bytes[..] == scene.tar[a as usize..b as usize], "{a}..{b}");
                }
                let beyond = reader.read_archive(&scene.row, total - 1..total + 1).await.unwrap_err();
                assert!(beyond.is_damage(), "{beyond}");
            });
        }
    }

    /// Kind: pieces of a file come back in the wrong place.
    #[test]
    fn content_of_many_extents_is_put_together(
        frames in small_frames(),
        extents in proptest::collection::vec((0..1000_u64, 1..50_000_u64, any::<bool>()), 1..12),
        range in (0..200_000_u64, 0..200_000_u64),
    ) {
        let scene = Scene::new(&frames, Table::Right);
        let total = scene.tar.len() as u64;
        let (mut content, mut list) = (Vec::new(), Vec::new());
        for (at, length, is_hole) in extents {
            let offset = at * total / 1000;
            let length = length.min(total - offset).max(1);
            let archive = (!is_hole).then_some(scene.row.id);
            content.extend(match is_hole {
                true => vec![0; length as usize],
                false => scene.tar[offset as usize..(offset + length) as usize].to_vec(),
            });
            list.push(Extent { archive, offset, length });
        }
        let range = range.0.min(range.1)..range.0.max(range.1);
        let expected: Vec<u8> = {
            let bytes = content.iter().skip(range.start as usize);
            bytes.take((range.end - range.start) as usize).copied().collect()
        };
        let reader = scene.reader(memory_only());
        let found = run(reader.read_content(&scene.table(), &list, range));
        assert!(found.unwrap() == expected);
    }
}

/// Kind: damaged bytes of an archive come back as content.
#[test]
fn each_flipped_byte_of_an_archive_is_an_error_or_without_effect() {
    let scene = Scene::new(&[(1, 1500), (0, 4000), (2, 900)], Table::Right);
    let sealed = scene.target.sealed();
    let mut failed = 0;
    let step = if is_long() { 1 } else { 3 };
    for at in (0..sealed.len()).step_by(step) {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1 << (at % 8);
        scene.target.set(damaged);
        let reader = scene.reader(memory_only());
        let total = scene.tar.len() as u64;
        for range in [0..total, 100..200, total - 100..total] {
            let read = run(reader.read_archive(&scene.row, range.clone()));
            match read {
                Ok(bytes) => {
                    let right = &scene.tar[range.start as usize..range.end as usize];
                    assert!(bytes[..] == *right, "byte {at}");
                }
                Err(error) => {
                    assert!(error.is_damage() || is_other_key(&error), "{at}: {error:?}");
                    failed += 1;
                }
            }
        }
    }
    assert!(failed > sealed.len() / step, "{failed}");
    for length in (0..sealed.len()).step_by(97) {
        scene.target.set(sealed[..length].to_vec());
        let read = run(scene.reader(memory_only()).read_archive(&scene.row, 0..10));
        let error = read.unwrap_err().to_string();
        assert!(error.contains("on shelf is damaged there"), "{error}");
    }
}

/// Kind: an archive that the host did not seal is taken for its own. Anyone who knows a recipient can encrypt to it.
#[test]
fn an_archive_that_a_stranger_encrypted_to_the_recipient_is_refused() {
    for table in [Table::Right, Table::Absent] {
        // A small one that is fetched whole, and a larger one.
        for frames in [&[(1, 1500)][..], &[(1, 400_000), (2, 400_000)]] {
            let scene = Scene::new(frames, table);
            let other = scene.sealed_again();
            scene.target.set(other);
            for has_ranges in [true, false] {
                scene.target.has_ranges.store(has_ranges, Ordering::Relaxed);
                let reader = scene.reader(memory_only());
                let error = run(reader.read_archive(&scene.row, 0..100)).unwrap_err();
                assert!(error.is_damage(), "{error:?}");
                assert!(format!("{error:?}").contains("age header"), "{error:?}");
            }
        }
    }
}

/// Kind: one damaged byte takes content with it that does not need it.
#[test]
fn damage_in_one_frame_leaves_the_others_readable() {
    // Each frame of noise has several chunks of its own.
    let scene = Scene::new(&[(1, 300_000), (2, 300_000), (3, 300_000)], Table::Right);
    let mut damaged = scene.target.sealed();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    scene.target.set(damaged);
    let reader = scene.reader(memory_only());
    run(async {
        for range in [0..300_000_u64, 600_000..900_000] {
            let bytes = reader
                .read_archive(&scene.row, range.clone())
                .await
                .unwrap();
            assert!(bytes[..] == scene.tar[range.start as usize..range.end as usize]);
        }
        let error = reader
            .read_archive(&scene.row, 300_000..600_000)
            .await
            .unwrap_err();
        assert!(error.is_damage());
        let text = error.to_string();
        assert!(
            text.contains("on shelf is damaged there: another target may have it"),
            "{text}"
        );
        assert!(text.contains(&scene.row.id.to_string()), "{text}");
    });
}

/// A byte of the header may name another recipient.
fn is_other_key(error: &RangeError) -> bool {
    matches!(error, RangeError::Archive { source, .. } if source.lacks_identity())
}

/// Kind: what is damaged in the cache counts as damage of the target, or as content.
#[test]
fn a_damaged_cache_is_fetched_again() {
    let scene = Scene::new(&[(1, 700_000), (0, 900_000), (2, 1_500_000)], Table::Right);
    let cache = tempfile::tempdir().unwrap();
    let total = scene.tar.len() as u64;
    let read_all = || {
        let reader = scene.reader(with_cache(cache.path()));
        let bytes = run(reader.read_archive(&scene.row, 0..total)).unwrap();
        assert!(bytes[..] == scene.tar[..]);
        assert_eq!(reader.cache_trouble(), None);
        reader.fetched_bytes()
    };
    assert!(read_all() > 2_000_000);
    assert_eq!(read_all(), 0);
    let blocks = files(cache.path());
    assert!(blocks.len() >= 3, "{blocks:?}");
    for (number, block) in blocks.iter().enumerate() {
        let good = fs::read(block).unwrap();
        // Damage that the file's own hash shows.
        for bad in [&good[..good.len() / 2], b"", b"something else"] {
            fs::write(block, bad).unwrap();
            assert!(read_all() > 0, "{number}");
            assert_eq!(read_all(), 0, "{number}");
        }
        // Damage that an attacker hid from it: only the chunks' own tags show that.
        for at in [40, good.len() / 2, good.len() - 40] {
            let good = fs::read(block).unwrap();
            let mut bad = good[..good.len() - 32].to_vec();
            bad[at] ^= 8;
            let hash = blake3::hash(&bad);
            bad.extend(hash.as_bytes());
            fs::write(block, bad).unwrap();
            read_all();
            assert_eq!(read_all(), 0, "{number}");
        }
    }
}

/// Kind: many readers fetch the same frame many times.
#[test]
fn a_frame_is_fetched_once_however_many_wait_for_it() {
    let scene = Scene::new(&[(1, 400_000), (2, 400_000)], Table::Right);
    scene.target.wait(Duration::from_millis(150));
    let reader = Arc::new(scene.reader(memory_only()));
    run(async {
        let reads = (0..16_u64).map(|number| {
            let (reader, row) = (reader.clone(), scene.row.clone());
            tokio::spawn(async move {
                let at = number * 1000;
                reader.read_archive(&row, at..at + 300_000).await.unwrap()
            })
        });
        for (number, read) in futures::future::join_all(reads)
            .await
            .into_iter()
            .enumerate()
        {
            let at = number * 1000;
            assert!(read.unwrap()[..] == scene.tar[at..at + 300_000]);
        }
    });
    let requests = scene.target.requests();
    // The ends, and one for the frame.
    assert_eq!(requests.len(), 3, "{requests:?}");
    // All who wait for a failure get it, and the next one tries again.
    scene.target.set(Vec::new());
    let reader = Arc::new(scene.reader(memory_only()));
    run(async {
        let reads = (0..8).map(|_| reader.read_archive(&scene.row, 0..1000));
        let failed = futures::future::join_all(reads).await;
        assert!(failed.iter().all(Result::is_err));
    });
    assert!(scene.target.requests().len() <= 2 + 3);
}

/// Kind: a small part costs as much as the archive.
#[test]
fn what_is_fetched_follows_what_is_needed() {
    // Eight frames of 1 MiB of noise.
    let frames: Vec<(u64, usize)> = (1..9).map(|seed| (seed, 1 << 20)).collect();
    let scene = Scene::new(&frames, Table::Right);
    let ends = (68 << 10) + (4 << 10);
    let cost = |ranges: &[std::ops::Range<u64>]| {
        let before = scene.target.requests().len();
        let reader = scene.reader(memory_only());
        run(async {
            for range in ranges {
                let bytes = reader
                    .read_archive(&scene.row, range.clone())
                    .await
                    .unwrap();
                assert!(bytes[..] == scene.tar[range.start as usize..range.end as usize]);
            }
        });
        (
            reader.fetched_bytes() - ends,
            scene.target.requests().len() - before - 2,
        )
    };
    let mib = 1 << 20;
    // At the begin of a frame: some chunks of it.
    let begin = 3 * mib..3 * mib + 4096;
    let (bytes, requests) = cost(std::slice::from_ref(&begin));
    assert!(bytes < 300_000, "{bytes}");
    assert_eq!(requests, 1);
    // At its end: all of it. The rest of a beginning is fetched when it is needed.
    let end = 4 * mib - 4096..4 * mib;
    let (bytes, _) = cost(std::slice::from_ref(&end));
    assert!((mib..mib + 140_000).contains(&bytes), "{bytes}");
    let (bytes, _) = cost(&[begin.clone(), end.clone(), begin]);
    assert!(bytes < mib + 600_000, "{bytes}");
    // Neighbours come with one request.
    let (bytes, requests) = cost(std::slice::from_ref(&(mib / 2..3 * mib + mib / 2)));
    assert!(bytes < 4 * mib + 70_000, "{bytes}");
    assert_eq!(requests, 1);
}

/// Kind: reading in order waits for each frame.
#[test]
fn frames_are_loaded_ahead_of_a_reader_in_order() {
    let frames: Vec<(u64, usize)> = (1..9).map(|seed| (seed, 1 << 20)).collect();
    let scene = Scene::new(&frames, Table::Right);
    let reader = scene.reader(memory_only());
    run(async {
        let mib = 1 << 20;
        for at in 0..3 {
            reader
                .read_archive(&scene.row, at * mib..at * mib + mib)
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = scene.target.requests().len();
        reader
            .read_archive(&scene.row, 3 * mib..4 * mib)
            .await
            .unwrap();
        reader
            .read_archive(&scene.row, 4 * mib..4 * mib + 10)
            .await
            .unwrap();
        let later = scene.target.requests();
        // Both were here; what is fetched now is what comes after them.
        assert!(
            later[before..].iter().all(|range| range.start > 5 * mib),
            "{later:?}"
        );
    });
}

/// Kind: a target without ranges sends an archive for each part of it.
#[test]
fn a_target_without_ranges_sends_an_archive_once() {
    let scene = Scene::new(&[(1, 900_000), (2, 900_000)], Table::Right);
    scene.target.has_ranges.store(false, Ordering::Relaxed);
    let cache = tempfile::tempdir().unwrap();
    let small = RangeReaderOptions {
        cache_bytes: 1 << 20,
        ..with_cache(cache.path())
    };
    for (options, again) in [
        (memory_only(), 1),
        (small, 1),
        (with_cache(cache.path()), 0),
    ] {
        for expected in [1, again] {
            let before = scene.target.streams.load(Ordering::Relaxed);
            let reader = scene.reader(options.clone());
            run(async {
                for at in [0_u64, 1_000_000, 1_799_000, 5] {
                    let read = reader.read_archive(&scene.row, at..at + 900).await.unwrap();
                    assert!(read[..] == scene.tar[at as usize..at as usize + 900]);
                }
            });
            let streams = scene.target.streams.load(Ordering::Relaxed) - before;
            assert_eq!(streams, expected);
        }
    }
    assert_eq!(scene.target.requests(), []);
}

/// Kind: an archive in cold storage counts as damaged.
#[test]
fn cold_storage_is_named_with_its_remedy() {
    let scene = Scene::new(&[(1, 9000)], Table::Right);
    scene.target.freeze();
    let error = run(scene.reader(memory_only()).read_archive(&scene.row, 0..10)).unwrap_err();
    assert!(matches!(error, RangeError::Frozen(_)));
    assert!(error.to_string().contains("restore --thaw"), "{error}");
}
