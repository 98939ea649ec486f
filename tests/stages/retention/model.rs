//! Retention held against a model that was written from its documentation (docs/operations.md,
//! "Retention"), not from its code: random policies on random histories, with clocks that jump, stand
//! still and run ahead, snapshots of one second, late arrivals, forks, pins and tags.
//!
//! The model is slow and plain: dates are texts, a week is found by walking back to its Sunday.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc, Weekday};
use proptest::prelude::*;
use sealift::base::ids::Stamp;
use sealift::retention::{Candidate, Policy, Reason, TagMatch, decide};

fn date(one: &Candidate) -> String {
    one.stamp.time().format("%Y-%m-%d").to_string()
}

fn hour(one: &Candidate) -> String {
    one.stamp.time().format("%Y-%m-%d %H").to_string()
}

/// "A week (Sunday to Saturday)".
fn week(one: &Candidate) -> String {
    let mut day: NaiveDate = one.stamp.time().date_naive();
    while day.weekday() != Weekday::Sun {
        day = day.pred_opt().unwrap();
    }
    day.to_string()
}

fn month(one: &Candidate) -> String {
    date(one)[..7].to_owned()
}

fn year(one: &Candidate) -> String {
    date(one)[..4].to_owned()
}

struct Model<'a> {
    all: &'a [Candidate],
    policy: &'a Policy,
    now: DateTime<Utc>,
}

impl Model<'_> {
    /// "The newest snapshot": of the highest sequence. Of a fork both are, and the later stamp counts.
    fn newest(&self) -> &Candidate {
        let highest = self.all.iter().map(|one| one.sequence).max().unwrap();
        let heads = self.all.iter().filter(|one| one.sequence == highest);
        heads.max_by_key(|one| one.stamp).unwrap()
    }

    /// "A stamp after the newest snapshot's is of a clock that ran ahead."
    fn is_ahead(&self, one: &Candidate) -> bool {
        one.stamp > self.newest().stamp
    }

    /// "It counts as made when the next one was."
    fn made(&self, one: &Candidate) -> DateTime<Utc> {
        if !self.is_ahead(one) {
            return one.stamp.time();
        }
        let mut later: Vec<&Candidate> = self.all.iter().collect();
        later.retain(|other| other.sequence >= one.sequence && !self.is_ahead(other));
        let next = later.iter().map(|other| other.sequence).min().unwrap();
        later.retain(|other| other.sequence == next);
        later.iter().map(|other| other.stamp.time()).max().unwrap()
    }

    /// "Of a day the last snapshot stays. A week, a month and a year stay by their first day's; where that is
    /// missing, by the next later day's", for the newest `count` that have any; of those that were in time and
    /// of those that were late.
    fn speaks(&self, one: &Candidate, count: u32, period: fn(&Candidate) -> String) -> bool {
        if self.is_ahead(one) {
            return false;
        }
        let placed: Vec<&Candidate> = self.all.iter().filter(|o| !self.is_ahead(o)).collect();
        let periods: BTreeSet<String> = placed.iter().map(|o| period(o)).collect();
        let newer = periods.iter().filter(|other| **other > period(one)).count();
        if newer >= count as usize {
            return false;
        }
        let beside = placed
            .iter()
            .filter(|other| period(other) == period(one) && other.late == one.late);
        let beside: Vec<&&Candidate> = beside.collect();
        let is_earlier_day = beside.iter().any(|other| date(other) < date(one));
        let is_later_that_day = beside
            .iter()
            .any(|other| date(other) == date(one) && other.sequence > one.sequence);
        !is_earlier_day && !is_later_that_day
    }

    fn reasons(&self, one: &Candidate) -> BTreeSet<Reason> {
        let highest = |wanted: fn(&Candidate) -> bool| {
            let wanted = self.all.iter().filter(|other| wanted(other));
            wanted.map(|other| other.sequence).max()
        };
        let newest = self.newest().sequence;
        let whole = highest(|other| other.whole);
        let distinct: BTreeSet<u64> = self.all.iter().map(|other| other.sequence).collect();
        let newer = distinct.iter().filter(|n| **n > one.sequence).count();
        let is_within = self.policy.within.is_some_and(|within| {
            let age = (self.now - self.made(one)).num_seconds();
            age <= i64::try_from(within.as_secs()).unwrap()
        });
        let all = [
            (Reason::Newest, one.sequence == newest),
            (
                Reason::Whole,
                whole != Some(newest) && one.whole && Some(one.sequence) == whole,
            ),
            (Reason::Pinned, one.pinned),
            // "Snapshots with such a tag stay, and so do those whose tags are not known."
            (Reason::Tagged, one.tags == TagMatch::Kept),
            (Reason::TagsUnknown, one.tags == TagMatch::Unknown),
            (
                Reason::Proven,
                one.proven && Some(one.sequence) == highest(|other| other.proven),
            ),
            (Reason::Within, is_within),
            (Reason::Last, newer < self.policy.last as usize),
            (Reason::Hourly, self.speaks(one, self.policy.hourly, hour)),
            (Reason::Daily, self.speaks(one, self.policy.daily, date)),
            (Reason::Weekly, self.speaks(one, self.policy.weekly, week)),
            (
                Reason::Monthly,
                self.speaks(one, self.policy.monthly, month),
            ),
            (Reason::Yearly, self.speaks(one, self.policy.yearly, year)),
        ];
        let stays = all.into_iter().filter(|(_, stays)| *stays);
        stays.map(|(reason, _)| reason).collect()
    }
}

/// What the clock does between one snapshot and the next.
#[derive(Debug, Clone)]
enum Step {
    Hours(i64),
    Days(i64),
    /// Nothing passes.
    Still,
    /// For this one alone the clock says another time.
    Glitch(&'static str),
    /// It is set back or forth for good.
    Set(i64),
}

fn steps() -> impl Strategy<Value = Step> {
    let glitches = [
        "1970-01-01T00:00:07Z",
        "2026-10-25T00:59:59Z",
        "2099-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    prop_oneof![
        8 => (1..40i64).prop_map(Step::Hours),
        6 => (1..40i64).prop_map(Step::Days),
        2 => Just(Step::Still),
        1 => prop::sample::select(glitches.to_vec()).prop_map(Step::Glitch),
        1 => (-200..200i64).prop_map(Step::Set),
    ]
}

fn histories() -> impl Strategy<Value = Vec<Candidate>> {
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.9),
        // Of a fork two have one sequence.
        prop::bool::weighted(0.05),
        tag_matches(),
    );
    prop::collection::vec((steps(), flags), 1..45).prop_map(|steps| {
        let mut clock: DateTime<Utc> = "2026-01-30T22:30:00Z".parse().unwrap();
        let mut sequence = 0;
        type Flags = (bool, bool, bool, bool, bool, TagMatch);
        let one = |(step, (pinned, proven, late, whole, fork, tags)): (Step, Flags)| {
            let mut says = None;
            match step {
                Step::Hours(hours) => clock += chrono::Duration::hours(hours),
                Step::Days(days) => clock += chrono::Duration::days(days),
                Step::Still => {}
                Step::Glitch(text) => says = Some(text.parse().unwrap()),
                Step::Set(days) => clock += chrono::Duration::days(days),
            }
            sequence += u64::from(!fork || sequence == 0);
            Candidate {
                sequence,
                stamp: Stamp::at(says.unwrap_or(clock)).unwrap(),
                pinned,
                tags,
                proven,
                late,
                whole,
            }
        };
        steps.into_iter().map(one).collect()
    })
}

fn tag_matches() -> impl Strategy<Value = TagMatch> {
    prop_oneof![
        8 => Just(TagMatch::None),
        1 => Just(TagMatch::Kept),
        1 => Just(TagMatch::Unknown),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let within = prop::option::of((1..2000u64).prop_map(|hours| Duration::from_secs(hours * 3600)));
    (0..4u32, 0..6u32, 0..9u32, 0..6u32, 0..8u32, 0..3u32, within).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_code_keeps_what_the_documentation_says(
        all in histories(),
        policy in policies(),
        hours in -3..3000i64,
    ) {
        let last = all.last().unwrap().stamp.time();
        let now = last.checked_add_signed(chrono::Duration::hours(hours)).unwrap_or(last);
        let decided = decide(&all, &policy, now);
        let model = Model { all: &all, policy: &policy, now };
        for (one, reasons) in all.iter().zip(decided) {
            let expected = model.reasons(one);
            prop_assert_eq!(&reasons, &expected, "{:?} by {:?} at {}", one, policy, now);
        }
    }
}
