//! Checks restored databases in full (`integrity_check`), and compares their rows with the sealed
//! fingerprint.

use std::path::Path;

use super::failure::{DrillProblem, code};
use crate::base::error_chain::with_causes;
use crate::base::sqlite::{self, Budget, Depth, Inspection};
use crate::format::index::DatabaseRecord;
use crate::format::receipt::Schemas;

/// The outcome of the checks.
#[derive(Default)]
pub(super) struct CheckedDatabases {
    /// Number of databases that are as they were sealed.
    pub(super) good: u64,
    /// The schema of each.
    pub(super) schemas: Schemas,
    pub(super) problems: Vec<DrillProblem>,
    /// Lines for the operator that are no problem.
    pub(super) notes: Vec<String>,
}

/// Checks the databases of `records` below `dir`, a private directory. `torn` are the files that
/// changed while the snapshot was made.
pub(super) fn check_all(
    dir: &Path,
    records: &[DatabaseRecord],
    torn: &[String],
) -> CheckedDatabases {
    let mut checked = CheckedDatabases::default();
    for record in records {
        let path = &record.path;
        if torn.contains(path) {
            let text = format!("{path} changed while the snapshot was made, and is not checked");
            checked.notes.push(text);
        } else if record.can_be_checked() {
            checked.add(dir, record);
        } else {
            checked.notes.push(match record.integrity.as_str() {
                "ok" => format!("{path} is not checked: its name is not UTF-8"),
                what => format!("{path} was damaged when the snapshot was made: {what}"),
            });
        }
    }
    checked
}

impl CheckedDatabases {
    fn add(&mut self, dir: &Path, record: &DatabaseRecord) {
        let path = dir.join(&record.path);
        let problem =
            |code, text: String| DrillProblem::new(code, format!("{}: {text}", record.path));
        let found = match sqlite::inspect(&path, Depth::Indexes, &Budget::of_own()) {
            Ok(found) => found,
            Err(error) => {
                let code = match error.unchecked() {
                    Some(_) => code::DATABASE_UNCHECKED,
                    None => code::DATABASE_DAMAGED,
                };
                self.problems.push(problem(code, with_causes(&error)));
                return;
            }
        };
        if let Err(what) = compare(&found, record) {
            self.problems.push(problem(code::DATABASE_DAMAGED, what));
            return;
        }
        if let Some(what) = &found.unchecked {
            let text = format!("{}: only its application can check {what}", record.path);
            self.notes.push(text);
        }
        self.good += 1;
        self.schemas.insert(record.path.clone(), found.schema);
    }
}

fn compare(found: &Inspection, record: &DatabaseRecord) -> Result<(), String> {
    if !found.is_ok() {
        return Err(format!("integrity check: {}", found.integrity));
    }
    match found.tables == record.tables {
        true => Ok(()),
        false => Err("its tables have other rows than those that were sealed".to_owned()),
    }
}
