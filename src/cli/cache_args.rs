//! What a command that looks into snapshots may keep on this machine: ciphertext on disk, decrypted
//! frames in memory.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::failure::Failure;
use crate::base::user_dirs;
use crate::config::parse_size;
use crate::restore::RangeReaderOptions;

/// Most bytes in the cache unless `--cache` says otherwise.
const CACHE_BYTES: u64 = 2_000_000_000;
/// The least memory: some frames, or nothing would be read twice without being decrypted twice.
const LEAST_MEMORY_BYTES: u64 = 32 << 20;

/// The cache of a command that reads parts of archives.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheArgs {
    /// Where to keep what was fetched, as it is on the target (encrypted): a directory, `none`, or
    /// how much, such as 500MB [default: ~/.cache/sealift, 2GB]
    #[arg(long, value_name = "DIR|none|SIZE", value_parser = parse_cache)]
    cache: Option<CacheChoice>,
    /// Most memory for decrypted content
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_memory)]
    memory: u64,
}

/// What `--cache` says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CacheChoice {
    Nothing,
    Dir(PathBuf),
    Bytes(u64),
}

fn parse_cache(text: &str) -> Result<CacheChoice, String> {
    if text == "none" {
        return Ok(CacheChoice::Nothing);
    }
    match parse_size(text) {
        Ok(0) => Ok(CacheChoice::Nothing),
        Ok(bytes) => Ok(CacheChoice::Bytes(bytes)),
        Err(_) if text.is_empty() => Err("a directory, none or a size is needed".to_owned()),
        Err(_) => Ok(CacheChoice::Dir(PathBuf::from(text))),
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        LEAST_MEMORY_BYTES.. => parse_size(text),
        _ => Err(format!(
            "at least {}MiB are needed",
            LEAST_MEMORY_BYTES >> 20
        )),
    }
}

impl CacheArgs {
    /// Returns what a reader may use, and makes the directory of the cache. A directory that the
    /// operator named must be usable; without the usual one a warning is printed and nothing is
    /// kept.
    pub(super) fn options(&self, context: &Context) -> Result<RangeReaderOptions, Failure> {
        let (dir, bytes) = match &self.cache {
            Some(CacheChoice::Nothing) => (None, 0),
            Some(CacheChoice::Dir(dir)) => {
                let made = make_private(dir);
                made.map_err(|error| {
                    Failure::usage(format!("cannot use the cache {}: {error}", dir.display()))
                        .hint("give another directory, or --cache none")
                })?;
                (Some(dir.clone()), CACHE_BYTES)
            }
            Some(CacheChoice::Bytes(bytes)) => (usual_dir(context), *bytes),
            None => (usual_dir(context), CACHE_BYTES),
        };
        Ok(RangeReaderOptions {
            cache_bytes: if dir.is_some() { bytes } else { 0 },
            cache_dir: dir,
            memory_bytes: self.memory,
        })
    }
}

/// Returns the user's cache directory of this program. `None`: this user has none, or it cannot be
/// made.
fn usual_dir(context: &Context) -> Option<PathBuf> {
    let dir = user_dirs::cache_dir()?.join("sealift");
    match make_private(&dir) {
        Ok(()) => Some(dir),
        Err(error) if user_dirs::is_home_of_another_user(&error) => None,
        Err(error) => {
            context.warn_now(&format!(
                "nothing that is fetched is kept: cannot use the cache {}: {error}",
                dir.display()
            ));
            None
        }
    }
}

/// Makes a directory that only this user can enter. One that exists stays as it is.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_a_directory_or_a_size_or_none() {
        assert_eq!(parse_cache("none"), Ok(CacheChoice::Nothing));
        assert_eq!(parse_cache("0"), Ok(CacheChoice::Nothing));
        assert_eq!(parse_cache("500MB"), Ok(CacheChoice::Bytes(500_000_000)));
        for dir in ["./500MB", "/var/cache/x", "cache", "none/"] {
            assert_eq!(parse_cache(dir), Ok(CacheChoice::Dir(dir.into())), "{dir}");
        }
        assert!(parse_cache("").is_err());
        assert_eq!(parse_memory("256MiB"), Ok(256 << 20));
        assert!(parse_memory("1MiB").is_err());
    }
}
