//! Row counts of databases, as the sealed indexes state them: `documents>1000`.

use crate::format::index::IndexHeader;

/// A comparison with a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowComparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Other,
}

/// The signs, those of two characters first.
const SIGNS: [(&str, RowComparison); 7] = [
    (">=", RowComparison::AtLeast),
    ("<=", RowComparison::AtMost),
    ("!=", RowComparison::Other),
    ("==", RowComparison::Equal),
    (">", RowComparison::Above),
    ("<", RowComparison::Below),
    ("=", RowComparison::Equal),
];

/// What a table's number of rows must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCondition {
    table: String,
    comparison: RowComparison,
    rows: u64,
}

impl RowCondition {
    /// Reads `TABLE>N`; the signs are `>`, `>=`, `<`, `<=`, `=` and `!=`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no condition like \"documents>1000\"");
        // The last sign counts: a table may have one in its name.
        let at = text.rfind(['<', '>', '=']).ok_or_else(wrong)?;
        let ends = |(sign, _): &&(&str, RowComparison)| text[..=at].ends_with(sign);
        let (sign, comparison) = SIGNS.iter().find(ends).ok_or_else(wrong)?;
        let table = text[..=at - (sign.len() - 1)].strip_suffix(&sign[..1]);
        let table = table.map(str::trim).filter(|table| !table.is_empty());
        Ok(Self {
            table: table.ok_or_else(wrong)?.to_owned(),
            comparison: *comparison,
            rows: text[at + 1..].trim().parse().map_err(|_| wrong())?,
        })
    }

    fn holds(&self, rows: u64) -> bool {
        match self.comparison {
            RowComparison::Above => rows > self.rows,
            RowComparison::AtLeast => rows >= self.rows,
            RowComparison::Below => rows < self.rows,
            RowComparison::AtMost => rows <= self.rows,
            RowComparison::Equal => rows == self.rows,
            RowComparison::Other => rows != self.rows,
        }
    }
}

/// A table that fulfils a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsFound {
    /// Position of the snapshot among those that were searched.
    pub snapshot: u32,
    /// Path of the database; lossy where not UTF-8.
    pub database: String,
    /// Name of the table.
    pub table: String,
    /// Number of its rows.
    pub rows: u64,
}

/// Returns the tables in the databases of `header` that fulfil `condition`; `is_meant` returns
/// whether a database's path is meant.
pub(super) fn matching(
    header: &IndexHeader,
    condition: &RowCondition,
    snapshot: u32,
    is_meant: impl Fn(&[u8]) -> bool,
) -> Vec<RowsFound> {
    let meant = header.databases.iter();
    let meant = meant.filter(|database| is_meant(database.path.as_bytes()));
    let found = meant.filter_map(|database| {
        let rows = *database.tables.get(&condition.table)?;
        condition.holds(rows).then(|| RowsFound {
            snapshot,
            database: database.path.clone(),
            table: condition.table.clone(),
            rows,
        })
    });
    found.collect()
}

/// A table whose number of rows differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RowChange {
    /// Path of the database; lossy where not UTF-8.
    pub database: String,
    /// Name of the table.
    pub table: String,
    /// Number of rows before; `None`: there was no such table, or no such database.
    pub before: Option<u64>,
    /// Number of rows after; `None`: as before.
    pub after: Option<u64>,
}

/// Returns the tables whose number of rows differs; `is_meant` returns whether a database's path
/// is meant.
pub fn row_changes(
    before: &IndexHeader,
    after: &IndexHeader,
    is_meant: impl Fn(&[u8]) -> bool,
) -> Vec<RowChange> {
    let counts = |header: &IndexHeader| {
        let databases = header.databases.iter();
        let meant = databases.filter(|one| is_meant(one.path.as_bytes()));
        let of_tables = meant.flat_map(|one| {
            let tables = one.tables.iter();
            tables.map(|(table, rows)| ((one.path.clone(), table.clone()), *rows))
        });
        of_tables.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (before, after) = (counts(before), counts(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let changes = names.into_iter().filter_map(|name| {
        let (before, after) = (before.get(name).copied(), after.get(name).copied());
        (before != after).then(|| RowChange {
            database: name.0.clone(),
            table: name.1.clone(),
            before,
            after,
        })
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_a_table_a_sign_and_a_number() {
        for (text, table, rows, holds) in [
            ("documents>1000", "documents", 1001, true),
            ("documents>1000", "documents", 1000, false),
            ("documents >= 1000", "documents", 1000, true),
            ("d<1", "d", 0, true),
            ("d<=1", "d", 2, false),
            ("d=0", "d", 0, true),
            ("d==0", "d", 1, false),
            ("d!=0", "d", 1, true),
            ("a>b=3", "a>b", 3, true),
        ] {
            let condition = RowCondition::parse(text).unwrap();
            assert_eq!(condition.table, table, "{text}");
            assert_eq!(condition.holds(rows), holds, "{text} {rows}");
        }
        for wrong in ["", "d", ">5", "d>", "d>x", "d>-1", "\u{e4}"] {
            assert!(RowCondition::parse(wrong).is_err(), "{wrong}");
        }
    }
}
