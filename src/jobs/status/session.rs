//! One run of `status`: looks at the targets, and describes each.

use chrono::{DateTime, Utc};

use super::checks::stale;
use super::look::{self, Expected, Seen};
use super::remembered_target::RememberedTarget;
use super::shown::{LookBook, ShownSnapshot};
use super::{Asking, StatusRequest, TargetHealth};
use crate::base::error_chain::with_causes;
use crate::base::progress::Stage;
use crate::base::units::{count, duration};
use crate::config::{Config, TargetConfig};
use crate::format::signature::Trust;
use crate::jobs::context::{FrontEnd, runtime};
use crate::jobs::error::JobError;
use crate::jobs::push::PresentSigner;
use crate::jobs::receipts::look_at_receipts;
use crate::jobs::targets::{open_target, own_trust};
use crate::jobs::verdict::observed::ObservedSnapshot;
use crate::repository::HostFolder;
use crate::state::catalog::Catalog;
use crate::state::history::{History, HistoryError};
use crate::storage::TargetSpec;

/// One run of `status`.
pub(super) struct Session<'a> {
    pub(super) config: &'a Config,
    pub(super) now: DateTime<Utc>,
    pub(super) catalog: Option<&'a Catalog>,
    pub(super) history: Option<&'a History>,
    pub(super) signer: Option<&'a PresentSigner>,
    pub(super) front: &'a dyn FrontEnd,
}

impl Session<'_> {
    /// Returns the state of the requested targets, and adds the looks at them to `looks`.
    pub(super) fn targets(
        &mut self,
        request: StatusRequest<'_>,
        looks: &mut LookBook,
    ) -> Result<Vec<TargetHealth>, JobError> {
        let config = self.config;
        let is_chosen =
            |target: &&TargetConfig| request.target.is_none_or(|name| name == target.name);
        let chosen: Vec<&TargetConfig> = config.targets.iter().filter(is_chosen).collect();
        let mut remembered = Vec::new();
        for target in &chosen {
            remembered.push(RememberedTarget::read(config, self.catalog, &target.name)?);
        }
        let trust = match request.asking == Asking::Targets && !chosen.is_empty() {
            true => Some(own_trust(config, self.front)?),
            false => None,
        };
        // At the same time: each that does not answer takes some seconds.
        let seen = chosen.iter().zip(&remembered).map(async |(target, known)| {
            let trust = trust.as_ref().filter(|_| !target.write_only)?;
            Some(self.look(target, known, trust, looks).await)
        });
        let seen = runtime()?.block_on(futures::future::join_all(seen));
        let mut all = Vec::new();
        for ((target, known), seen) in chosen.into_iter().zip(&remembered).zip(seen) {
            if let Some(seen) = &seen {
                let shown = seen.as_ref().map(|seen| &seen.shown);
                let shown = shown.map_err(String::as_str);
                let recorded = looks.add(self.history, &target.name, self.now, shown);
                self.warn_of(recorded);
            }
            all.push(self.health(target, known, seen));
        }
        if let (Some(history), None) = (self.history, request.target) {
            let names: Vec<&str> = config.targets.iter().map(|one| one.name.as_str()).collect();
            self.warn_of(history.forget_other_looks(&names));
        }
        Ok(all)
    }

    /// Warns if something was not recorded.
    pub(super) fn warn_of(&self, done: Result<(), HistoryError>) {
        if let Err(error) = done {
            let error = with_causes(&error);
            self.front
                .warn(&format!("what was seen now is not recorded: {error}"));
        }
    }

    async fn look(
        &self,
        target: &TargetConfig,
        known: &RememberedTarget,
        trust: &Trust,
        looks: &LookBook,
    ) -> Result<Seen, String> {
        self.front
            .stage(Stage::InspectingTargets, Some(&target.name));
        let opened = open_target(target).map_err(|error| error.to_string())?;
        let expected = Expected {
            config: self.config,
            trust,
            signer: self.signer,
            given_up: &known.given_up,
            published: known.newest.map(|newest| ShownSnapshot {
                stamp: newest.stamp,
                sequence: newest.sequence,
                next_by: None,
            }),
            before: looks.shown(&target.name).unwrap_or_default(),
        };
        let mut seen = look::look(&opened, expected).await?;
        let can_remember = self.history.is_some() && self.catalog.is_some();
        if let Some(chain) = seen.chain.as_ref().filter(|_| can_remember) {
            let folder = HostFolder::new(opened.target.clone(), self.config.host.clone());
            let place = (target.name.as_str(), &folder);
            if let Err(error) = look_at_receipts(self.config, place, chain, self.front).await {
                let text = format!("its receipts cannot be read: {}", error.with_causes());
                seen.notes.push(text);
            }
        }
        let newest = seen
            .shown
            .newest
            .as_ref()
            .map_or(0, |newest| newest.sequence);
        let mut lacking = known
            .waiting
            .iter()
            .filter(|(.., core)| !seen.cores.contains(core));
        seen.shown.lacks_older = lacking.any(|(sequence, ..)| *sequence <= newest);
        Ok(seen)
    }

    /// Returns the state of a target: as it was `seen`, or else as it is remembered.
    fn health(
        &self,
        target: &TargetConfig,
        known: &RememberedTarget,
        seen: Option<Result<Seen, String>>,
    ) -> TargetHealth {
        let mut health = TargetHealth {
            name: target.name.clone(),
            url: TargetSpec::from_url(&target.url).label(),
            newest: None,
            sequence: None,
            age_seconds: None,
            behind: known.waiting.iter().map(|(.., core)| *core).collect(),
            recipients: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let mut newest = known.newest;
        if target.write_only {
            let text = "write-only: this host cannot look there; this is what it remembers";
            health.notes.push(text.to_owned());
        }
        match seen {
            None => {}
            Some(Err(error)) => health.problems.push(error),
            Some(Ok(seen)) => {
                // `sync` brings snapshots that this host's catalog does not know to be there.
                health.behind.retain(|core| !seen.cores.contains(core));
                let problems = seen.shown.problems.into_iter();
                health.problems.extend(problems.map(|problem| problem.text));
                health.notes.extend(seen.notes);
                health.recipients = seen.shown.recipients;
                newest = seen.shown.newest.map(|shown| ObservedSnapshot {
                    stamp: shown.stamp,
                    sequence: shown.sequence,
                    due: shown
                        .next_by
                        .or_else(|| self.config.schedule.next_by(shown.stamp.time())),
                });
            }
        }
        if let Some(newest) = newest {
            (health.newest, health.sequence) = (Some(newest.stamp), Some(newest.sequence));
            health.age_seconds = Some((self.now - newest.stamp.time()).num_seconds());
            health.problems.extend(stale(newest.due, self.now));
        }
        report_behind(&mut health);
        if let (false, Some(most)) = (health.problems.is_empty(), target.max_age) {
            let most = duration(most);
            let text = format!("may be away until its newest snapshot is {most} old (max_age)");
            health.notes.push(text);
        }
        health
    }
}

/// Adds the problem that the target lacks snapshots.
fn report_behind(health: &mut TargetHealth) {
    if !health.behind.is_empty() {
        let number = health.behind.len() as u64;
        let (snapshots, them) = (
            count(number, "snapshot"),
            if number == 1 { "it" } else { "them" },
        );
        let text = format!("{snapshots} behind; the next backup sends {them}");
        health.problems.insert(0, text);
    }
}
