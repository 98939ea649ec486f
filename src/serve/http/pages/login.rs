//! Logging in and out with a browser.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::SET_COOKIE;
use maud::html;

use super::super::HttpParts;
use super::super::answer;
use super::super::call::{FORM_TOKEN, HttpCall, form_fields};
use super::super::cross_site::BodyKind;
use super::super::problem::HttpProblem;
use super::super::sessions::LIFETIME;
use super::super::token_check::{COOKIES, accepted};
use super::layout::PageParts;

/// The field of the form that holds the token.
const TOKEN: &str = "token";

/// The form for the token.
pub(in super::super) fn show(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let form_token = http.sessions.form_token(call.session.as_deref());
    let content = html! {
        h1 { "Log in" }
        form method="post" action=(call.link("/login")) {
            input type="hidden" name=(FORM_TOKEN) value=(form_token);
            p {
                label for="token" { "Token" } " "
                input id="token" type="password" name=(TOKEN) autocomplete="current-password" required;
            }
            p { button type="submit" { "Log in" } }
        }
    };
    Ok(PageParts { http, call }.page("Log in", &content))
}

/// Opens a session for the right token.
pub(in super::super) async fn log_in(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let token = match call.body_kind {
        BodyKind::Form => {
            let fields = form_fields(&call.body)?;
            let token = fields.into_iter().find(|(name, _)| name == TOKEN);
            token.map(|(_, token)| token)
        }
        BodyKind::Json => call.read::<LoginBody>()?.token,
    };
    let Some(token) = token.map(zeroize::Zeroizing::new) else {
        return Err(HttpProblem::unprocessable(
            "invalid_body",
            "there is no token",
        ));
    };
    let tokens = http.tokens(&http.state().config).await;
    let level = accepted(http, &tokens, token.trim().as_bytes(), &call.client)?;
    let opened = http.sessions.open(level, Instant::now());
    let id = opened.map_err(|error| {
        HttpProblem::failed(format!("no random numbers from the system: {error}"))
    })?;
    let mut answer = answer::see_other(&call.link("/"))?;
    let cookie = cookie(call, &id, LIFETIME.as_secs());
    answer::set(&mut answer, SET_COOKIE, &cookie)?;
    Ok(answer)
}

/// The token as JSON.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    token: Option<String>,
}

/// Ends the session.
pub(in super::super) fn log_out(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    if !call.is_form() {
        let detail = "only the form of a page ends a session";
        return Err(HttpProblem::unprocessable("invalid_body", detail));
    }
    if let Some(id) = &call.session {
        http.sessions.close(id);
    }
    let mut answer = answer::see_other(&call.link("/login"))?;
    answer::set(&mut answer, SET_COOKIE, &cookie(call, "", 0))?;
    Ok(answer)
}

/// Returns the session's cookie. With TLS its name binds it to this host.
fn cookie(call: &HttpCall, id: &str, seconds: u64) -> String {
    let (name, secure) = match call.client.is_https {
        true => (COOKIES[1], "; Secure"),
        false => (COOKIES[0], ""),
    };
    format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}
