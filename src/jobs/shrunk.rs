//! The finding `shrunk`: a source that lost more than half of its files, bytes or rows.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::push::{self, PushError, PushReport};
use super::verdict::observed::ObservedShrink;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::units::{count, size};
use crate::config::Config;
use crate::state::State;
use crate::state::catalog::Catalog;
use crate::state::figures::{self, Kept, Measure, OpenAlarm, Shrunk};
use crate::state::staged_snapshot::LeftOut;

/// The code of this finding.
pub(crate) const CODE: &str = "shrunk";
const SEVERITY: &str = "red";
/// Most tables that one finding names.
const MOST_TABLES: usize = 3;

/// A source that shrank, which is not acknowledged.
#[derive(Debug, Serialize)]
pub(crate) struct ShrinkFinding {
    code: &'static str,
    severity: &'static str,
    /// The source's name. Empty if the figures could not be read.
    source: String,
    /// When the first snapshot after the loss was made.
    since: Option<DateTime<Utc>>,
    /// The finding in words.
    pub(crate) text: String,
    /// The next step for the operator.
    pub(crate) next: String,
    /// The snapshot that the source is compared with. `None` if the figures could not be read.
    before: Option<Kept>,
    /// The figures that fell.
    figures: Vec<Shrunk>,
}

impl ShrinkFinding {
    /// Returns the finding as the verdict needs it.
    pub(crate) fn observed(&self) -> ObservedShrink {
        ObservedShrink {
            source: self.source.clone(),
            since: self.since,
            text: self.text.clone(),
            next: self.next.clone(),
        }
    }
}

/// Compares the pushed snapshot with the one before, and adds a note to `report` for each source
/// that is back.
///
/// Returns `None` if the comparison failed: then it adds a warning, and which snapshots must stay
/// is unknown.
pub(crate) fn compare(
    config: &Config,
    state: &State,
    report: &mut PushReport,
    left_out: &[LeftOut],
    made_now: bool,
) -> Option<Vec<ShrinkFinding>> {
    let noted = push::note_figures(state, config, report, left_out, made_now);
    let found = noted.and_then(|noted| {
        let back = noted.back.iter().map(|one| one.name.clone());
        let back: BTreeSet<String> = back.collect();
        let notes = back.into_iter();
        report
            .notes
            .extend(notes.map(|name| format!("{name} had shrunk, and is back")));
        findings(config, Some(&state.catalog), &noted.open, clock::now())
    });
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            report.warnings.push(format!(
                "it is not known whether a source shrank, so no older snapshot is deleted: {}",
                with_causes(&error)
            ));
            None
        }
    }
}

/// Returns the open findings of this host. If the figures cannot be read, that is a finding too.
pub(crate) fn read(
    config: &Config,
    catalog: Option<&Catalog>,
    now: DateTime<Utc>,
) -> Vec<ShrinkFinding> {
    let memory = figures::load(&config.state).map_err(PushError::from);
    let found = memory.and_then(|memory| match memory {
        Some(memory) => findings(config, catalog, memory.open(), now),
        None => Ok(Vec::new()),
    });
    found.unwrap_or_else(|error| {
        vec![ShrinkFinding {
            code: CODE,
            severity: SEVERITY,
            source: String::new(),
            since: None,
            text: format!(
                "it is not known which sources shrank: {}",
                with_causes(&error)
            ),
            next: "put that right, then back up".to_owned(),
            before: None,
            figures: Vec::new(),
        }]
    })
}

/// Returns one finding for each source of `open` and each snapshot that it is compared with.
fn findings(
    config: &Config,
    catalog: Option<&Catalog>,
    open: &[OpenAlarm],
    now: DateTime<Utc>,
) -> Result<Vec<ShrinkFinding>, PushError> {
    let mut groups: Vec<Vec<&OpenAlarm>> = Vec::new();
    for one in open {
        let is_same = |group: &&mut Vec<&OpenAlarm>| {
            let first = group[0];
            (&first.to, first.before) == (&one.to, one.before)
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let has_one_source = groups.iter().all(|group| group[0].to == groups[0][0].to);
    let mut found = Vec::new();
    for group in groups {
        let is_gone = push::is_gone(catalog, config, &group[0].before)?;
        found.push(finding(&group, is_gone, has_one_source, now));
    }
    Ok(found)
}

fn finding(
    group: &[&OpenAlarm],
    is_gone: bool,
    has_one_source: bool,
    now: DateTime<Utc>,
) -> ShrinkFinding {
    let first = group[0];
    let since = group.iter().map(|one| one.since.stamp.time()).min();
    let before = shown(&first.before);
    let kept = match is_gone {
        true => format!("snapshot {before} from before is gone, so there is nothing to go back to"),
        false => format!("snapshot {before} from before is kept"),
    };
    let mut text = format!(
        "{} since {}. It was backed up as it is; {kept}",
        losses(group),
        when(first.before.stamp.time(), now)
    );
    let mut changed: Vec<&str> = group
        .iter()
        .flat_map(|one| one.changed_settings.iter().map(String::as_str))
        .collect();
    changed.sort_unstable();
    changed.dedup();
    if !changed.is_empty() {
        text += &format!(
            ". The configuration may explain it: `{}` of this source changed meanwhile",
            changed.join("`, `")
        );
    }
    let only = match has_one_source {
        true => String::new(),
        false => format!(" --source {}", first.name),
    };
    ShrinkFinding {
        code: CODE,
        severity: SEVERITY,
        source: first.name.clone(),
        since,
        text,
        next: format!("if that is right: sealift ack {CODE}{only}"),
        before: Some(first.before),
        figures: group.iter().map(|one| one.shrunk.clone()).collect(),
    }
}

/// Returns the sequence of `snapshot`, or its stamp if it has none.
pub(crate) fn shown(snapshot: &Kept) -> String {
    match snapshot.sequence {
        Some(sequence) => sequence.to_string(),
        None => snapshot.stamp.to_string(),
    }
}

/// Returns `db: documents went from 1204 to 0 rows`, `photos went from 50 to 0 files and from 450
/// kB to 0 B`.
pub(crate) fn losses(group: &[&OpenAlarm]) -> String {
    let first = group[0];
    let (mut whole, mut tables, mut turned) = (Vec::new(), Vec::new(), None);
    for one in group {
        let (before, now) = (one.shrunk.before, one.shrunk.now);
        match &one.shrunk.measure {
            Measure::Files => whole.push(format!("from {before} to {}", count(now, "file"))),
            Measure::Bytes => whole.push(format!("from {} to {}", size(before), size(now))),
            Measure::SourceRows => {
                whole.push(format!("from {before} to {} in all", count(now, "row")));
            }
            Measure::Rows { database, table } => tables.push(format!(
                "{}{table} went from {before} to {}",
                within(database, &first.to),
                count(now, "row")
            )),
            Measure::AllRows { database } => tables.push(format!(
                "{}all tables together went from {before} to {}",
                within(database, &first.to),
                count(now, "row")
            )),
            Measure::Noise => turned = Some(now.saturating_sub(before)),
        }
    }
    let mut clauses = Vec::new();
    if !whole.is_empty() {
        clauses.push(format!("went {}", whole.join(" and ")));
    }
    let more = tables.len().saturating_sub(MOST_TABLES);
    tables.truncate(MOST_TABLES);
    clauses.append(&mut tables);
    if more > 0 {
        clauses.push(format!("and so did {}", count(more as u64, "more table")));
    }
    if let Some(turned) = turned {
        clauses.push(format!(
            "{} turned into what looks like random bytes, as encryption by malware leaves them",
            count(turned, "file")
        ));
    }
    let colon = if whole.is_empty() { ":" } else { "" };
    format!("{}{colon} {}", first.name, clauses.join("; "))
}

/// Returns the database's path in its source, or nothing if the source is that database.
fn within(database: &str, to: &str) -> String {
    let rest = database.strip_prefix(to).unwrap_or(database);
    match rest.trim_start_matches('/') {
        "" => String::new(),
        rest => format!("{rest}: "),
    }
}

fn when(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let days = (now.date_naive() - time.date_naive()).num_days();
    match days {
        0 => time.format("today, %H:%M UTC").to_string(),
        1 => "yesterday".to_owned(),
        2..=300 => time.format("%-d %B").to_string(),
        _ => time.format("%-d %B %Y").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(to: &str, measure: Measure, before: u64, now: u64) -> OpenAlarm {
        let kept = |day: u32, sequence| Kept {
            stamp: format!("202611{day:02}T060000Z").parse().unwrap(),
            sequence: Some(sequence),
        };
        OpenAlarm {
            to: to.to_owned(),
            name: to.to_owned(),
            shrunk: Shrunk {
                measure,
                before,
                now,
            },
            before: kept(28, 42),
            since: kept(29, 43),
            changed_settings: Vec::new(),
        }
    }

    fn rows(to: &str, database: &str, table: &str) -> OpenAlarm {
        let measure = Measure::Rows {
            database: database.to_owned(),
            table: table.to_owned(),
        };
        open(to, measure, 1204, 0)
    }

    fn text(group: &[&OpenAlarm]) -> String {
        let now = "2026-11-29T07:00:00Z".parse().unwrap();
        finding(group, false, true, now).text
    }

    #[test]
    fn the_words_say_what_went_since_when_and_what_is_kept() {
        assert_eq!(
            text(&[&rows("db", "db", "documents")]),
            "db: documents went from 1204 to 0 rows since yesterday. It was backed up as it is; snapshot 42 from \
             before is kept"
        );
        let (files, bytes) = (
            open("photos", Measure::Files, 50, 0),
            open("photos", Measure::Bytes, 450_000, 0),
        );
        assert!(text(&[&files, &bytes]).starts_with(
            "photos went from 50 to 0 files and from 450 kB to 0 B since yesterday. "
        ));
        let tables = ["a", "b", "c", "d"].map(|table| rows("chroma", "chroma/x.sqlite3", table));
        let tables: Vec<&OpenAlarm> = tables.iter().collect();
        let text = text(&tables);
        assert!(text.starts_with("chroma: x.sqlite3: a went from 1204 to 0 rows; x.sqlite3: b "));
        assert!(text.contains("; and so did 1 more table since"), "{text}");
    }

    #[test]
    fn it_names_the_source_settings_that_changed_and_a_snapshot_that_is_gone() {
        let mut one = open("photos", Measure::Noise, 2, 42);
        one.changed_settings = vec!["exclude".to_owned()];
        let now = "2026-12-29T07:00:00Z".parse().unwrap();
        let found = finding(&[&one], true, false, now);
        assert!(
            found.text.contains("photos: 40 files turned into"),
            "{}",
            found.text
        );
        assert!(found.text.contains("since 28 November. "), "{}", found.text);
        assert!(found.text.contains("snapshot 42 from before is gone"));
        assert!(
            found
                .text
                .ends_with("`exclude` of this source changed meanwhile")
        );
        assert_eq!(
            found.next,
            "if that is right: sealift ack shrunk --source photos"
        );
    }
}
