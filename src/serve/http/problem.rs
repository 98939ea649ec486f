//! Errors as answers: RFC 9457.

use axum::body::Body;
use axum::http::header::{ALLOW, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::typed_body::with_type;
use crate::jobs::error::JobError;
use crate::serve::handle::CommandRefused;
use crate::state::history::HistoryError;

/// Why a request is not answered as it was meant.
#[derive(Debug, Clone)]
pub(crate) struct HttpProblem {
    pub(crate) status: StatusCode,
    /// A word for programs, such as `busy`.
    pub(crate) code: &'static str,
    /// What failed and why, for people; clients of AtoCore read it, too.
    pub(crate) detail: String,
    /// The next step for the caller.
    pub(crate) next: Option<String>,
    /// Further members of the document.
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpProblem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            next: None,
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// Adds the next step for the caller.
    pub(crate) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Adds a member to the document.
    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer. A value that no header can have is left out.
    fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers
            .extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// The caller asked for a wrong value.
    pub(crate) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// The request does not fit the present state.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// The work failed.
    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
    }

    /// The agent has too much to do; the caller may try again after some seconds.
    pub(crate) fn overloaded(detail: impl Into<String>, seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
            .with_next("try again in some seconds")
            .with_header(RETRY_AFTER, &seconds.to_string())
    }

    /// The agent is about to end.
    pub(crate) fn stopping() -> Self {
        let detail = CommandRefused::Stopping.to_string();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail)
            .with_header(RETRY_AFTER, "10")
    }

    /// The caller must show a token.
    pub(crate) fn unauthorized(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with_header(WWW_AUTHENTICATE, "Bearer realm=\"sealift\"")
    }

    /// The caller showed wrong tokens too often.
    pub(crate) fn too_many_attempts(seconds: u64) -> Self {
        let detail = "too many wrong tokens came from this address";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail)
            .with_next(format!("wait {seconds} seconds"))
            .with_header(RETRY_AFTER, &seconds.to_string())
    }

    /// The path does not know the method.
    pub(crate) fn wrong_method(method: &str, allowed: &str) -> Self {
        let detail = format!("this path does not know the method {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail)
            .with_next(format!("it knows {allowed}"))
            .with_header(ALLOW, allowed)
    }

    /// The name means several things.
    pub(crate) fn ambiguous(detail: impl Into<String>, choices: Value) -> Self {
        Self::new(StatusCode::MULTIPLE_CHOICES, "ambiguous", detail).with("choices", choices)
    }

    /// The page is elsewhere.
    pub(super) fn elsewhere(self, location: &str) -> Self {
        Self {
            status: StatusCode::SEE_OTHER,
            ..self.with_header(LOCATION, location)
        }
    }

    /// Returns the document.
    pub(super) fn document(&self) -> Value {
        let mut members = self.members.clone();
        members.insert("type".to_owned(), json!("about:blank"));
        members.insert(
            "title".to_owned(),
            json!(self.status.canonical_reason().unwrap_or("Error")),
        );
        members.insert("status".to_owned(), json!(self.status.as_u16()));
        members.insert("code".to_owned(), json!(self.code));
        members.insert("detail".to_owned(), json!(self.detail));
        members.insert("next".to_owned(), json!(self.next));
        Value::Object(members)
    }

    /// Returns the answer.
    pub(super) fn into_answer(self) -> Response<Body> {
        let text = self.document().to_string();
        let mut answer = with_type(self.status, "application/problem+json", text);
        self.add_headers(&mut answer);
        answer
    }

    /// Adds its headers to an answer that shows it otherwise.
    pub(super) fn add_headers(self, answer: &mut Response<Body>) {
        for (name, value) in self.headers {
            answer.headers_mut().insert(name, value);
        }
    }
}

impl From<JobError> for HttpProblem {
    fn from(error: JobError) -> Self {
        let status = match error.is_request() {
            true => StatusCode::CONFLICT,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = match error.is_request() {
            true => "refused",
            false => "failed",
        };
        let problem = Self::new(status, code, error.with_causes());
        match error.next() {
            Some(next) => problem.with_next(next),
            None => problem,
        }
    }
}

impl From<HistoryError> for HttpProblem {
    fn from(error: HistoryError) -> Self {
        Self::from(JobError::from(error))
    }
}

impl From<CommandRefused> for HttpProblem {
    fn from(refused: CommandRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            CommandRefused::Busy { id, .. } => Self::conflict("busy", detail)
                .with_next("wait for it, or cancel it")
                .with("run", id),
            CommandRefused::NotRunning(_) => Self::conflict("not_running", detail),
            CommandRefused::Stopping => Self::stopping(),
            CommandRefused::Failed { next, .. } => {
                let problem = Self::failed(detail);
                match next {
                    Some(next) => problem.with_next(next),
                    None => problem,
                }
            }
        }
    }
}
