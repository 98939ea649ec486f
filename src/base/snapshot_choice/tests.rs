use proptest::prelude::*;

use super::*;

fn choice(text: &str) -> SnapshotChoice {
    let now: DateTime<Utc> = "2026-11-30T10:00:00Z".parse().unwrap();
    SnapshotChoice::parse_at(text, &now).unwrap()
}

fn stamp(text: &str) -> Stamp {
    text.parse().unwrap()
}

/// Stamp, sequence and hash of four snapshots. The clock was wrong when the third was made.
fn snapshots() -> Vec<(Stamp, u64, &'static str)> {
    vec![
        (stamp("20261127T040000Z"), 7, "aaaaaaaaaaaaaaaa"),
        (stamp("20261128T040000Z"), 8, "0000000000000007"),
        (stamp("20200101T000000Z"), 9, "bbbbbbbbbbbbbbbb"),
        (stamp("20261129T040000Z"), 10, "cccccccccccccccc"),
    ]
}

fn chosen(choice: &SnapshotChoice) -> Option<u64> {
    let admitted = snapshots().into_iter().filter(|(stamp, sequence, hash)| {
        choice.admits(*stamp, Some(*sequence), std::iter::once((*hash).to_owned()))
    });
    let best = admitted.max_by_key(|(stamp, sequence, _)| choice.rank(*stamp, Some(*sequence)));
    best.map(|(_, sequence, _)| sequence)
}

#[test]
fn each_way_to_write_it_chooses_its_snapshot() {
    for (text, sequence) in [
        ("latest", Some(10)),
        ("8", Some(8)),
        ("20261128T040000Z", Some(8)),
        ("cccccccccccccccc", Some(10)),
        // A hash of digits only is no large sequence.
        ("0000000000000007", Some(8)),
        ("2026-11-28", Some(8)),
        ("2026-11-26", None),
        ("2020-01-01", Some(9)),
        ("yesterday", Some(10)),
        ("today", None),
        ("2 days ago", Some(8)),
        ("2026-11-28 04:00", Some(8)),
        // Stamps decide, not the order in which they were made.
        ("2026-11-28 03:59", Some(7)),
        ("10 years ago", None),
        ("99", None),
    ] {
        assert_eq!(chosen(&choice(text)), sequence, "{text}");
    }
}

#[test]
fn a_bound_narrows_latest_and_dates() {
    let narrowed = |text: &str, before: &str| choice(text).narrowed(Some(before), &[]);
    let until = |before: &str| chosen(&narrowed("latest", before).unwrap());
    assert_eq!(until("2026-11-29T00:00Z"), Some(8));
    assert_eq!(until("20261129T040000Z"), Some(8));
    assert_eq!(until("2026-11-29T04:00:01Z"), Some(10));
    assert_eq!(until("2019-01-01"), None);
    let error = narrowed("8", "yesterday").unwrap_err();
    assert_eq!(error, BadChoice::Narrowed("8".to_owned()));
    let error = narrowed("latest", "8").unwrap_err();
    assert_eq!(error, BadChoice::NoTime("8".to_owned()));
}

#[test]
fn only_a_text_without_a_zone_is_said_to_be_local() {
    for (text, before, is_local) in [
        ("2026-11-29 18:00", None, true),
        ("2026-11-29", None, true),
        ("yesterday", None, true),
        ("2026-11-29T18:00Z", None, false),
        ("2026-11-29 18:00+01:00", None, false),
        ("latest", None, false),
        ("latest", Some("2026-11-29 18:00"), true),
        ("latest", Some("2026-11-29 18:00-05:00"), false),
        ("latest", Some("20261129T040000Z"), false),
        ("2026-11-29T18:00Z", Some("2026-11-29 18:00"), true),
    ] {
        let shown = choice(text).narrowed(before, &[]).unwrap().to_string();
        assert_eq!(shown.contains("local time"), is_local, "{shown}");
    }
}

#[test]
fn a_time_without_a_snapshot_names_its_neighbours() {
    let stamps = || snapshots().into_iter().map(|(stamp, _, _)| stamp);
    let near = choice("2026-11-30").nearest(stamps());
    assert_eq!(near.before, Some(stamp("20261129T040000Z")));
    assert_eq!(near.after, None);
    let near = choice("2021-05-05").nearest(stamps());
    assert_eq!(near.before, Some(stamp("20200101T000000Z")));
    assert_eq!(near.after, Some(stamp("20261127T040000Z")));
    assert_eq!(choice("99").nearest(stamps()), Nearest::default());
}

#[test]
fn only_what_could_be_chosen_casts_doubt() {
    let all = choice("latest");
    let (old, new) = (
        (stamp("20261128T040000Z"), 8),
        (stamp("20261129T040000Z"), 10),
    );
    assert!(all.could_be(new, old) && all.could_be(new, new) && !all.could_be(old, new));
    assert!(!choice("8").could_be(new, old));
    assert!(!choice("2026-11-28").could_be(new, old));
    let later_that_day = (stamp("20261128T050000Z"), 11);
    assert!(choice("2026-11-28").could_be(later_that_day, old));
}

#[test]
fn only_exact_names_are_deleted() {
    for text in [
        "latest",
        "yesterday",
        "2026-11-29",
        "3 days ago",
        "2026-99-99",
    ] {
        assert_eq!(exact_name(text), Err(BadChoice::NotExact(text.to_owned())));
    }
    for text in ["8", "20261128T040000Z", "aaaaaaaaaaaaaaaa", "other"] {
        assert_eq!(exact_name(text).as_deref(), Ok(text));
    }
}

proptest! {
    #[test]
    fn every_name_is_read_as_a_name(sequence in any::<u64>(), seconds in 0u32..) {
        let time = DateTime::from_timestamp(seconds.into(), 0).unwrap();
        let made = Stamp::at(time).unwrap();
        let hash = format!("{sequence:016x}");
        for text in [sequence.to_string(), made.to_string(), hash.clone()] {
            let read = choice(&text);
            prop_assert!(read.is_exact());
            prop_assert!(read.admits(made, Some(sequence), std::iter::once(hash.clone())));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let now: DateTime<Utc> = "2026-11-30T10:00:00Z".parse().unwrap();
        let _ = SnapshotChoice::parse_at(&text, &now);
        let _ = bound(&text, &now);
    }
}
