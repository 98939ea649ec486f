use super::super::Database;
use super::*;

fn stamp(day: u32) -> Stamp {
    format!("202611{day:02}T060000Z").parse().unwrap()
}

fn kept(day: u32) -> Kept {
    Kept {
        stamp: stamp(day),
        sequence: Some(u64::from(day)),
    }
}

fn taken(day: u32, sources: &[(&str, u64)]) -> SnapshotTaken {
    let sources = sources.iter().map(|(to, files)| {
        let figures = Figures {
            kind: "tree".to_owned(),
            files: *files,
            bytes: files * 1000,
            ..Figures::default()
        };
        let source = SourceTaken {
            name: (*to).to_owned(),
            rings: true,
            may_be_empty: false,
            settings: Settings::from([("exclude".to_owned(), "[]".to_owned())]),
            figures,
        };
        ((*to).to_owned(), source)
    });
    SnapshotTaken {
        snapshot: kept(day),
        sources: sources.collect(),
        left_out: BTreeSet::new(),
        configured: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
        previous: None,
    }
}

fn days(pinned: &BTreeMap<Stamp, Option<u64>>) -> Vec<u64> {
    pinned.values().map(|sequence| sequence.unwrap()).collect()
}

fn first() -> Memory {
    let mut memory = Memory::default();
    assert_eq!(
        memory.note(taken(1, &[("a", 50), ("b", 50)])),
        Noted::default()
    );
    memory
}

#[test]
fn a_second_run_of_the_shrunk_state_does_not_hide_the_alarm() {
    let mut memory = first();
    let opened = memory.note(taken(2, &[("a", 5), ("b", 50)])).opened;
    assert_eq!(opened.len(), 1);
    assert_eq!((opened[0].before, opened[0].since), (kept(1), kept(2)));
    for day in 3..6 {
        assert_eq!(
            memory.note(taken(day, &[("a", 7), ("b", 50)])),
            Noted::default()
        );
        let open = &memory.open()[0];
        assert_eq!((open.before, open.since), (kept(1), kept(2)));
        assert_eq!((open.shrunk.before, open.shrunk.now), (50, 7));
    }
    assert_eq!(days(&memory.before_shrink()), [1]);
    // The alarm of another source names its own last snapshot.
    memory.note(taken(6, &[("a", 7), ("b", 0)]));
    assert_eq!(days(&memory.before_shrink()), [1, 5]);
}

#[test]
fn an_alarm_ends_when_the_source_grows_back_or_it_is_acknowledged_and_may_come_again() {
    let mut memory = first();
    memory.note(taken(2, &[("a", 5)]));
    let back = memory.note(taken(3, &[("a", 25)])).back;
    assert_eq!(back.len(), 1);
    assert!(memory.open().is_empty() && memory.before_shrink().is_empty());
    memory.note(taken(4, &[("a", 3)]));
    assert_eq!(days(&memory.before_shrink()), [3]);
    assert_eq!(
        memory.acknowledge(Some("b"), None, DateTime::UNIX_EPOCH),
        []
    );
    let closed = memory.acknowledge(Some("a"), Some("moved"), DateTime::UNIX_EPOCH);
    assert_eq!(closed.len(), 1);
    assert!(memory.before_shrink().is_empty());
    assert_eq!(memory.acknowledged()[0].note.as_deref(), Some("moved"));
    // The present figures are right now; the next fall is a new alarm.
    assert_eq!(memory.note(taken(5, &[("a", 3)])), Noted::default());
    let opened = memory.note(taken(6, &[("a", 0)])).opened;
    let measures: Vec<&Measure> = opened.iter().map(|one| &one.shrunk.measure).collect();
    assert_eq!(measures, [&Measure::Files, &Measure::Bytes]);
}

#[test]
fn a_source_that_is_left_out_new_or_renamed_is_not_compared() {
    let mut memory = first();
    assert_eq!(
        memory.note(taken(2, &[("b", 50), ("c", 1)])),
        Noted::default()
    );
    // For the source that was left out, the last snapshot with it counts as the one before.
    let opened = memory.note(taken(3, &[("a", 0), ("b", 50)])).opened;
    assert!(
        !opened.is_empty()
            && opened
                .iter()
                .all(|one| one.to == "a" && one.before == kept(1))
    );
}

#[test]
fn the_settings_that_changed_are_named() {
    let mut memory = first();
    let mut next = taken(2, &[("a", 5)]);
    let settings = &mut next.sources.get_mut("a").unwrap().settings;
    settings.insert("exclude".to_owned(), "[\"*\"]".to_owned());
    assert_eq!(memory.note(next).opened[0].changed_settings, ["exclude"]);
    // The settings of a snapshot that is known from its metadata only are not known.
    let figures = taken(1, &[("a", 50)]).sources;
    let figures = figures.into_iter().map(|(to, one)| (to, one.figures));
    let mut memory = Memory::default();
    memory.learn(kept(1), figures.collect());
    let opened = memory.note(taken(2, &[("a", 5)])).opened;
    assert_eq!(
        (opened[0].before, &opened[0].changed_settings),
        (kept(1), &vec![])
    );
}

#[test]
fn rows_that_were_not_counted_once_are_compared_the_next_time() {
    let with = |day: u32, rows: Option<u64>| {
        let mut taken = taken(day, &[("a", 50)]);
        let database = Database {
            bytes: 5,
            tables: rows.map(|rows| BTreeMap::from([("t".to_owned(), rows)])),
        };
        let figures = &mut taken.sources.get_mut("a").unwrap().figures;
        figures.databases.insert("a/x.db".to_owned(), database);
        taken
    };
    let mut memory = Memory::default();
    memory.note(with(1, Some(1204)));
    assert_eq!(memory.note(with(2, None)), Noted::default());
    assert_eq!(memory.note(with(3, Some(0))).opened.len(), 1);
    // The alarm stays open while the rows are not counted.
    assert_eq!(memory.note(with(4, None)), Noted::default());
    assert_eq!(memory.open().len(), 1);
}

#[test]
fn figures_of_an_older_snapshot_do_not_replace_newer_ones() {
    let mut memory = first();
    let known = |memory: &Memory, day: u32, sources: &[(&str, u64)]| {
        let mut taken = taken(day, sources);
        memory.leave_out_known(&mut taken);
        taken.sources.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(known(&memory, 1, &[("a", 1)]), ["a"]);
    memory.note(taken(3, &[("a", 50)]));
    assert_eq!(known(&memory, 2, &[("a", 1)]), [""; 0]);
    // Each source counts by itself: a new one, or one that left the configuration, does not affect
    // the others.
    assert_eq!(known(&memory, 2, &[("a", 1), ("new", 1)]), ["new"]);
    assert_eq!(known(&memory, 4, &[("a", 1)]), ["a"]);
}

#[test]
fn the_file_is_read_back_as_written_and_a_damaged_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap(), None);
    let mut memory = first();
    memory.note(taken(2, &[("a", 5)]));
    memory.note(taken(3, &[("b", 5)]));
    memory.acknowledge(Some("b"), Some("note"), DateTime::UNIX_EPOCH);
    save(dir.path(), &memory).unwrap();
    assert_eq!(load(dir.path()).unwrap(), Some(memory));
    let loaded = load(dir.path()).unwrap().unwrap();
    assert_eq!(days(&loaded.before_shrink()), [1]);
    let file = dir.path().join("figures.json");
    for text in ["", "{", "[]", "{\"format\":1,\"sources\":{},\"open\":[{}]}"] {
        std::fs::write(&file, text).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            matches!(error, MemoryError::Damaged { .. }),
            "{text}: {error:?}"
        );
    }
    std::fs::write(&file, "{\"format\":2,\"sources\":{},\"open\":[]}").unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(error, MemoryError::Format { found: 2, .. }));
}

#[test]
fn the_last_snapshot_with_a_source_that_fails_is_kept_until_it_is_taken_again() {
    let without_b = |day: u32| SnapshotTaken {
        left_out: BTreeSet::from(["b".to_owned(), "never taken".to_owned()]),
        ..taken(day, &[("a", 50)])
    };
    let mut memory = first();
    memory.note(taken(2, &[("a", 50), ("b", 50)]));
    for day in 3..6 {
        memory.note(without_b(day));
        assert_eq!(days(&memory.before_failure()), [2]);
    }
    // A run for which the source was not requested changes nothing.
    memory.note(taken(6, &[("a", 50)]));
    assert_eq!(days(&memory.before_failure()), [2]);
    memory.note(taken(7, &[("a", 50), ("b", 50)]));
    assert_eq!(days(&memory.before_failure()), [0_u64; 0]);
    // The same until the source leaves the configuration.
    memory.note(without_b(8));
    assert_eq!(days(&memory.before_failure()), [7]);
    memory.note(SnapshotTaken {
        configured: BTreeSet::from(["a".to_owned()]),
        ..taken(9, &[("a", 50)])
    });
    assert_eq!(days(&memory.before_failure()), [0_u64; 0]);
}

#[test]
fn for_a_source_without_figures_the_snapshot_before_stays() {
    let mut memory = Memory::default();
    let without_b = |day: u32| SnapshotTaken {
        left_out: BTreeSet::from(["b".to_owned()]),
        previous: Some(kept(day - 1)),
        ..taken(day, &[("a", 50)])
    };
    for day in 5..9 {
        memory.note(without_b(day));
        assert_eq!(days(&memory.before_failure()), [4]);
    }
}

#[test]
fn a_source_may_be_exempt_from_alarms_or_empty() {
    let set = |day: u32, files: u64, rings: bool, may_be_empty: bool| {
        let mut taken = taken(day, &[("a", files)]);
        let a = taken.sources.get_mut("a").unwrap();
        (a.rings, a.may_be_empty) = (rings, may_be_empty);
        taken
    };
    for (files, rings, may_be_empty, expected) in [
        (5, true, false, 1),
        (5, false, false, 0),
        (0, true, true, 0),
        (5, true, true, 1),
    ] {
        let mut memory = first();
        let opened = memory.note(set(2, files, rings, may_be_empty)).opened;
        assert_eq!(
            opened.is_empty(),
            expected == 0,
            "{files} {rings} {may_be_empty}"
        );
        // When alarms are switched off for the source, its open ones end.
        memory.note(set(3, files, false, false));
        assert!(memory.open().is_empty());
    }
}
