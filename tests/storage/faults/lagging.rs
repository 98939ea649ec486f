//! A store whose listings lag behind what it holds: an object is there, and can be read by its name, but the
//! first few listings do not show it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::scene::Scene;
use crate::support::s3::S3Server;
use crate::support::tree::describe;

/// Takes objects out of listings until a number of listings would have shown them.
struct Lag {
    listings: AtomicU32,
    seen: Mutex<HashMap<String, u32>>,
    hidden: AtomicU32,
}

impl Lag {
    fn rewrite(&self, uri: &http::Uri, body: &str) -> Option<String> {
        if !uri.query()?.contains("list-type=2") {
            return None;
        }
        const END: &str = "</Contents>";
        let mut seen = self.seen.lock().unwrap();
        let mut left = String::new();
        for part in body.split_inclusive(END) {
            let Some(at) = part.find("<Contents>").filter(|_| part.ends_with(END)) else {
                left += part;
                continue;
            };
            let (before, object) = part.split_at(at);
            let (_, key) = object.split_once("<Key>").unwrap();
            let (key, _) = key.split_once("</Key>").unwrap();
            let times = seen.entry(key.to_owned()).or_default();
            *times += 1;
            left += before;
            match *times > self.listings.load(Ordering::Relaxed) {
                true => left += object,
                false => {
                    self.hidden.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Some(left)
    }
}

fn lagging_by(listings: u32) {
    let lag = Arc::new(Lag {
        listings: AtomicU32::new(listings),
        seen: Mutex::default(),
        hidden: AtomicU32::new(0),
    });
    let its = lag.clone();
    let rewrite = move |uri: &http::Uri, body: &str| its.rewrite(uri, body);
    let server = S3Server::start_between(Arc::new(|_| None), Arc::new(rewrite));
    let scene = Scene::with_s3(&server, &server.endpoint());
    for round in 0..4 {
        scene.change();
        let run = scene.run(&["backup"]);
        // What is there and is not listed is no loss, and is not sent again.
        assert_eq!(
            run.code,
            Some(0),
            "lag {listings}, round {round}: {}",
            run.said
        );
        assert!(!run.said.contains("warning"), "{}", run.said);
        scene.assert_healthy_has_all();
        scene.published();
        // What the bucket holds, whatever it shows.
        let files = server.bucket_dir().join("off/site");
        let out = scene.host.restore_from(&files, &format!("bucket-{round}"));
        assert_eq!(describe(&out.join("data")), describe(&scene.host.data()));
    }
    assert!(lag.hidden.load(Ordering::Relaxed) > 0, "nothing lagged");
    lag.listings.store(0, Ordering::Relaxed);
    scene.change();
    scene.exits(&["backup"], 0);
    scene.assert_converged();
}

#[test]
fn listings_that_lag_by_one_lose_nothing() {
    lagging_by(1);
}

#[test]
fn listings_that_lag_by_a_few_lose_nothing() {
    lagging_by(3);
}

#[test]
fn listings_that_lag_by_days_lose_nothing() {
    lagging_by(1000);
}
