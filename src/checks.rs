//! The checks after a restore in place and in a drill: each is tried until it passes or its time is
//! up, and all are run and reported, not only the first that fails.
//!
//! A check changes nothing: it asks the service, reads a database or a file, or runs a command of
//! the operator. It has the same result whether the service was just started or has run for a year.

mod command;
mod expect;
mod file;
mod http;
mod sql;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::panics::caught_now;
use crate::config::{PostCheck, PostCheckKind};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// The least time that an attempt has, however little is left.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);

/// What the checks look at.
pub struct CheckSubject<'a> {
    /// The URL before the paths of HTTP checks. `None`: they fail, and say so.
    pub base_url: Option<&'a str>,
    /// The directory of a drill's restored data, for commands. `None`: it is no drill.
    pub restored: Option<&'a Path>,
    /// Returns where a database is, by the name of its source or its path in the snapshot. `None`:
    /// there is no such database.
    pub database: &'a (dyn Fn(&str) -> Option<PathBuf> + Sync),
    /// Returns where a file is, by its path in the snapshot or an absolute path. `None`: it is not
    /// part of the restore.
    pub file: &'a (dyn Fn(&Path) -> Option<PathBuf> + Sync),
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found, such as `/documents is 0, expected at least 1`.
    pub found: String,
    /// What the configuration says that this failure means. `None`: nothing.
    pub explanation: Option<String>,
    /// Number of attempts.
    pub attempts: u32,
    /// Time from the first attempt to the end of the last one, in seconds.
    pub seconds: f64,
}

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq)]
struct CheckAttempt {
    passed: bool,
    /// What was found.
    found: String,
    /// The values that were not as expected, for the explanations; `None` among them: the value is
    /// missing.
    wrong: Vec<Option<Value>>,
}

impl CheckAttempt {
    fn passed(found: impl Into<String>) -> Self {
        Self {
            passed: true,
            found: found.into(),
            wrong: Vec::new(),
        }
    }

    /// Returns a failure that no value explains.
    fn failed(found: impl Into<String>) -> Self {
        Self::wrong(found, Vec::new())
    }

    fn wrong(found: impl Into<String>, wrong: Vec<Option<Value>>) -> Self {
        Self {
            passed: false,
            found: found.into(),
            wrong,
        }
    }
}

/// Runs all `checks` at the same time, each again and again until it passes or `patience` is over.
/// Returns their results in the order of `checks`.
pub fn run_checks(
    checks: &[&PostCheck],
    subject: &CheckSubject<'_>,
    patience: Duration,
) -> Vec<CheckResult> {
    std::thread::scope(|scope| {
        let all = checks.iter().copied();
        let running: Vec<_> = all
            .map(|check| {
                let named = std::thread::Builder::new();
                named.spawn_scoped(scope, move || run_one(check, subject, patience))
            })
            .collect();
        let joined = running.into_iter().zip(checks);
        let result = joined.map(|(thread, check)| match thread {
            // Without a further thread they run one after another.
            Err(_) => run_one(check, subject, patience),
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                let attempt = CheckAttempt::failed("the check itself failed");
                result_of(check, attempt, 1, 0.0)
            }),
        });
        result.collect()
    })
}

fn run_one(check: &PostCheck, subject: &CheckSubject<'_>, patience: Duration) -> CheckResult {
    let started = Instant::now();
    let mut attempts = 0;
    loop {
        let left = patience.saturating_sub(started.elapsed());
        // The first attempt has its whole time: without patience, too, the service gets a chance.
        let timeout = match attempts {
            0 => check.timeout,
            _ => check.timeout.min(left.max(LEAST_ATTEMPT)),
        };
        attempts += 1;
        let attempt = caught_now(|| try_once(check, subject, timeout));
        let attempt = attempt.unwrap_or_else(|panicked| CheckAttempt::failed(panicked.to_string()));
        if attempt.passed || started.elapsed() + PAUSE >= patience {
            let seconds = started.elapsed().as_secs_f64();
            return result_of(check, attempt, attempts, seconds);
        }
        std::thread::sleep(PAUSE);
    }
}

fn try_once(check: &PostCheck, subject: &CheckSubject<'_>, timeout: Duration) -> CheckAttempt {
    match &check.kind {
        PostCheckKind::Http(http) => http::attempt(http, subject.base_url, timeout),
        PostCheckKind::Sql(sql) => sql::attempt(sql, subject.database, timeout),
        PostCheckKind::Command(line) => command::attempt(line, &check.name, subject, timeout),
        PostCheckKind::File(file) => file::attempt(file, subject.file, timeout),
    }
}

fn result_of(check: &PostCheck, attempt: CheckAttempt, attempts: u32, seconds: f64) -> CheckResult {
    let applies = |value: &Option<Value>, of| expect::holds(of, value.as_ref());
    let mut explanations = check.explain.iter();
    let explanation = explanations.find(|explanation| {
        let mut wrong = attempt.wrong.iter();
        wrong.any(|value| applies(value, &explanation.of))
    });
    CheckResult {
        name: check.name.clone(),
        passed: attempt.passed,
        found: attempt.found,
        explanation: explanation.map(|explanation| explanation.text.clone()),
        attempts,
        seconds,
    }
}
