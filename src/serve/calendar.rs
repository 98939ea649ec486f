//! What is due: the occurrences of each job of the schedule that no run was begun for. Pure.

use chrono::{DateTime, Utc};

use super::handle::RunKind;
use crate::base::ids::HostName;
use crate::config::{CronLine, Schedule};

/// Most occurrences that are looked at one by one; of more only the newest ones count.
const MOST_STEPS: usize = 2000;
/// The time whose occurrences are looked at if there are more.
const NEWEST: chrono::Duration = chrono::Duration::days(2);

/// A job of the schedule.
#[derive(Debug, Clone)]
pub(super) struct CalendarJob {
    /// Its name in the history.
    pub(super) name: String,
    pub(super) kind: RunKind,
    pub(super) lines: Vec<CronLine>,
    /// The source that the backup takes on this job's request. `None`: the job is no such one.
    pub(super) include: Option<String>,
}

impl CalendarJob {
    /// Returns its cron lines as one text.
    pub(super) fn cron(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        lines.join("; ")
    }
}

/// Returns the jobs of the schedule, in the order in which they run if several are due.
pub(super) fn jobs(schedule: &Schedule) -> Vec<CalendarJob> {
    let mut jobs = Vec::new();
    let mut add = |name: String, kind, lines: Vec<CronLine>, include| {
        if !lines.is_empty() {
            jobs.push(CalendarJob {
                name,
                kind,
                lines,
                include,
            });
        }
    };
    let backup = schedule.backup.clone();
    add("backup".to_owned(), RunKind::Backup, backup, None);
    for (source, line) in &schedule.include {
        let (name, lines) = (format!("backup {source}"), vec![line.clone()]);
        add(name, RunKind::Backup, lines, Some(source.clone()));
    }
    let of = |line: &Option<CronLine>| line.iter().cloned().collect();
    let verify = of(&schedule.verify);
    add("verify".to_owned(), RunKind::Verify, verify, None);
    let prune = of(&schedule.prune);
    add("prune".to_owned(), RunKind::Prune, prune, None);
    jobs
}

/// Returns what is missing in a schedule that lets the agent idle.
pub(super) fn lack(schedule: &Schedule) -> Option<&'static str> {
    schedule.backup.is_empty().then_some(
        "no backup is scheduled, so none begins by itself: add `backup` to [schedule], such as \"0 6 * * *\", and \
         reload the agent",
    )
}

/// The occurrences of a job around now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Occurrences {
    /// The newest one that is due. `None`: none is.
    pub(super) due: Option<DateTime<Utc>>,
    /// When the next one begins. `None`: there is none.
    pub(super) next: Option<DateTime<Utc>>,
}

/// Returns the occurrences of `lines` after `handled`. Each begins its jitter later.
pub(super) fn occurrences(
    schedule: &Schedule,
    host: &HostName,
    lines: &[CronLine],
    handled: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Occurrences {
    let (mut due, mut last) = (None, handled);
    for step in 1_usize.. {
        let Some(next) = schedule.next_of(lines, last) else {
            break;
        };
        let begin = next + schedule.jitter_at(host, next);
        if begin > now {
            let next = Some(begin);
            return Occurrences { due, next };
        }
        (due, last) = (Some(next), next);
        if step == MOST_STEPS {
            last = last.max(now - NEWEST);
        }
    }
    Occurrences { due, next: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn daily(jitter: u64) -> Schedule {
        Schedule {
            backup: vec![CronLine::parse("0 6 * * *").unwrap()],
            jitter: Duration::from_secs(jitter),
            ..Schedule::default()
        }
    }

    fn found(schedule: &Schedule, handled: &str, now: &str) -> Occurrences {
        let host = "dalidou".parse().unwrap();
        occurrences(schedule, &host, &schedule.backup, at(handled), at(now))
    }

    #[test]
    fn any_number_of_missed_occurrences_is_the_newest_one() {
        let daily = daily(0);
        let week = found(&daily, "2026-04-01T06:00:00Z", "2026-04-08T05:59:59Z");
        assert_eq!(week.due, Some(at("2026-04-07T06:00:00Z")));
        assert_eq!(week.next, Some(at("2026-04-08T06:00:00Z")));
        let none = found(&daily, "2026-04-07T06:00:00Z", "2026-04-08T05:59:59Z");
        assert_eq!((none.due, none.next), (None, week.next));
        // One that was handled is not due again on a clock that went back.
        let back = found(&daily, "2026-04-07T06:00:00Z", "2026-04-07T05:00:00Z");
        assert_eq!((back.due, back.next), (None, week.next));
    }

    #[test]
    fn an_occurrence_begins_after_its_jitter() {
        let jittered = daily(3600);
        let begin = found(&jittered, "2026-04-07T00:00:00Z", "2026-04-07T06:00:00Z").next;
        let begin = begin.unwrap();
        assert!(begin > at("2026-04-07T06:00:00Z") && begin < at("2026-04-07T07:00:00Z"));
        let text = begin.to_rfc3339();
        let due = found(&jittered, "2026-04-07T00:00:00Z", &text).due;
        assert_eq!(due, Some(at("2026-04-07T06:00:00Z")));
    }

    #[test]
    fn years_of_minutes_are_not_counted_one_by_one() {
        let mut often = daily(0);
        often.backup = vec![CronLine::parse("* * * * *").unwrap()];
        let years = found(&often, "2020-01-01T00:00:00Z", "2026-04-07T06:00:30Z");
        assert_eq!(years.due, Some(at("2026-04-07T06:00:00Z")));
        assert_eq!(years.next, Some(at("2026-04-07T06:01:00Z")));
    }

    #[test]
    fn jobs_come_in_the_order_in_which_they_run() {
        let mut all = daily(0);
        let line = || CronLine::parse("0 7 * * 0").unwrap();
        all.include = vec![("chroma".to_owned(), line())];
        (all.verify, all.prune) = (Some(line()), Some(line()));
        let jobs = jobs(&all).into_iter();
        let names: Vec<_> = jobs.map(|job| job.name).collect();
        assert_eq!(names, ["backup", "backup chroma", "verify", "prune"]);
        assert!(super::jobs(&Schedule::default()).is_empty());
        assert!(lack(&Schedule::default()).is_some() && lack(&all).is_none());
    }
}
