use proptest::prelude::*;

use super::super::Amount;
use super::*;

fn tree(files: u64, bytes: u64) -> Figures {
    Figures {
        kind: "tree".to_owned(),
        files,
        bytes,
        ..Figures::default()
    }
}

fn rows(kind: &str, databases: &[(&str, &[(&str, u64)])]) -> Figures {
    let databases = databases.iter().map(|(path, tables)| {
        let tables = tables
            .iter()
            .map(|(name, rows)| ((*name).to_owned(), *rows));
        let database = Database {
            bytes: 10_000,
            tables: Some(tables.collect()),
        };
        ((*path).to_owned(), database)
    });
    let databases: BTreeMap<_, _> = databases.collect();
    Figures {
        kind: kind.to_owned(),
        files: databases.len() as u64,
        bytes: 10_000 * databases.len() as u64,
        databases,
        ..Figures::default()
    }
}

fn measures(before: &Figures, now: &Figures) -> Vec<String> {
    let found = shrunk(before, now).into_iter();
    found
        .map(|one| {
            let name = match one.measure {
                Measure::Files => "files".to_owned(),
                Measure::Bytes => "bytes".to_owned(),
                Measure::Rows { table, .. } => table,
                Measure::AllRows { .. } => "all rows".to_owned(),
                Measure::SourceRows => "source rows".to_owned(),
                Measure::Noise => "noise".to_owned(),
            };
            format!("{name} {} {}", one.before, one.now)
        })
        .collect()
}

#[test]
fn files_and_bytes_of_a_tree() {
    let mib = 1 << 20;
    for (before, now, expected) in [
        (tree(50, mib), tree(50, mib), &[][..]),
        (tree(50, mib), tree(25, mib / 2), &[]),
        (tree(50, mib), tree(24, mib), &["files 50 24"]),
        (tree(51, mib), tree(25, mib), &["files 51 25"]),
        (
            tree(50, mib),
            tree(50, mib / 2 - 1),
            &["bytes 1048576 524287"],
        ),
        (
            tree(50, mib),
            tree(0, 0),
            &["files 50 0", "bytes 1048576 0"],
        ),
        // Small sources change by more than half every day.
        (tree(3, 5000), tree(1, 100), &[]),
        (tree(9, 65_535), tree(1, 1), &[]),
        (
            tree(10, 65_536),
            tree(4, 1),
            &["files 10 4", "bytes 65536 1"],
        ),
        // Empty is empty.
        (tree(1, 5), tree(0, 0), &["files 1 0", "bytes 5 0"]),
        (tree(1, 5), tree(1, 0), &["bytes 5 0"]),
        (tree(0, 0), tree(0, 0), &[]),
        (tree(0, 0), tree(50, mib), &[]),
        (
            tree(u64::MAX, u64::MAX),
            tree(1, 1),
            &[
                "files 18446744073709551615 1",
                "bytes 18446744073709551615 1",
            ],
        ),
    ] {
        assert_eq!(measures(&before, &now), expected, "{before:?} {now:?}");
    }
}

#[test]
fn rows_of_a_database() {
    let of = |tables: &[(&str, u64)]| rows("sqlite", &[("db", tables)]);
    for (before, now, expected) in [
        (
            of(&[("documents", 1204)]),
            of(&[("documents", 0)]),
            &["documents 1204 0"][..],
        ),
        (of(&[("documents", 1204)]), of(&[]), &["documents 1204 0"]),
        (of(&[("documents", 1204)]), of(&[("documents", 602)]), &[]),
        (
            of(&[("documents", 1204)]),
            of(&[("documents", 601)]),
            &["documents 1204 601"],
        ),
        (of(&[("a", 99)]), of(&[("a", 1)]), &[]),
        // The total fell, although no table had that many rows.
        (
            of(&[("a", 60), ("b", 60)]),
            of(&[("a", 29), ("b", 29)]),
            &["all rows 120 58"],
        ),
        // To nothing.
        (of(&[("a", 3)]), of(&[("a", 0)]), &["all rows 3 0"]),
        // Rows of SQLite's own tables and of indexes.
        (
            of(&[("sqlite_stat1", 500), ("a", 200)]),
            of(&[("a", 200)]),
            &[],
        ),
        (
            of(&[
                ("t_data", 5000),
                ("t_idx", 900),
                ("t_config", 1),
                ("t_docsize", 300),
                ("t_content", 300),
            ]),
            of(&[
                ("t_data", 3),
                ("t_idx", 1),
                ("t_config", 1),
                ("t_docsize", 300),
                ("t_content", 300),
            ]),
            &[],
        ),
        (
            of(&[("user_data", 5000)]),
            of(&[("user_data", 3)]),
            &["user_data 5000 3"],
        ),
    ] {
        assert_eq!(measures(&before, &now), expected, "{before:?} {now:?}");
    }
}

#[test]
fn a_tree_of_databases_that_come_and_go() {
    let day = |name: &'static str, rows_: u64| (name, rows_);
    let of = |days: &[(&'static str, u64)]| {
        let tables: Vec<[(&str, u64); 1]> = days.iter().map(|(_, n)| [("t", *n)]).collect();
        let databases = days.iter().zip(&tables);
        let databases: Vec<(&str, &[(&str, u64)])> = databases
            .map(|((name, _), tables)| (*name, &tables[..]))
            .collect();
        rows("tree", &databases)
    };
    let three = of(&[day("d/1", 500), day("d/2", 500), day("d/3", 500)]);
    // One vanishes and another comes: a rotation.
    let next = of(&[day("d/2", 500), day("d/3", 500), day("d/4", 500)]);
    assert_eq!(measures(&three, &next), [""; 0]);
    // All their rows are gone.
    assert_eq!(
        measures(&three, &of(&[day("d/3", 500)])),
        ["source rows 1500 500"]
    );
    let none = Figures {
        files: 3,
        ..rows("tree", &[])
    };
    assert!(measures(&three, &none).contains(&"source rows 1500 0".to_owned()));
    // One of them lost its rows.
    let cut = of(&[day("d/1", 500), day("d/2", 0), day("d/3", 500)]);
    assert_eq!(measures(&three, &cut), ["t 500 0"]);
}

#[test]
fn uncounted_rows_are_not_compared_and_a_database_may_become_smaller() {
    let before = rows("tree", &[("a.db", &[("t", 500)])]);
    let mut now = before.clone();
    now.databases.get_mut("a.db").unwrap().tables = None;
    assert_eq!(measures(&before, &now), [""; 0]);
    // A VACUUM: all the rows in a tenth of the bytes.
    let large = |bytes: u64| {
        let mut figures = rows("sqlite", &[("a.db", &[("t", 500)])]);
        figures.bytes = bytes;
        figures.databases.get_mut("a.db").unwrap().bytes = bytes;
        figures
    };
    assert_eq!(measures(&large(10 << 20), &large(1 << 20)), [""; 0]);
    // A database whose rows cannot be counted is compared by its bytes.
    let uncounted = |bytes: u64| {
        let mut figures = large(bytes);
        figures.databases.get_mut("a.db").unwrap().tables = None;
        figures
    };
    assert_eq!(
        measures(&uncounted(10 << 20), &uncounted(1 << 20)),
        ["bytes 10485760 1048576"]
    );
    // A source of another kind counts as another source.
    assert_eq!(measures(&tree(50, 1 << 20), &large(0)), [""; 0]);
}

#[test]
fn files_that_turned_into_noise() {
    let of = |turned: (u64, u64), changed: u64| Figures {
        turned: Amount {
            files: turned.0,
            bytes: turned.1,
        },
        changed: Amount {
            files: changed,
            bytes: turned.1,
        },
        noise: Amount {
            files: turned.0 + 2,
            bytes: turned.1,
        },
        ..tree(100, 10 << 20)
    };
    let before = Figures {
        noise: Amount {
            files: 2,
            bytes: 100,
        },
        ..tree(100, 10 << 20)
    };
    for (now, is_alarm) in [
        (of((40, 4 << 20), 40), true),
        (of((10, 256 << 10), 10), true),
        // Too few, too little, or not as a whole.
        (of((9, 4 << 20), 9), false),
        (of((40, (256 << 10) - 1), 40), false),
        (of((40, 4 << 20), 80), false),
        (of((0, 0), 100), false),
    ] {
        assert_eq!(!measures(&before, &now).is_empty(), is_alarm, "{now:?}");
    }
    let found = shrunk(&before, &of((40, 4 << 20), 40)).remove(0);
    let noise = |files: u64| Figures {
        noise: Amount { files, bytes: 0 },
        ..tree(100, 10 << 20)
    };
    assert_eq!(found.still(&noise(42)), Some(42));
    assert_eq!(found.still(&noise(23)), Some(42));
    assert_eq!(found.still(&noise(22)), None);
}

fn any_figures() -> impl Strategy<Value = Figures> {
    let count = || prop_oneof![0..5_u64, 0..300_u64, 0..1_000_000_u64];
    let tables = proptest::collection::btree_map("[a-c]", count(), 0..3);
    let database = (count(), proptest::option::weighted(0.9, tables));
    let database = database.prop_map(|(bytes, tables)| Database { bytes, tables });
    let databases = proptest::collection::btree_map("[x-z]\\.db", database, 0..3);
    let kind = prop_oneof![3 => Just("tree"), 1 => Just("sqlite")];
    (kind, count(), count(), count(), databases).prop_map(
        |(kind, files, bytes, noise, databases)| {
            let inside: u64 = databases.values().map(|one| one.bytes).sum();
            Figures {
                kind: kind.to_owned(),
                files,
                bytes: bytes + inside,
                noise: Amount {
                    files: noise,
                    bytes: noise,
                },
                databases,
                ..Figures::default()
            }
        },
    )
}

/// Returns `figures` with more of everything.
fn grown(figures: &Figures, by: u64) -> Figures {
    let mut more = figures.clone();
    more.files += by;
    more.bytes += by;
    for table in more
        .databases
        .values_mut()
        .flat_map(|one| one.tables.iter_mut())
    {
        table.values_mut().for_each(|rows| *rows += by);
    }
    more
}

proptest! {
    #[test]
    fn a_source_that_stays_or_grows_raises_no_alarm(figures in any_figures(), by in 0..1000_u64) {
        prop_assert_eq!(shrunk(&figures, &grown(&figures, by)), Vec::new());
    }

    /// An alarm is a fall by more than half from a value above the limit; it holds while the value
    /// stays low, and ends when the earlier value is back.
    #[test]
    fn an_alarm_is_a_fall_and_lasts_until_the_figure_is_back(before in any_figures(), now in any_figures()) {
        for found in shrunk(&before, &now) {
            prop_assert!(found.now < found.before.div_ceil(2), "{:?}", found);
            prop_assert!(found.now == 0 || found.before >= FEWEST_FILES, "{:?}", found);
            prop_assert!(found.still(&now).is_some(), "{:?}", found);
            let is_known = before.databases.values().all(|one| one.tables.is_some());
            if is_known && found.measure != Measure::Bytes {
                prop_assert_eq!(found.still(&before), None, "{:?}", found);
            }
        }
    }

    #[test]
    fn a_source_that_becomes_empty_always_raises_an_alarm(before in any_figures()) {
        let empty = Figures { kind: before.kind.clone(), ..Figures::default() };
        let rang = !shrunk(&before, &empty).is_empty();
        let all: u64 = before.databases.values().flat_map(|one| &one.tables).flat_map(|t| t.values()).sum();
        prop_assert_eq!(rang, before.files > 0 || before.bytes > 0 || all >= FEWEST_ROWS);
    }
}

/// The property above found this: a fall that the next comparison would not see is no alarm.
#[test]
fn a_database_that_is_no_longer_counted_is_compared_by_its_bytes() {
    let with = |tables: Option<BTreeMap<String, u64>>, bytes: u64| {
        let database = Database { bytes, tables };
        Figures {
            databases: BTreeMap::from([("x.db".to_owned(), database)]),
            ..tree(2, 65536)
        }
    };
    let before = with(Some(BTreeMap::new()), 0);
    assert_eq!(measures(&before, &with(None, 65536)), [""; 0]);
}
