//! What is probably not meant in how the backups are operated: owners that this host does not know,
//! a single target, a schedule that is too fine, failures that go unnoticed.
//!
//! None of it keeps a backup from being made. Most of it is advice, which changes no exit code: an
//! operator may have reasons, or a watcher that this configuration does not show.

use std::time::Duration;

use super::ConfigChecker;
use crate::base::clock;
use crate::base::units::duration;
use crate::jobs::run_history::usual_time;
use crate::state::history::History;

/// The owner of the preset's copies: a user in AtoCore's container, whom the host need not know.
const OF_PRESET: (u32, u32) = (1000, 1000);

/// What notices that backups fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureNotice {
    /// No notification channel is configured.
    Missing,
    /// The agent reports failures. If it does not run, there is no report.
    FromAgent,
    /// A channel outside of this machine also notices the silence of the agent.
    AlsoOfAgent,
}

impl ConfigChecker<'_> {
    /// A copy may get an owner whom this host does not know.
    pub(super) fn owners(&mut self) {
        for source in &self.config.sources {
            let Some((user, group)) = source.owner else {
                continue;
            };
            if self.config.preset_root.is_some() && (user, group) == OF_PRESET {
                continue;
            }
            let no_user = uzers::get_user_by_uid(user).is_none();
            let no_group = uzers::get_group_by_gid(group).is_none();
            let lacks = match (no_user, no_group) {
                (false, false) => continue,
                (true, false) => format!("no user {user}"),
                (false, true) => format!("no group {group}"),
                (true, true) => format!("no user {user} and no group {group}"),
            };
            self.advise(
                format_args!("source {}", source.name),
                format_args!(
                    "owner \"{user}:{group}\": this host has {lacks}; that is right only if a container has them"
                ),
            );
        }
    }

    /// One target is one fault, one theft or one mistake away from none.
    pub(super) fn second_target(&mut self) {
        if let [only] = self.config.targets.as_slice() {
            self.advise(
                "targets",
                format_args!(
                    "{} is the only one: add another in another place, with other credentials (`sealift target add URL`)",
                    only.name
                ),
            );
        }
    }

    /// Without a schedule no backup is late. One that takes longer than the time to the next one is
    /// always late.
    pub(super) fn schedule(&mut self) {
        let schedule = &self.config.schedule;
        if schedule.backup.is_empty() {
            self.advise(
                "schedule",
                "no backup is scheduled, so one that is missing goes unnoticed: add `backup` to [schedule], such as \
                 \"0 6 * * *\", whatever starts it",
            );
        }
        let now = clock::now();
        let interval = || {
            let next = schedule.next(now)?;
            (schedule.next(next)? - next).to_std().ok()
        };
        // Who may not read the history learns nothing of it.
        let history = History::open_existing(&self.config.state).ok().flatten();
        let usual = history.and_then(|history| usual_time(&history, "backup").ok()?);
        if let (Some(interval), Some(usual)) = (interval(), usual)
            && usual > interval
        {
            self.too_fine(interval, usual);
        }
    }

    fn too_fine(&mut self, interval: Duration, usual: Duration) {
        self.warn(
            "schedule",
            format_args!(
                "a backup is due each {}, and usually takes {}: make the schedule coarser",
                duration(interval),
                duration(usual)
            ),
        );
    }

    /// Advises a channel that reports failed backups, and one that notices that the agent is gone.
    pub(super) fn notifications(&mut self, notice: FailureNotice) {
        match notice {
            FailureNotice::AlsoOfAgent => {}
            FailureNotice::Missing => self.advise(
                "notify",
                "there is no notification channel, so a backup that fails goes unnoticed: add a [[notify]] table, and try \
                 it with `sealift notify test`",
            ),
            FailureNotice::FromAgent => self.advise(
                "notify",
                "no channel notices the end of the agent itself, or of this machine: add one of kind = \"healthchecks\", \
                 or let a third machine watch (deploy/sealift-watch.timer)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::state::history::{EndedRun, NewRun};

    fn warnings(config: &str, state: &Path, check: impl Fn(&mut ConfigChecker<'_>)) -> String {
        let text = format!(
            "host = \"h\"\nrecipients = [\"age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9\"]\n\
             signer = \"signer\"\nstate = \"{}\"\n{config}",
            state.display()
        );
        let config = Config::parse(&text, Path::new("/etc/sealift/sealift.toml")).unwrap();
        let mut checker = ConfigChecker {
            config: &config,
            errors: Vec::new(),
            warnings: Vec::new(),
            advice: Vec::new(),
        };
        check(&mut checker);
        let lines = checker.warnings.iter().chain(&checker.advice);
        lines
            .map(|one| format!("{}: {}\n", one.about, one.text))
            .collect()
    }

    #[test]
    fn an_owner_that_the_host_does_not_know_is_named() {
        let dir = Path::new("/nowhere");
        let of = |owner: &str| {
            let source = format!(
                "[[source]]\nkind = \"json\"\nname = \"a\"\npath = \"/x.json\"\nowner = \"{owner}\"\n"
            );
            warnings(&source, dir, |checker| checker.owners())
        };
        assert_eq!(of("0:0"), "");
        let said = of("4000000007:0");
        assert!(
            said.contains("source a: ") && said.contains("no user 4000000007;"),
            "{said}"
        );
        assert!(of("4000000007:4000000008").contains("and no group 4000000008"));
        let preset = "[snapshots]\npreset = \"atocore\"\nroot = \"/srv\"\n";
        assert_eq!(warnings(preset, dir, |checker| checker.owners()), "");
    }

    #[test]
    fn a_schedule_that_is_finer_than_a_usual_run_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let schedule = "[schedule]\nbackup = \"*/30 * * * *\"\n";
        let check = || warnings(schedule, dir.path(), |checker| checker.schedule());
        assert_eq!(check(), "");
        let without = warnings("", dir.path(), |checker| checker.schedule());
        assert!(without.contains("goes unnoticed"), "{without}");
        let history = History::open(dir.path()).unwrap();
        let at = |second| chrono::DateTime::from_timestamp(second, 0).unwrap();
        for (number, minutes) in [29, 31, 45].into_iter().enumerate() {
            assert_eq!(check(), "");
            let id = number.to_string();
            let run = NewRun {
                id: id.clone(),
                kind: "backup".to_owned(),
                trigger: "timer".to_owned(),
                started_at: at(0),
                pid: 1,
                pid_started: 1,
                note: None,
            };
            history.begin_run(&run).unwrap();
            let end = EndedRun {
                ended_at: at(minutes * 60),
                outcome: "complete".to_owned(),
                exit_code: Some(0),
                stamp: None,
                sequence: None,
                message: String::new(),
                report: None,
            };
            history.end_run(&id, &end).unwrap();
        }
        let said = check();
        assert!(
            said.contains("due each 30 min 0 s, and usually takes 31 min 0 s"),
            "{said}"
        );
    }

    #[test]
    fn who_notices_failures_is_named_until_somebody_does() {
        let of = |notice| {
            warnings("", Path::new("/nowhere"), |checker| {
                checker.notifications(notice)
            })
        };
        assert!(of(FailureNotice::Missing).contains("no notification channel"));
        assert!(of(FailureNotice::FromAgent).contains("healthchecks"));
        assert_eq!(of(FailureNotice::AlsoOfAgent), "");
    }
}
