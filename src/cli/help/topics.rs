//! The texts of `sealift help TOPIC`.

use std::borrow::Cow;

use super::reference::{ENVIRONMENT, EXIT_CODES, FILES};
use super::rows_text;

/// Topics that are written by hand.
const WRITTEN: &[(&str, &str)] = &[
    ("targets", include_str!("targets.txt")),
    ("sources", include_str!("sources.txt")),
    ("retention", include_str!("retention.txt")),
    ("recovery", include_str!("recovery.txt")),
];

/// Names of all topics.
pub(super) const NAMES: &[&str] = &[
    "targets",
    "sources",
    "retention",
    "recovery",
    "exit-codes",
    "environment",
];

/// Returns the names of all topics as one text.
pub(super) fn names() -> String {
    NAMES.join(", ")
}

/// Returns the text of a topic.
pub(super) fn text(topic: &str) -> Option<Cow<'static, str>> {
    if let Some((_, text)) = WRITTEN.iter().find(|(name, _)| *name == topic) {
        return Some(Cow::Borrowed(text));
    }
    match topic {
        "exit-codes" => {
            Some(format!("EXIT CODES\n\n{}\n{CODES_NOTE}", rows_text(EXIT_CODES)).into())
        }
        "environment" => Some(
            format!(
                "FILES\n\n{}\nENVIRONMENT\n\n{}",
                rows_text(FILES),
                rows_text(ENVIRONMENT)
            )
            .into(),
        ),
        _ => None,
    }
}

const CODES_NOTE: &str = "\
`sealift COMMAND --help` says what 3 means for a command. A scheduler should
treat everything except 0 as a reason to look: `sealift status` says more.
With --json, a failure is also an object on the standard output:
{\"error\": {\"text\": ..., \"causes\": [...], \"next\": ..., \"exit_code\": 1}}
";
