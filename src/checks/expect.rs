//! The conditions that a value must meet, and their words.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::Attempt;
use crate::config::{Expectation, Operator};

/// Longest text of a value in a message, in characters.
const SHOWN_CHARS: usize = 120;

/// Whether `value` meets the condition; `None`: there is no such value.
pub(super) fn holds(condition: &Expectation, value: Option<&Value>) -> bool {
    let with = &condition.with;
    if condition.operator == Operator::Exists {
        return with.as_bool() == Some(value.is_some());
    }
    let Some(value) = value else { return false };
    let ordering = || match (value, with) {
        (Value::Number(value), Value::Number(with)) => compare(value, with),
        _ => None,
    };
    match condition.operator {
        Operator::Eq => equal(value, with),
        Operator::Ne => !equal(value, with),
        Operator::Ge => ordering().is_some_and(Ordering::is_ge),
        Operator::Gt => ordering().is_some_and(Ordering::is_gt),
        Operator::Le => ordering().is_some_and(Ordering::is_le),
        Operator::Lt => ordering().is_some_and(Ordering::is_lt),
        Operator::Matches => match (value.as_str(), with.as_str()) {
            (Some(text), Some(pattern)) => matches(pattern, text),
            _ => false,
        },
        Operator::Exists => true,
        Operator::LenGe => match (length(value), with.as_u64()) {
            (Some(length), Some(least)) => length >= least,
            _ => false,
        },
    }
}

/// Compares two numbers by their value, whatever their form: 1 and 1.0 are equal.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i128();
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let is_in = |(key, value): (&String, &Value)| {
                b.get(key).is_some_and(|other| equal(value, other))
            };
            a.len() == b.len() && a.iter().all(is_in)
        }
        (a, b) => a == b,
    }
}

fn length(value: &Value) -> Option<u64> {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::Object(entries) => entries.len(),
        Value::String(text) => text.chars().count(),
        _ => return None,
    };
    u64::try_from(length).ok()
}

/// Whether the whole of `text` matches `pattern`: `*` is any text, `?` any character.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // The last `*`, and where the text that it stands for ends.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    p = at + 1;
                    t = end + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Returns the condition in words that follow "expected".
fn words(condition: &Expectation) -> String {
    let with = shown(&condition.with);
    match condition.operator {
        Operator::Eq => with,
        Operator::Ne => format!("anything but {with}"),
        Operator::Ge => format!("at least {with}"),
        Operator::Gt => format!("more than {with}"),
        Operator::Le => format!("at most {with}"),
        Operator::Lt => format!("less than {with}"),
        Operator::Matches => format!("a text like {with}"),
        Operator::Exists => match condition.with.as_bool() {
            Some(false) => "no value".to_owned(),
            _ => "a value".to_owned(),
        },
        Operator::LenGe => format!("a length of at least {with}"),
    }
}

/// Returns the value as a message shows it: as JSON, in one line, shortened.
pub(super) fn shown(value: &Value) -> String {
    printable(&value.to_string(), SHOWN_CHARS)
}

/// Returns the begin of `text` in one line, without characters that a terminal would obey.
pub(super) fn printable(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        short.push_str("...");
    }
    short
}

/// The outcome of the conditions on the values of one attempt.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The values that were as expected.
    good: Vec<String>,
    /// Those that were not.
    bad: Vec<String>,
    wrong: Vec<Option<Value>>,
}

impl Outcome {
    /// Adds the conditions on `value`, which messages name `what`.
    pub(super) fn add(&mut self, what: &str, conditions: &[Expectation], value: Option<&Value>) {
        let found = match value {
            Some(value) => format!("{what} is {}", shown(value)),
            None => format!("{what} is missing"),
        };
        let mut failed = conditions.iter().filter(|one| !holds(one, value));
        let failed: Vec<String> = failed.by_ref().map(words).collect();
        match failed.is_empty() {
            true => self.good.push(found),
            false => {
                self.bad
                    .push(format!("{found}, expected {}", failed.join(" and ")));
                self.wrong.push(value.cloned());
            }
        }
    }

    /// Adds a finding in words.
    pub(super) fn note(&mut self, is_good: bool, found: String) {
        match is_good {
            true => self.good.push(found),
            false => self.bad.push(found),
        }
    }

    /// Returns the attempt: it failed if one of the conditions was not met.
    pub(super) fn finish(self) -> Attempt {
        match self.bad.is_empty() {
            true => Attempt::passed(self.good.join(", ")),
            false => Attempt::wrong(self.bad.join("; "), self.wrong),
        }
    }
}

#[cfg(test)]
mod tests;
