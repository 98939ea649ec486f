//! Listings of a hostile server that do not end, or would fill the memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift::storage::{Environment, open_with};

use super::block_on;
use crate::support::s3::{BUCKET, S3Server};

/// Part `n` of a listing, with one object of its own; `next` is the part that is to follow.
fn part(n: usize, next: usize) -> http::Response<String> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>{BUCKET}</Name><IsTruncated>true</IsTruncated>\
         <NextContinuationToken>part-{next}</NextContinuationToken><Contents><Key>p/h/manifests/{n}</Key>\
         <LastModified>2026-04-07T06:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>1</Size></Contents>\
         </ListBucketResult>"
    );
    http::Response::builder().status(200).body(body).unwrap()
}

/// Why listing fails where `answer` says what comes for a part (the first is 0).
fn refused(answer: impl Fn(usize) -> http::Response<String> + Send + Sync + 'static) -> String {
    let server = S3Server::start_with(Arc::new(move |request| {
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("list-type=2") {
            return None;
        }
        let asked = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("continuation-token=part-"));
        Some(answer(asked.map_or(0, |n| n.parse().unwrap())))
    }));
    let environment = Environment::from_pairs(server.variables());
    let target = open_with(&server.spec("p"), &environment).unwrap();
    let began = Instant::now();
    let error = block_on(target.list("h/manifests/")).unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    error.source.to_string()
}

#[test]
fn a_listing_that_names_the_same_part_for_ever_ends_with_an_error() {
    let said = refused(|n| part(n, 1));
    assert!(said.contains("round in circles"), "{said}");
}

#[test]
fn a_listing_whose_parts_form_a_circle_ends_with_an_error() {
    for (before, circle) in [(1, 2), (3, 5)] {
        let said = refused(move |n| {
            part(
                n,
                if n + 1 == before + circle {
                    before
                } else {
                    n + 1
                },
            )
        });
        assert!(said.contains("round in circles"), "{said}");
    }
}

#[test]
fn an_answer_beyond_all_bounds_is_not_read() {
    let said = refused(|_| {
        let body = "<ListBucketResult>".to_owned() + &" ".repeat(65 << 20);
        http::Response::builder().status(200).body(body).unwrap()
    });
    assert!(said.contains("more than 64 MiB"), "{said}");
}
