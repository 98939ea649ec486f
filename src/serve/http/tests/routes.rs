//! The table of routes: each path knows its methods, and the document describes exactly these.

use std::collections::BTreeSet;

use serde_json::Value;

use super::stand_in::TestAgent;
use crate::serve::http::api::OPENAPI;
use crate::serve::http::routes::ROUTES;

/// A path with a value for each variable segment.
fn filled(path: &str) -> String {
    path.replace("{stamp}", "20260407T060000Z")
        .replace("{id}", "12345678901234567890123456")
        .replace("{name}", "s3")
}

#[test]
fn the_document_describes_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.insert((method.to_ascii_uppercase(), path.clone()));
        }
    }
    let routes = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()));
    assert_eq!(routes.collect::<BTreeSet<_>>(), described);
    for route in ROUTES {
        let method = route.method.to_ascii_lowercase();
        let operation = &document["paths"][route.path][&method];
        let is_open = operation["security"] == serde_json::json!([]);
        let needs_none = route.needs == crate::serve::http::access::AccessLevel::None;
        assert_eq!(is_open, needs_none, "{method} {}", route.path);
    }
}

#[test]
fn every_path_answers_a_wrong_method_with_the_right_ones() {
    let agent = TestAgent::new();
    let paths: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).collect();
    for path in paths {
        let known = ROUTES.iter().filter(|route| route.path == path);
        let mut known: BTreeSet<&str> = known.map(|route| route.method).collect();
        if known.contains("GET") {
            known.insert("HEAD");
        }
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW",
        ] {
            if known.contains(method) {
                continue;
            }
            let reply = agent.send(method, &filled(path), &[], b"");
            reply.problem(405, "wrong_method");
            let allowed = reply.header("allow").split(", ").collect::<BTreeSet<_>>();
            assert_eq!(allowed, known, "{method} {path}");
        }
    }
    agent.get("/nothing").problem(404, "no_such_path");
    agent.get("/admin").problem(404, "no_such_path");
}

#[test]
fn every_answer_has_the_headers_against_misuse() {
    let agent = TestAgent::new();
    let paths = ROUTES
        .iter()
        .filter(|route| route.method == "GET" && route.path != "/api/v1/events");
    let mut paths: Vec<String> = paths.map(|route| filled(route.path)).collect();
    paths.extend(["/nothing".to_owned(), "/login".to_owned()]);
    for path in paths {
        let reply = agent.get(&path);
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(reply.header("cache-control"), "no-store");
        let cors = reply
            .headers
            .keys()
            .find(|name| name.starts_with("access-control"));
        assert_eq!(cors, None, "{path}");
        let is_page = reply.header("content-type").starts_with("text/html");
        let policy = reply.header("content-security-policy");
        assert_eq!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            is_page,
            "{path}"
        );
    }
    let head = agent.send("HEAD", "/health", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn a_base_path_is_seen_with_and_without_the_proxy_removing_it() {
    let agent = TestAgent::with(super::stand_in::Setup {
        serve: "base_path = \"/ops/sealift/\"\n".to_owned(),
        ..Default::default()
    });
    for path in ["/ops/sealift/health", "/health"] {
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    for path in ["/ops/sealift", "/ops/sealift/"] {
        let page = agent.get(path);
        assert!(
            page.body.contains("action=\"/ops/sealift/api/v1/runs\""),
            "{}",
            page.body
        );
    }
    agent.get("/ops/health").problem(404, "no_such_path");
    agent.get("/ops/sealifthealth").problem(404, "no_such_path");
}
