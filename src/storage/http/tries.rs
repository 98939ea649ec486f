//! Counts the tries of a request to an object store.
//!
//! `object_store` retries a request within one call of ours and shows its count only in its text.
//! But each try passes through our own HTTP service ([`super::exchange`]), in the task of the call.
//! So [`counted`] opens a count for the call, and the service notes every try in it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ::http::{Method, Uri};
use object_store::client::HttpRequest;

use crate::storage::retry::with_tries;

tokio::task_local! {
    /// The request that the current call tried last.
    static LAST_REQUEST: RefCell<Option<TriedRequest>>;
}

#[derive(Debug)]
struct TriedRequest {
    method: Method,
    uri: Uri,
    tries: u32,
    began: Instant,
}

/// The number of tries of one request, and the time from the first try to the last answer. Zero: no
/// request is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub count: u32,
    pub took: Duration,
}

impl Tries {
    /// Appends the figures to `what`, if there was more than one try.
    pub(crate) fn appended_to(self, what: String) -> String {
        with_tries(what, self.count, self.took)
    }
}

/// Awaits `call` and returns its result with the tries of its last request: a call that makes
/// several requests fails with the last.
pub(crate) async fn counted<T>(call: impl Future<Output = T>) -> (T, Tries) {
    let call = async {
        let result = call.await;
        let tries = LAST_REQUEST.with(|last| match &*last.borrow() {
            Some(last) => Tries {
                count: last.tries,
                took: last.began.elapsed(),
            },
            None => Tries::default(),
        });
        (result, tries)
    };
    LAST_REQUEST.scope(RefCell::default(), call).await
}

/// Notes a try of `request` for the call to which it belongs.
pub(crate) fn note(request: &HttpRequest) {
    let (method, uri) = (request.method(), request.uri());
    // Outside of a counted call there is nothing to note.
    let _ = LAST_REQUEST.try_with(|last| match &mut *last.borrow_mut() {
        Some(last) if last.method == *method && last.uri == *uri => last.tries += 1,
        last => {
            *last = Some(TriedRequest {
                method: method.clone(),
                uri: uri.clone(),
                tries: 1,
                began: Instant::now(),
            });
        }
    });
}

/// Returns when the current call tried its last request for the first time. `None`: outside of a
/// counted call.
pub(crate) fn began() -> Option<Instant> {
    let began = LAST_REQUEST.try_with(|last| last.borrow().as_ref().map(|last| last.began));
    began.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &'static str) -> HttpRequest {
        let mut request = HttpRequest::new(String::new().into());
        *request.uri_mut() = Uri::from_static(uri);
        request
    }

    #[test]
    fn the_tries_of_the_last_request_are_counted_per_call() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            note(&request("http://store/outside"));
            let call = async {
                note(&request("http://store/first"));
                note(&request("http://store/first"));
                let (_, inner) = counted(async { note(&request("http://store/inner")) }).await;
                assert_eq!(inner.count, 1);
                for _ in 0..3 {
                    note(&request("http://store/second"));
                }
            };
            assert_eq!(counted(call).await.1.count, 3);
            assert_eq!(counted(async {}).await.1, Tries::default());
        });
    }
}
