//! A first week with the program, as the people of a small server have it: set-up with S3 and a laptop, trial backups,
//! targets that go away and come back, full disks, keys that are replaced.
//!
//! Each step is a command on a terminal of 80 columns and 24 rows. Checked of every step: its exit code, no alarm where
//! nothing is wrong, the alarm where something is, that the output fits the screen, and its words. The recordings in
//! `first_week/*.md` are what a person saw; each is compared with the run. After a change of messages
//!
//! ```sh
//! SNAPSHOTS=overwrite cargo test --test cli first_week::
//! ```
//!
//! writes them. The same weeks run again in a pipe, with `LANG=C` and `NO_COLOR`: ASCII without escape codes, tables of at
//! most 80 columns.

mod judge;
mod keys;
mod laptop;
mod week;

use std::path::Path;

use snapbox::{Assert, Data};

use crate::support::is_long;
use crate::support::small_disk::SmallDisk;
use week::{Host, KeyHolder, View, Week};

/// Compares a recording with the file that shows it.
fn is_as_recorded(week: Week, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/first_week");
    let path = folder.join(format!("{name}.md"));
    Assert::new()
        .action_env("SNAPSHOTS")
        .eq(week.finish(), Data::read_from(&path, None).raw());
}

/// A directory of photos, and a database.
const DATA: &str = "mkdir photos
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo \"photo $i\" >photos/$i.txt; done
    python3 -c \"
import sqlite3
c = sqlite3.connect('app.db')
c.execute('create table t(x)')
c.executemany('insert into t values (?)', [(i,) for i in range(500)])
c.commit()\"
    touch -d 2026-04-06T12:00:00Z app.db photos/* photos";

/// The key holder's identity, and the set-up of the host.
fn set_up(week: &mut Week) {
    week.unseen(Host, DATA);
    week.day("Set-up", "now");
    let said = week.calm(KeyHolder, "sealift key generate --output key.txt");
    let recipient = said.lines().last().unwrap().to_owned();
    assert!(recipient.starts_with("age1"), "{said}");
    week.name(&recipient, "[RECIPIENT]");
    let init = format!(
        "sealift init --host dalidou --recipient {recipient} --sqlite app.db --tree photos \\\n\
         --target s3=s3://backups/home --endpoint $S3 \\\n\
         {} --schedule '0 6 * * *'",
        week.laptop_options()
    );
    week.calm(Host, &init);
}

fn first_week(view: View) -> Week {
    let mut week = Week::new(view, "The first week");
    set_up(&mut week);
    week.calm(Host, "sealift config check");
    week.day("Day 1: eight trial backups", "07 10:00");
    week.calm(Host, "sealift backup --dry-run");
    for trial in 1..=8 {
        week.at(&format!("07 10:{trial:02}"));
        week.calm(
            Host,
            &format!("echo {trial} >photos/trial-{trial}.txt; sealift backup"),
        );
        week.calm(Host, "sealift status");
    }
    week.calm(Host, "sealift list");
    week.calm(Host, "sealift stats");
    week.note("The key holder looks, and restores.");
    week.calm(
        KeyHolder,
        "sealift remote add home s3://backups/home --endpoint $S3",
    );
    week.calm_first_use(KeyHolder, "sealift list --from home");
    week.calm(
        KeyHolder,
        "sealift restore latest --from home --identity key.txt --to day-1",
    );
    week.calm(
        KeyHolder,
        "diff -r ../host/photos day-1/photos && rm -r day-1",
    );

    week.day("Day 2: the first scheduled backup", "08 05:30");
    week.calm(Host, "sealift status");
    week.at("08 06:00");
    week.calm(Host, "echo 2 >photos/day-2.txt; sealift backup");
    week.at("08 12:00");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift list");

    week.day("Day 3: another day", "09 06:00");
    week.calm(Host, "echo 3 >photos/day-3.txt; sealift backup");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift verify");

    away_and_back(&mut week);

    week.day("Day 6: the wrong identity", "12 06:00");
    week.calm(Host, "sealift backup");
    week.at("12 12:00");
    week.unseen(
        KeyHolder,
        "sealift key generate --output other.txt >other-recipient.txt",
    );
    let other = week.read(KeyHolder, "other-recipient.txt");
    week.name(other.trim(), "[OTHER-RECIPIENT]");
    week.alarm(
        KeyHolder,
        "sealift restore latest --from home --identity other.txt --to day-6",
        1,
        &["cannot decrypt", other.trim(), "--identity"],
    );
    week.calm(
        KeyHolder,
        "sealift restore yesterday --from home --identity key.txt --to day-6",
    );
    week.calm(KeyHolder, "test -f day-6/photos/day-3.txt && rm -r day-6");

    week.day("Day 7: no backup ran", "13 15:00");
    week.alarm(
        Host,
        "sealift status",
        3,
        &["ATTENTION", "s3", "laptop", "due"],
    );
    week.alarm(
        KeyHolder,
        "sealift status --from home",
        3,
        &["dalidou", "due"],
    );

    week.day("Day 8: a week of backups", "14 06:00");
    week.calm(Host, "echo 8 >photos/day-8.txt; sealift backup");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift list");
    week.calm(Host, "sealift prune --dry-run --target s3");
    week.calm(Host, "sealift prune");
    week.at("14 06:10");
    week.calm(Host, "sealift backup");
    week.calm(Host, "sealift prune");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift verify");
    week.calm(Host, "sealift list");
    week.calm(KeyHolder, "sealift status --from home");
    week.calm(
        KeyHolder,
        "sealift restore 2026-04-08 --from home --identity key.txt --to day-2",
    );
    week.calm(KeyHolder, "cat day-2/photos/day-2.txt");
    week
}

/// The laptop is closed for two days, and the S3 server does not answer for one.
fn away_and_back(week: &mut Week) {
    week.day("Day 4: the laptop is away", "10 06:00");
    let away = week.close_laptop();
    week.alarm(Host, "sealift status", 3, &["laptop", "ATTENTION", away]);
    week.alarm(
        Host,
        "echo 4 >photos/day-4.txt; sealift backup",
        3,
        &["laptop", "BEHIND", away, "next backup"],
    );
    week.alarm(Host, "sealift list --target laptop", 1, &["laptop", away]);
    week.alarm(Host, "sealift verify", 3, &["laptop", away]);
    week.note("It is opened again before the next backup.");
    week.open_laptop();
    week.at("10 20:00");
    week.alarm(Host, "sealift status", 3, &["laptop", "next backup"]);
    week.at("11 06:00");
    week.calm(Host, "echo 5 >photos/day-5.txt; sealift backup");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift list");
    week.calm(Host, "sealift verify");

    week.day("Day 5: S3 is away", "11 08:00");
    week.s3_gate.close();
    week.alarm(Host, "sealift status", 3, &["s3", "ATTENTION", "refused"]);
    week.alarm(Host, "sealift backup", 3, &["s3", "BEHIND", "refused"]);
    week.alarm(
        KeyHolder,
        "sealift restore latest --from home --identity key.txt --to day-5",
        1,
        &["home", "refused"],
    );
    week.s3_gate.open();
    week.at("11 09:00");
    week.calm(Host, "sealift backup");
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift list");
}

#[test]
fn on_a_terminal_the_week_has_no_false_alarm_and_no_missing_one() {
    is_as_recorded(first_week(View::Terminal), "first-week");
}

/// The long form.
#[test]
fn with_a_laptop_by_ssh_the_week_is_the_same() {
    if is_long() {
        first_week(View::TerminalAndSsh).finish();
    }
}

#[test]
fn in_a_pipe_the_week_is_plain_text() {
    first_week(View::Pipe).finish();
}

/// A backup fails and names these words; once `disk` is empty, at `then`, nothing is left of it.
fn fails_until_there_is_room(week: &mut Week, disk: &SmallDisk, then: &str, words: &[&str]) {
    week.alarm(Host, "sealift backup", 1, words);
    let later = [&["failed"], &words[1..]].concat();
    week.alarm(Host, "sealift status", 3, &later);
    disk.empty();
    week.at(then);
    week.calm(Host, "sealift backup");
    week.calm(Host, "sealift status");
}

fn full_disks(view: View) -> Option<Week> {
    let mut week = Week::new(view, "Full disks");
    set_up(&mut week);
    for name in ["spool-disk", "snapshots-disk"] {
        std::fs::create_dir(week.path(Host, name)).unwrap();
    }
    let spool = SmallDisk::mount(&week.path(Host, "spool-disk"))?;
    let snapshots = SmallDisk::mount(&week.path(Host, "snapshots-disk"))?;
    week.note("The state directory, with the spool, and the snapshots are each on a small disk of their own.");
    week.unseen(
        Host,
        "sed -i 's|^state = .*|state = \"spool-disk\"|' c.toml
        printf '\\n[snapshots]\\ndir = \"snapshots-disk\"\\n' >>c.toml",
    );
    week.at("07 06:00");
    week.calm(Host, "sealift backup");
    week.calm(Host, "sealift status");

    week.day("The spool's disk is full", "08 06:00");
    week.unseen(Host, "head -c 6000000 /dev/urandom >photos/new.jpg");
    spool.fill(1 << 20);
    fails_until_there_is_room(
        &mut week,
        &spool,
        "08 07:00",
        &["spool-disk", "No space left", "make room"],
    );
    week.calm(Host, "sealift list");

    week.day("It is full to the last byte", "09 06:00");
    week.unseen(Host, "head -c 3000000 /dev/urandom >photos/newer.jpg");
    spool.fill(0);
    fails_until_there_is_room(
        &mut week,
        &spool,
        "09 07:00",
        &["spool-disk", "is full", "room"],
    );

    week.day("The snapshots' disk is full", "10 06:00");
    week.unseen(
        Host,
        "python3 -c \"
import sqlite3
c = sqlite3.connect('app.db')
c.execute('insert into t values (1)')
c.commit()\"",
    );
    snapshots.fill(0);
    fails_until_there_is_room(
        &mut week,
        &snapshots,
        "10 07:00",
        &["snapshots-disk", "No space left", "make room"],
    );
    week.calm(Host, "sealift list");
    week.calm(Host, "sealift verify");
    Some(week)
}

#[test]
fn a_full_disk_is_named_and_forgotten_once_there_is_room() {
    let Some(week) = full_disks(View::Terminal) else {
        return;
    };
    is_as_recorded(week, "full-disks");
}

#[test]
fn a_full_disk_is_named_in_a_pipe_too() {
    if let Some(week) = full_disks(View::Pipe) {
        week.finish();
    }
}
