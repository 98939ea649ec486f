//! What becomes of a panic: the failure of the work that it ended, with its message and its place, and of nothing else.
//!
//! A library that meets what it does not expect may panic, and so may we. The work for one target must not take the
//! others along, so each piece of such work runs in [`caught`]. The program's hook calls [`heard`], which knows
//! whether somebody catches: then the failure has the message and the place, and nothing is printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::task::Poll;

use futures::Stream;
use futures::StreamExt as _;

/// Of a message, so much is kept.
const MOST_CHARS: usize = 300;

thread_local! {
    /// How many catchers are around what this thread does now.
    static CATCHERS: Cell<usize> = const { Cell::new(0) };
    /// Message and place of this thread's last panic.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Work that a panic ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an internal error (a fault of the program) ended this work: {what}")]
pub struct Panicked {
    what: String,
}

impl Panicked {
    /// From what a thread or a task that panicked leaves.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let told = LAST.take();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            what: told.unwrap_or_else(|| shortened(text.unwrap_or("no message"))),
        }
    }

    /// From a task that did not come to its end.
    pub fn of_task(error: tokio::task::JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::of(&*payload),
            Err(_) => Self {
                what: "its task was given up".to_owned(),
            },
        }
    }
}

/// Notes a panic for the code that catches it. Returns message and place if nothing catches it: the caller prints them.
pub fn heard(info: &PanicHookInfo<'_>) -> Option<String> {
    let message = shortened(info.payload_as_str().unwrap_or("no message"));
    let what = match info.location() {
        Some(at) => format!("{message} ({}:{})", place(at.file()), at.line()),
        None => message,
    };
    LAST.set(Some(what.clone()));
    (CATCHERS.get() == 0).then_some(what)
}

/// A library's file without the machine's path to it.
fn place(file: &str) -> &str {
    match file.split_once("/registry/src/") {
        Some((_, rest)) => rest.split_once('/').map_or(rest, |(_, within)| within),
        None => file,
    }
}

/// The first line, without what a terminal would act upon.
fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let plain = line.chars().filter(|c| !c.is_control());
    plain.take(MOST_CHARS).collect()
}

/// Counts as a catcher until it is dropped, also by a panic.
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

/// Does `work`; a panic in it is an error.
pub fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let _catching = Catching::begin();
        work()
    }));
    done.map_err(|payload| Panicked::of(&*payload))
}

/// Does `work`; a panic in it is an error. What `work` borrows may be half done then.
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

/// `items`, which end with what `failed` makes of a panic.
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
    fn a_panic_is_the_failure_of_its_work_alone() {
        let number = || "x".parse::<u8>();
        let panicked = caught_now(|| number().unwrap()).unwrap_err();
        let told = panicked.to_string();
        assert!(
            told.contains("internal error") && told.contains("InvalidDigit"),
            "{told}"
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
    fn items_end_with_the_panic() {
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
    fn a_place_names_no_machine() {
        let file = "/home/me/.cargo/registry/src/index.x-1/some_store-0.14.2/src/aws/credential.rs";
        assert_eq!(place(file), "some_store-0.14.2/src/aws/credential.rs");
        assert_eq!(place("src/cli.rs"), "src/cli.rs");
    }
}
