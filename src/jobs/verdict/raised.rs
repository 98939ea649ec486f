//! A finding while the verdict is made.

use chrono::{DateTime, Utc};

use super::observed::SeenKey;
use super::{FindingCode, Severity, VerdictFinding};
use crate::base::clock;

/// A finding while the verdict is made.
#[derive(Debug, Clone)]
pub(super) struct Raised {
    pub(super) finding: VerdictFinding,
    /// The finding in a few words, for the sentence.
    pub(super) brief: String,
    /// What exactly is wrong. If this changes, it is another instance of the finding. Only for
    /// findings whose `since` no fact tells.
    pub(super) identity: String,
    /// When it turned red; an earlier acknowledgement was of the amber one. `None`: it was as bad
    /// from the beginning.
    pub(super) became_red: Option<DateTime<Utc>>,
}

impl Raised {
    pub(super) fn new(code: FindingCode, severity: Severity, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            brief: text.clone(),
            finding: VerdictFinding {
                code,
                severity,
                target: None,
                source: None,
                since: None,
                text,
                next: String::new(),
            },
            identity: String::new(),
            became_red: None,
        }
    }

    pub(super) fn about_target(mut self, target: &str) -> Self {
        self.finding.target = Some(target.to_owned());
        self
    }

    pub(super) fn about_source(mut self, source: &str) -> Self {
        self.finding.source = (!source.is_empty()).then(|| source.to_owned());
        self
    }

    pub(super) fn since(mut self, since: Option<DateTime<Utc>>) -> Self {
        self.finding.since = since.map(clock::in_seconds);
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.finding.next = next.into();
        self
    }

    pub(super) fn brief(mut self, brief: impl Into<String>) -> Self {
        self.brief = brief.into();
        self
    }

    pub(super) fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    pub(super) fn became_red(mut self, at: Option<DateTime<Utc>>) -> Self {
        self.became_red = at;
        self
    }

    /// Returns what identifies the finding.
    pub(super) fn key(&self) -> SeenKey {
        let code = self.finding.code.as_str().to_owned();
        let severity = self.finding.severity.as_str();
        let identity = format!("{severity} {}", self.identity);
        (code, self.finding.about().to_owned(), identity)
    }
}
