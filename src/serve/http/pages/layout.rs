//! What all pages have in common.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::HttpParts;
use super::super::access::AccessLevel;
use super::super::answer;
use super::super::call::{FORM_TOKEN, HttpCall};
use super::super::problem::HttpProblem;
use super::super::style::STYLE;
use crate::jobs::verdict::Severity;

/// A page in the course of an answer.
pub(super) struct PageParts<'a> {
    pub(super) http: &'a Arc<HttpParts>,
    pub(super) call: &'a HttpCall,
}

impl PageParts<'_> {
    /// Returns the page.
    pub(super) fn page(&self, title: &str, content: &Markup) -> Response<Body> {
        let state = self.http.state();
        let host = state.config.host.as_str();
        let body = html! {
            header {
                p { a href=(self.call.link("/")) { "sealift" } " \u{b7} " strong { (host) } }
            }
            main { (content) }
            footer { (self.footer()) }
        };
        let markup = document(&format!("{title} - sealift {host}"), &body);
        answer::page(StatusCode::OK, markup.into_string())
    }

    fn footer(&self) -> Markup {
        let call = self.call;
        html! {
            p {
                "version " (env!("CARGO_PKG_VERSION")) " \u{b7} "
                a href=(call.link("/proof")) { "proof" } " \u{b7} "
                a href=(call.link("/openapi.json")) { "API" }
            }
            @if call.session.is_some() {
                (self.form("/logout", "Log out", &[]))
            } @else if call.level == AccessLevel::Write {
                p { "No token is set: every user of this machine may use this page." }
            }
        }
    }

    /// Whether the caller may change something.
    pub(super) fn may_write(&self) -> bool {
        self.call.level == AccessLevel::Write
    }

    /// Returns a form with one button, which posts `fields` to `path`.
    pub(super) fn form(&self, path: &str, button: &str, fields: &[(&str, &str)]) -> Markup {
        let token = self.http.sessions.form_token(self.call.session.as_deref());
        html! {
            form method="post" action=(self.call.link(path)) {
                input type="hidden" name=(FORM_TOKEN) value=(token);
                @for (name, value) in fields {
                    input type="hidden" name=(name) value=(value);
                }
                button type="submit" { (button) }
            }
        }
    }
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// Returns the page of an error.
pub(in super::super) fn problem(problem: HttpProblem, prefix: &str) -> Response<Body> {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let body = html! {
        main {
            h1 { (title) }
            p { (problem.detail) }
            @if let Some(next) = &problem.next {
                p { "Next: " (next) }
            }
            p { a href=(format!("{prefix}/")) { "To the main page" } }
        }
    };
    let mut answer = answer::page(problem.status, document(title, &body).into_string());
    problem.add_headers(&mut answer);
    answer
}

/// Returns a state as a glyph and a word in its colour.
pub(super) fn state_mark(state: Severity) -> Markup {
    let (class, glyph, word) = match state {
        Severity::Green => ("green", "\u{25cf}", "safe"),
        Severity::Amber => ("amber", "\u{25b2}", "needs attention"),
        Severity::Red => ("red", "\u{25a0}", "not safe"),
    };
    html! {
        span class=(class) { span aria-hidden="true" { (glyph) } " " (word) }
    }
}

/// Returns the outcome of a run as a glyph and a word in its colour.
pub(super) fn outcome_mark(outcome: Option<&str>) -> Markup {
    let (class, glyph) = match outcome {
        None => ("muted", "\u{25b6}"),
        Some("complete") => ("green", "\u{25cf}"),
        Some("partial") => ("amber", "\u{25b2}"),
        Some(_) => ("red", "\u{25a0}"),
    };
    html! {
        span class=(class) { span aria-hidden="true" { (glyph) } " " (outcome.unwrap_or("running")) }
    }
}

/// Returns a time in UTC.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.format("%FT%TZ")) { (at.format("%F %H:%M UTC")) }
    }
}

/// Returns a duration in words, such as `3 days`.
pub(super) fn age(seconds: i64) -> String {
    let (number, unit) = match seconds.max(0) {
        seconds @ 0..120 => (seconds, "second"),
        seconds @ 120..7200 => (seconds / 60, "minute"),
        seconds @ 7200..172_800 => (seconds / 3600, "hour"),
        seconds => (seconds / 86_400, "day"),
    };
    crate::base::units::count(number.unsigned_abs(), unit)
}
