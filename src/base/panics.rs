//! Turns a panic into the failure of the one piece of work that it ended.
//!
//! Our code or a library may panic. A panic in the work for one target must not end the work for
//! the others, so each such piece of work runs in [`caught`]. The program's panic hook calls
//! [`noted`]: if the panic will be caught, the error carries its message and its place in the
//! source, and nothing is printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::task::Poll;

use futures::Stream;
use futures::StreamExt as _;

/// Longest message that is kept, in characters.
const MOST_CHARS: usize = 300;

thread_local! {
    /// How many calls of [`caught_now`] this thread is in.
    static CATCHERS: Cell<usize> = const { Cell::new(0) };
    /// Message and source line of this thread's last panic.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic ended the work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an internal error (a fault of the program) ended this work: {what}")]
pub struct Panicked {
    what: String,
}

impl Panicked {
    /// Makes the error from the payload that a panicked thread leaves.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let noted = LAST.take();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            what: noted.unwrap_or_else(|| shortened(text.unwrap_or("no message"))),
        }
    }

    /// Makes the error from that of a task that panicked or was cancelled.
    pub fn of_task(error: tokio::task::JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::of(&*payload),
            Err(_) => Self {
                what: "its task was cancelled".to_owned(),
            },
        }
    }
}

/// Notes a panic for the code that catches it. Returns message and source line if nothing will
/// catch it: the caller prints them.
pub fn noted(info: &PanicHookInfo<'_>) -> Option<String> {
    let message = shortened(info.payload_as_str().unwrap_or("no message"));
    let what = match info.location() {
        Some(at) => format!("{message} ({}:{})", place(at.file()), at.line()),
        None => message,
    };
    LAST.set(Some(what.clone()));
    (CATCHERS.get() == 0).then_some(what)
}

/// Returns the path of a source file without the machine's path to the library.
fn place(file: &str) -> &str {
    match file.split_once("/registry/src/") {
        Some((_, rest)) => rest.split_once('/').map_or(rest, |(_, within)| within),
        None => file,
    }
}

/// Returns the first line, without control characters, which a terminal would obey.
fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let plain = line.chars().filter(|c| !c.is_control());
    plain.take(MOST_CHARS).collect()
}

/// Counts in [`CATCHERS`] until it is dropped, also by a panic.
struct Catching;

impl Catching {
    fn begin() -> Self {
        CATCHERS.set(CATCHERS.get() + 1);
        Self
    }
}

impl Drop for Catching {
    fn drop(&mut self) {
        CATCHERS.set(CATCHERS.get().saturating_sub(1));
    }
}

/// Runs `work` and returns its value; a panic in it is an error.
pub fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let _catching = Catching::begin();
        work()
    }));
    done.map_err(|payload| Panicked::of(&*payload))
}

/// Awaits `work` and returns its value; a panic in it is an error. Values that `work` borrows may
/// then be half changed.
pub async fn caught<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = Box::pin(work);
    std::future::poll_fn(
        move |context| match caught_now(|| work.as_mut().poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
    )
    .await
}

/// Returns the stream `items`; after a panic in it, it yields the item that `failed` makes of the
/// panic, and ends.
pub fn caught_items<S, F>(items: S, failed: F) -> impl Stream<Item = S::Item> + Send + use<S, F>
where
    S: Stream + Send + Unpin,
    F: FnOnce(Panicked) -> S::Item + Send,
{
    let mut open = Some((items, failed));
    futures::stream::poll_fn(move |context| {
        let Some((items, _)) = &mut open else {
            return Poll::Ready(None);
        };
        match caught_now(|| items.poll_next_unpin(context)) {
            Ok(next) => next,
            Err(panicked) => Poll::Ready(open.take().map(|(_, failed)| failed(panicked))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(work: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn a_panic_fails_its_own_work_only() {
        let number = || "x".parse::<u8>();
        let panicked = caught_now(|| number().unwrap()).unwrap_err();
        let text = panicked.to_string();
        assert!(
            text.contains("internal error") && text.contains("InvalidDigit"),
            "{text}"
        );
        assert_eq!(caught_now(|| 1), Ok(1));
        assert_eq!(CATCHERS.get(), 0);
        let done = block_on(async {
            let first = caught(async {
                futures::future::ready(()).await;
                panic!("line one\nline two \x1b[2J")
            });
            let first: Result<(), Panicked> = first.await;
            (first.unwrap_err().to_string(), caught(async { 2 }).await)
        });
        assert!(done.0.ends_with(": line one"), "{}", done.0);
        assert_eq!(done.1, Ok(2));
    }

    #[test]
    fn a_stream_ends_with_the_panic() {
        let items = futures::stream::iter(0..5).map(|n| match n {
            3 => panic!("three"),
            n => Ok(n),
        });
        let all: Vec<_> = block_on(caught_items(items, Err).collect());
        assert_eq!(all[..3], [Ok(0), Ok(1), Ok(2)]);
        let last = all[3].as_ref().unwrap_err().to_string();
        assert!(all.len() == 4 && last.contains("three"), "{all:?}");
    }

    #[test]
    fn a_source_line_names_no_machine() {
        let file = "/home/me/.cargo/registry/src/index.x-1/some_store-0.14.2/src/aws/credential.rs";
        assert_eq!(place(file), "some_store-0.14.2/src/aws/credential.rs");
        assert_eq!(place("src/cli.rs"), "src/cli.rs");
    }
}
