//! Reading an object to its end over a network that breaks off.
//!
//! `object_store` resumes a body only where the server sends entity tags, and takes a short body
//! for a complete one where it sends no length. This knows how long the object is, asks again for
//! the rest from where a body stopped, and gives up after a few attempts in a row that brought next
//! to nothing: two at least, and no more once the retry budget is used up.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::error_text::explain;

/// A body that brought this much was worth its request.
const PROGRESS_BYTES: u64 = 1 << 20;
const MAX_FRUITLESS: u32 = 5;
/// So many are made even if each takes as long as it may.
const MIN_FRUITLESS: u32 = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });

type Body = BoxStream<'static, object_store::Result<Bytes>>;

/// It was tried often enough.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server sent {got} of {promised} bytes, and {tries} tries brought no more{}",
    cause.as_ref().map_or(String::new(), |cause| format!(" ({})", explain(cause)))
)]
pub(crate) struct BrokeOff {
    tries: u32,
    got: u64,
    promised: u64,
    #[source]
    cause: Option<object_store::Error>,
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    rest: Range<u64>,
    body: Option<Body>,
    fruitless: u32,
    since_break: u64,
    /// When it last got anywhere.
    progress: Instant,
    retry: Duration,
}

/// An opened object: its size, and the bytes from the start of the range asked for.
pub(crate) struct Opened {
    /// Of the whole object.
    pub bytes: u64,
    /// Where the range ends: at the object's end at the latest.
    pub end: u64,
    body: Body,
}

/// Asks for `path` from `start` to `end` (`None`: its end). The range must not be empty.
pub(crate) async fn open(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    start: u64,
    end: Option<u64>,
) -> object_store::Result<Opened> {
    let range = match (start, end) {
        (start, Some(end)) => Some(GetRange::Bounded(start..end)),
        (0, None) => None,
        (start, None) => Some(GetRange::Offset(start)),
    };
    let options = GetOptions {
        range,
        ..GetOptions::default()
    };
    let result = store.get_opts(path, options).await?;
    Ok(Opened {
        bytes: result.meta.size,
        end: end.map_or(result.meta.size, |end| end.min(result.meta.size)),
        body: result.into_stream(),
    })
}

/// The bytes of `opened`, which started at `start`, all of them or an error. `retry`: for how long what fails is
/// tried again.
pub(crate) fn read(
    store: Arc<dyn ObjectStore>,
    path: Path,
    start: u64,
    opened: Opened,
    retry: Duration,
) -> BoxStream<'static, object_store::Result<Bytes>> {
    let reader = Reader {
        store,
        path,
        rest: start..opened.end,
        body: Some(opened.body),
        fruitless: 0,
        since_break: 0,
        progress: Instant::now(),
        retry,
    };
    let next = |mut reader: Reader| async move {
        let bytes = reader.next().await?;
        Ok(bytes.map(|bytes| (bytes, reader)))
    };
    futures::stream::try_unfold(reader, next).boxed()
}

impl Reader {
    async fn next(&mut self) -> object_store::Result<Option<Bytes>> {
        while self.rest.start < self.rest.end {
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let end = Some(self.rest.end);
                    let opened = open(&self.store, &self.path, self.rest.start, end).await?;
                    self.body.insert(opened.body)
                }
            };
            match body.next().await {
                Some(Ok(mut bytes)) if !bytes.is_empty() => {
                    let wanted = self.rest.end - self.rest.start;
                    bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                    self.rest.start += bytes.len() as u64;
                    self.since_break += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => self.broke_off(Some(error)).await?,
                None => self.broke_off(None).await?,
            }
        }
        Ok(None)
    }

    async fn broke_off(&mut self, error: Option<object_store::Error>) -> object_store::Result<()> {
        self.body = None;
        if self.since_break >= PROGRESS_BYTES {
            self.fruitless = 0;
            self.progress = Instant::now();
        }
        self.since_break = 0;
        self.fruitless += 1;
        let used_up = self.progress.elapsed() > self.retry && self.fruitless >= MIN_FRUITLESS;
        if used_up || self.fruitless > MAX_FRUITLESS {
            return Err(object_store::Error::Generic {
                store: "target",
                source: Box::new(BrokeOff {
                    tries: self.fruitless,
                    got: self.rest.start,
                    promised: self.rest.end,
                    cause: error,
                }),
            });
        }
        tokio::time::sleep(pause(self.fruitless)).await;
        Ok(())
    }
}

/// Doubles from time to time, give or take half.
pub(crate) fn pause(attempt: u32) -> Duration {
    let mut random = [0; 1];
    let jitter = match getrandom::fill(&mut random) {
        Ok(()) => 0.5 + f64::from(random[0]) / 255.0,
        Err(_) => 1.0,
    };
    (FIRST_PAUSE * 2u32.saturating_pow(attempt.min(6))).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
        ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };

    /// Ends every body after so many bytes, as if it were complete.
    #[derive(Debug)]
    struct Short(InMemory, usize);

    impl std::fmt::Display for Short {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("short")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Short {
        async fn put_opts(&self, at: &Path, p: PutPayload, o: PutOptions) -> Result<PutResult> {
            self.0.put_opts(at, p, o).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, options).await
        }
        async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
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
            paths: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.0.delete_stream(paths)
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    fn read_all(short_bytes: usize, content: &[u8], start: u64) -> Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let memory = InMemory::new();
            let path = Path::from("x");
            memory.put(&path, content.to_vec().into()).await?;
            let store: Arc<dyn ObjectStore> = Arc::new(Short(memory, short_bytes));
            let opened = open(&store, &path, start, None).await?;
            let pieces = read(store, path, start, opened, Duration::from_secs(60));
            let pieces: Vec<Bytes> = pieces.try_collect().await?;
            Ok(pieces.concat())
        })
    }

    #[test]
    fn a_short_body_is_never_taken_for_the_whole() {
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
