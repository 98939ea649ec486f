//! Reads an object to its end over a network that breaks off.
//!
//! `object_store` resumes a body only if the server sends entity tags, and takes a short body for a
//! complete one if it sends no length. This reader knows the object's size, requests the rest from
//! where a body stopped, and gives up after a few tries in a row that brought next to nothing: at
//! least two, and no more once the retry budget is used up.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::faults::BrokeOff;
use super::store_error::{StoreError, attempt};
use crate::storage::retry::jittered_pause;

/// A body that brings this much counts as progress.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Tries in a row without progress.
const MAX_FRUITLESS: u32 = 5;
/// Tries that are made even after the retry budget is used up.
const MIN_FRUITLESS: u32 = 2;

type ByteStream = BoxStream<'static, object_store::Result<Bytes>>;

struct ResumingReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Bytes of the object that are still to come.
    rest: Range<u64>,
    /// The current body. `None`: it broke off.
    body: Option<ByteStream>,
    /// Tries in a row without progress.
    fruitless: u32,
    /// Bytes that the current body brought.
    since_break: u64,
    /// Time of the last progress.
    progress: Instant,
    /// How long to retry without progress.
    retry: Duration,
}

/// An opened object: its size, and the bytes from the start of the requested range.
pub(crate) struct OpenedObject {
    /// Size of the whole object.
    pub bytes: u64,
    /// End of the range; at most the object's size.
    pub end: u64,
    body: ByteStream,
}

/// Requests `path` from `start` to `end` (`None`: the object's end). The range must not be empty.
pub(crate) async fn open(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    start: u64,
    end: Option<u64>,
) -> Result<OpenedObject, StoreError> {
    let range = match (start, end) {
        (start, Some(end)) => Some(GetRange::Bounded(start..end)),
        (0, None) => None,
        (start, None) => Some(GetRange::Offset(start)),
    };
    let options = GetOptions {
        range,
        ..GetOptions::default()
    };
    let result = attempt(store.get_opts(path, options)).await?;
    Ok(OpenedObject {
        bytes: result.meta.size,
        end: end.map_or(result.meta.size, |end| end.min(result.meta.size)),
        body: result.into_stream(),
    })
}

/// Streams all bytes of `opened`, which begins at `start`, or an error. `retry` is how long to
/// retry without progress.
pub(crate) fn read(
    store: Arc<dyn ObjectStore>,
    path: Path,
    start: u64,
    opened: OpenedObject,
    retry: Duration,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let reader = ResumingReader {
        store,
        path,
        rest: start..opened.end,
        body: Some(opened.body),
        fruitless: 0,
        since_break: 0,
        progress: Instant::now(),
        retry,
    };
    let next = |mut reader: ResumingReader| async move {
        let bytes = reader.next().await?;
        Ok(bytes.map(|bytes| (bytes, reader)))
    };
    futures::stream::try_unfold(reader, next).boxed()
}

impl ResumingReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.rest.start < self.rest.end {
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let end = Some(self.rest.end);
                    let opened = open(&self.store, &self.path, self.rest.start, end).await?;
                    self.body.insert(opened.body)
                }
            };
            match attempt(body.try_next()).await {
                Ok(Some(mut bytes)) if !bytes.is_empty() => {
                    let wanted = self.rest.end - self.rest.start;
                    bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                    self.rest.start += bytes.len() as u64;
                    self.since_break += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Some(_)) => {}
                Ok(None) => self.broke_off(None).await?,
                Err(error) => self.broke_off(Some(error)).await?,
            }
        }
        Ok(None)
    }

    /// Waits before the next request for the rest, or fails if that is pointless.
    async fn broke_off(&mut self, error: Option<StoreError>) -> Result<(), StoreError> {
        self.body = None;
        if self.since_break >= PROGRESS_BYTES {
            self.fruitless = 0;
            self.progress = Instant::now();
        }
        self.since_break = 0;
        self.fruitless += 1;
        let used_up = self.progress.elapsed() > self.retry && self.fruitless >= MIN_FRUITLESS;
        if used_up || self.fruitless > MAX_FRUITLESS {
            let broke_off = object_store::Error::Generic {
                store: "target",
                source: Box::new(BrokeOff {
                    tries: self.fruitless,
                    got: self.rest.start,
                    promised: self.rest.end,
                    said: error.as_ref().map(ToString::to_string).unwrap_or_default(),
                    cause: error.map(StoreError::into_inner),
                }),
            };
            return Err(broke_off.into());
        }
        tokio::time::sleep(jittered_pause(self.fruitless)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
        ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
        Result as StoreResult,
    };

    /// A store that ends every body after this many bytes, as if it were complete.
    #[derive(Debug)]
    struct Short(InMemory, usize);

    impl std::fmt::Display for Short {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("short")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Short {
        async fn put_opts(
            &self,
            at: &Path,
            p: PutPayload,
            o: PutOptions,
        ) -> StoreResult<PutResult> {
            self.0.put_opts(at, p, o).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> StoreResult<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, options).await
        }
        async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
            let mut result = self.0.get_opts(at, options).await?;
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            result.range = range.clone();
            let all = result.bytes().await?;
            let body = all.slice(..all.len().min(self.1));
            let body = futures::stream::iter([Ok(body)]).boxed();
            Ok(GetResult {
                payload: GetResultPayload::Stream(body),
                meta,
                range,
                attributes,
                extensions,
            })
        }
        fn delete_stream(
            &self,
            paths: BoxStream<'static, StoreResult<Path>>,
        ) -> BoxStream<'static, StoreResult<Path>> {
            self.0.delete_stream(paths)
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    fn read_all(short_bytes: usize, content: &[u8], start: u64) -> Result<Vec<u8>, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let memory = InMemory::new();
            let path = Path::from("x");
            attempt(memory.put(&path, content.to_vec().into())).await?;
            let store: Arc<dyn ObjectStore> = Arc::new(Short(memory, short_bytes));
            let opened = open(&store, &path, start, None).await?;
            let pieces = read(store, path, start, opened, Duration::from_secs(60));
            let pieces: Vec<Bytes> = pieces.try_collect().await?;
            Ok(pieces.concat())
        })
    }

    #[test]
    fn a_short_body_never_passes_for_the_whole() {
        let content: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let enough = 1 << 20;
        assert!(read_all(enough, &content, 0).unwrap() == content);
        assert!(read_all(enough, &content, 5).unwrap() == content[5..]);
        assert!(read_all(1_000, &content[..4_000], 0).unwrap() == content[..4_000]);
        let error = read_all(1_000, &content, 0).unwrap_err().to_string();
        assert!(error.contains("of 3000000 bytes"), "{error}");
        assert!(read_all(0, &content, 0).is_err());
    }
}
