//! One request, checked and read.

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::access::AccessLevel;
use super::client::HttpClient;
use super::cross_site::BodyKind;
use super::problem::HttpProblem;
use super::routes::pairs;

/// The field of a form that carries the form token.
pub(super) const FORM_TOKEN: &str = "form_token";
/// Fields of forms that hold a list.
const LISTS: &[&str] = &["include"];

/// A request to an operation, by a caller who may do it.
#[derive(Debug)]
pub(super) struct HttpCall {
    /// The texts of the path's variable segments.
    pub(super) texts: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) body_kind: BodyKind,
    pub(super) client: HttpClient,
    /// What the caller may do.
    pub(super) level: AccessLevel,
    /// The id of the browser's session. `None`: it has none.
    pub(super) session: Option<String>,
    /// True once the agent ends.
    pub(super) shutdown: watch::Receiver<bool>,
}

impl HttpCall {
    /// Returns the first text of the path.
    pub(super) fn text(&self) -> &str {
        self.texts.first().map_or("", String::as_str)
    }

    /// Whether a page's form was sent.
    pub(super) fn is_form(&self) -> bool {
        self.body_kind == BodyKind::Form
    }

    /// Returns the path of a page as the browser sees it.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.client.prefix)
    }

    /// Returns the header `name` as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the body, JSON or a form. An empty one is an object without members.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, HttpProblem> {
        let wrong = |error: &dyn std::fmt::Display| {
            HttpProblem::unprocessable(
                "invalid_body",
                format!("the body is not as documented: {error}"),
            )
            .with_next("see /openapi.json")
        };
        let value = match self.body_kind {
            BodyKind::Form => self.form()?,
            BodyKind::Json if self.body.is_empty() => json!({}),
            // In one step, so that an error names line and column.
            BodyKind::Json => {
                let value: Value = serde_json::from_slice(&self.body).map_err(|e| wrong(&e))?;
                match value {
                    Value::Object(_) => {}
                    _ => return Err(wrong(&"it is not an object")),
                }
                value
            }
        };
        serde_json::from_value(value).map_err(|e| wrong(&e))
    }

    /// Returns the fields of the form, without its token.
    fn form(&self) -> Result<Value, HttpProblem> {
        let fields = form_fields(&self.body)?;
        let mut object = Map::new();
        for (name, value) in fields {
            if name == FORM_TOKEN || value.is_empty() {
                continue;
            }
            match LISTS.contains(&name.as_str()) {
                true => {
                    let list = object.entry(name).or_insert_with(|| json!([]));
                    list.as_array_mut()
                        .into_iter()
                        .for_each(|list| list.push(json!(value)));
                }
                false => drop(object.insert(name, json!(value))),
            }
        }
        Ok(Value::Object(object))
    }

    /// Reads the query; each of its parameters must be one of `known`, and there at most once.
    pub(super) fn query<const N: usize>(
        &self,
        known: [&str; N],
    ) -> Result<[Option<&str>; N], HttpProblem> {
        let mut found = [None; N];
        for (name, value) in &self.query {
            let at = known.iter().position(|known| known == name);
            let fault = match at {
                None => format!("there is no parameter {name:?}"),
                Some(at) if found[at].is_some() => format!("the parameter {name:?} is there twice"),
                Some(at) => {
                    found[at] = Some(value.as_str());
                    continue;
                }
            };
            let problem = HttpProblem::unprocessable("invalid_query", fault);
            let next = match N {
                0 => "this path has no parameters".to_owned(),
                _ => format!("the parameters are {}", known.join(", ")),
            };
            return Err(problem.with_next(next));
        }
        Ok(found)
    }
}

/// Returns the fields of a form.
pub(super) fn form_fields(body: &[u8]) -> Result<Vec<(String, String)>, HttpProblem> {
    let fields = std::str::from_utf8(body).ok().and_then(pairs);
    fields.ok_or_else(|| {
        HttpProblem::new(
            StatusCode::BAD_REQUEST,
            "invalid_form",
            "the form is malformed",
        )
    })
}

/// The largest number that every reader of JSON can hold.
const LARGEST: u64 = (1 << 53) - 1;

/// Returns the number in the parameter `name`; `None`: it is not there.
pub(super) fn large_number(name: &str, text: Option<&str>) -> Result<Option<u64>, HttpProblem> {
    let number = text.map(|text| text.parse().ok().filter(|number| *number <= LARGEST));
    match number {
        Some(None) => {
            let detail = format!("{name} must be a number from 0 to {LARGEST}");
            Err(HttpProblem::unprocessable("invalid_query", detail))
        }
        number => Ok(number.flatten()),
    }
}

/// Returns the number in the parameter `name`, at most `most`; `default` if it is not there.
pub(super) fn number(
    name: &str,
    text: Option<&str>,
    (default, most): (u32, u32),
) -> Result<u32, HttpProblem> {
    let Some(text) = text else {
        return Ok(default);
    };
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| {
        let detail = format!("{name} must be a number from 1 to {most}, not {text:?}");
        HttpProblem::unprocessable("invalid_query", detail)
    })
}
