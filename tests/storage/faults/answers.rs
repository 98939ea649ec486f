//! A server that answers, but not what it should.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;

use super::scene::{Expected, Scene, seconds};
use crate::support::s3::{S3Server, error_answer};

/// Which requests go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// What writes.
    Puts,
    /// What makes a snapshot visible.
    Manifests,
}

#[derive(Clone)]
struct Answer {
    which: Which,
    status: u16,
    code: &'static str,
    retry_after: Option<&'static str>,
}

fn answer(which: Which, status: u16, code: &'static str) -> Answer {
    Answer {
        which,
        status,
        code,
        retry_after: None,
    }
}

impl Answer {
    fn is_for(&self, method: &Method, path: &str) -> bool {
        match self.which {
            Which::All => true,
            Which::Puts => method == Method::PUT,
            Which::Manifests => {
                method == Method::PUT && path.ends_with(".json") && path.contains("/manifests/")
            }
        }
    }

    /// As some servers do, it names the key, and what was signed.
    fn make(&self, access_key: &str) -> http::Response<String> {
        let beside = format!("<AWSAccessKeyId>{access_key}</AWSAccessKeyId></Error>");
        let mut response =
            error_answer(self.status, self.code).map(|body| body.replace("</Error>", &beside));
        if let Some(value) = self.retry_after {
            response
                .headers_mut()
                .insert("retry-after", value.parse().unwrap());
        }
        response
    }
}

/// A server that gives the answer in its hand, and notes when.
struct Faulty {
    server: S3Server,
    answer: Arc<Mutex<Option<Answer>>>,
    given: Arc<Mutex<Vec<Instant>>>,
    /// How often it is given, if not always.
    left: Arc<Mutex<Option<u32>>>,
}

impl Faulty {
    fn start() -> Self {
        let answer: Arc<Mutex<Option<Answer>>> = Arc::default();
        let given: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let left: Arc<Mutex<Option<u32>>> = Arc::default();
        let (its, noted, rest) = (answer.clone(), given.clone(), left.clone());
        let key: Arc<Mutex<String>> = Arc::default();
        let named = key.clone();
        let hook = move |request: &http::Request<hyper::body::Incoming>| {
            let answer = its.lock().unwrap().clone()?;
            let is_its = answer.is_for(request.method(), request.uri().path());
            let is_left = || match &mut *rest.lock().unwrap() {
                Some(0) => false,
                Some(left) => {
                    *left -= 1;
                    true
                }
                None => true,
            };
            (is_its && is_left()).then(|| {
                noted.lock().unwrap().push(Instant::now());
                answer.make(&named.lock().unwrap())
            })
        };
        let server = S3Server::start_with(Arc::new(hook));
        *key.lock().unwrap() = server.access_key.clone();
        Self {
            server,
            answer,
            given,
            left,
        }
    }

    fn set(&self, answer: Option<Answer>) {
        *self.answer.lock().unwrap() = answer;
    }
}

/// The story of a target that answers so.
fn answering(answer: &Answer, within: Duration, says: &[&str]) {
    let faulty = Faulty::start();
    let scene = Scene::with_s3(&faulty.server, &faulty.server.endpoint());
    scene.survives(&Expected { within, says }, |_, on| {
        faulty.set(on.then(|| answer.clone()));
    });
}

#[test]
fn a_server_error_is_told_and_made_up_for() {
    let says = ["500 Internal Server Error", "InternalError"];
    answering(&answer(Which::All, 500, "InternalError"), seconds(8), &says);
}

#[test]
fn a_server_error_on_writing_is_told_and_made_up_for() {
    let says = ["cannot put", "500 Internal Server Error", "InternalError"];
    answering(
        &answer(Which::Puts, 500, "InternalError"),
        seconds(8),
        &says,
    );
}

#[test]
fn a_server_error_at_the_very_end_is_told_and_made_up_for() {
    let says = ["cannot put", "manifests/", "500 Internal Server Error"];
    answering(
        &answer(Which::Manifests, 500, "InternalError"),
        seconds(8),
        &says,
    );
}

#[test]
fn a_busy_server_is_told_and_made_up_for() {
    let says = ["503 Service Unavailable", "SlowDown", "busy"];
    answering(&answer(Which::All, 503, "SlowDown"), seconds(8), &says);
}

#[test]
fn a_server_too_busy_to_write_is_told_and_made_up_for() {
    let says = ["503 Service Unavailable", "SlowDown", "busy"];
    answering(&answer(Which::Puts, 503, "SlowDown"), seconds(8), &says);
}

#[test]
fn wrong_credentials_are_told_and_made_up_for() {
    for (code, says) in [
        ("InvalidAccessKeyId", "does not accept the credentials"),
        ("SignatureDoesNotMatch", "does not accept the credentials"),
        ("AccessDenied", "may not do this"),
    ] {
        answering(&answer(Which::All, 403, code), seconds(5), &[code, says]);
    }
}

#[test]
fn credentials_that_may_not_write_are_told_and_made_up_for() {
    let says = ["cannot put", "AccessDenied", "may not do this"];
    answering(&answer(Which::Puts, 403, "AccessDenied"), seconds(5), &says);
}

#[test]
fn a_clock_that_is_wrong_is_told_and_made_up_for() {
    let says = ["RequestTimeTooSkewed", "clock"];
    answering(
        &answer(Which::All, 403, "RequestTimeTooSkewed"),
        seconds(5),
        &says,
    );
}

fn full(status: u16, code: &'static str) {
    let says = ["cannot put", code, "full"];
    answering(&answer(Which::Puts, status, code), seconds(8), &says);
}

#[test]
fn a_bucket_that_is_not_there_is_told_and_made_up_for() {
    let says = ["no such bucket", "404 Not Found", "NoSuchBucket"];
    answering(&answer(Which::All, 404, "NoSuchBucket"), seconds(5), &says);
}

#[test]
fn a_bucket_of_another_region_is_told_and_made_up_for() {
    let says = ["cannot list", "redirect", "region"];
    answering(
        &answer(Which::All, 301, "PermanentRedirect"),
        seconds(5),
        &says,
    );
}

/// What a hotel's network answers to whatever is asked; and S3 itself, now and then.
#[test]
fn what_is_no_listing_is_not_taken_for_an_empty_one() {
    let says = ["cannot list", "answered 200 without a listing", "Welcome"];
    answering(&answer(Which::All, 200, "Welcome"), seconds(8), &says);
}

#[test]
fn a_full_target_is_told_and_made_up_for() {
    full(507, "XMinioStorageFull");
}

#[test]
fn a_full_target_that_calls_it_an_error_of_its_own_is_told_and_made_up_for() {
    full(500, "InsufficientStorage");
}

#[test]
fn a_quota_that_is_used_up_is_told_and_made_up_for() {
    full(403, "QuotaExceeded");
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    for (status, code) in [(429, "TooManyRequests"), (503, "SlowDown")] {
        let faulty = Faulty::start();
        let scene = Scene::with_s3(&faulty.server, &faulty.server.endpoint());
        scene.host.edit_config("retry = \"1s\"", "retry = \"3s\"");
        scene.change();
        faulty.set(Some(Answer {
            retry_after: Some("1"),
            ..answer(Which::All, status, code)
        }));
        let expected = Expected {
            within: seconds(8),
            says: &[code, "busy"],
        };
        scene.fails(&["backup"], 3, &expected);
        // Two listings are under way at once: of these, one at most comes before a second is over.
        let given = faulty.given.lock().unwrap().clone();
        assert!((4..=10).contains(&given.len()), "{} requests", given.len());
        for (nth, at) in given.iter().enumerate() {
            let soon = |other: &&Instant| **other - *at < Duration::from_millis(900);
            assert!(
                given[nth + 1..].iter().filter(soon).count() <= 1,
                "{given:?}"
            );
        }
        faulty.set(None);
        scene.exits(&["backup"], 0);
        scene.assert_converged();
    }
}

/// A pause that the server asks for in the middle of a run costs that pause only.
#[test]
fn a_server_that_is_busy_for_a_moment_gets_everything_in_one_run() {
    let faulty = Faulty::start();
    let scene = Scene::with_s3(&faulty.server, &faulty.server.endpoint());
    scene.host.edit_config("retry = \"1s\"", "retry = \"5s\"");
    scene.change();
    let busy = Answer {
        retry_after: Some("1"),
        ..answer(Which::Puts, 503, "SlowDown")
    };
    faulty.set(Some(busy));
    *faulty.left.lock().unwrap() = Some(1);
    let run = scene.exits(&["backup"], 0);
    assert!(run.took >= seconds(1), "{:?}", run.took);
    scene.assert_converged();
}

#[test]
fn a_server_that_asks_for_more_time_than_there_is_is_left_alone() {
    let faulty = Faulty::start();
    let scene = Scene::with_s3(&faulty.server, &faulty.server.endpoint());
    let asks = Answer {
        retry_after: Some("3600"),
        ..answer(Which::All, 503, "SlowDown")
    };
    let expected = Expected {
        within: seconds(4),
        says: &["503", "3600 s", "retry"],
    };
    scene.survives(&expected, |_, on| {
        faulty.set(on.then(|| asks.clone()));
    });
    let given = faulty.given.lock().unwrap();
    assert!(given.len() <= 2 * 2, "{} requests", given.len());
}
