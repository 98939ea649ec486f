//! The facts behind the metrics, read from history, catalog and state directory: no network, and
//! nothing that only a running process remembers, so a restart changes none of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::error::JobError;
use super::status::proof::proof_facts;
use super::status::remembered_target::RememberedTarget;
use super::status::shown::LookBook;
use super::verdict::ProvenSnapshot;
use crate::base::ids::{HostName, Stamp};
use crate::base::own_process::ProcessFigures;
use crate::base::process::is_running;
use crate::config::Config;
use crate::state::catalog::{Catalog, NewestPublication, ReadingSummary, StoredOnTarget};
use crate::state::history::{History, NewestEnd};
use crate::state::spool;

/// The total of messages, by channel and outcome.
const NOTIFY: &str = "notify";

/// Everything that metrics show, except for the verdict.
#[derive(Debug, Clone)]
pub(crate) struct MetricFacts {
    pub(crate) host: HostName,
    /// The newest snapshot that this host made. `None`: none, or the catalog was lost.
    pub(crate) newest: Option<NewestMade>,
    /// When each job of the schedule is due next.
    pub(crate) next_due: Vec<(String, DateTime<Utc>)>,
    /// The configured targets, in their order.
    pub(crate) targets: Vec<TargetFacts>,
    /// The number of ended runs by kind and outcome.
    pub(crate) run_totals: Vec<(String, String, u64)>,
    /// The kinds of runs that ever ran or are under way, by name; `backup` always.
    pub(crate) kinds: BTreeMap<String, KindFacts>,
    pub(crate) spool_bytes: u64,
    /// `None`: the configuration sets none, and the disk does not report its free space.
    pub(crate) spool_limit: Option<u64>,
    /// The configured notification channels, in their order.
    pub(crate) channels: Vec<ChannelFacts>,
    /// `None`: no agent asks.
    pub(crate) agent: Option<AgentFigures>,
}

/// The newest snapshot that this host made.
#[derive(Debug, Clone)]
pub(crate) struct NewestMade {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    pub(crate) new_bytes: u64,
    /// `None`: its run left no report.
    pub(crate) reported: Option<ReportedFacts>,
}

/// What only the report of the run that made a snapshot has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportedFacts {
    pub(crate) files: u64,
    pub(crate) stored_bytes: u64,
    /// Paths that it lacks, by the name of the configured source.
    pub(crate) skipped: Vec<(String, u64)>,
}

/// One target.
#[derive(Debug, Clone)]
pub(crate) struct TargetFacts {
    pub(crate) name: String,
    /// As this host remembers it. `None`: nothing was published there.
    pub(crate) published: Option<NewestPublication>,
    /// The stamp of the newest snapshot there: as the last look showed it, else as this host
    /// remembers it.
    pub(crate) newest_stamp: Option<Stamp>,
    /// Snapshots of this host that it lacks.
    pub(crate) behind: u64,
    pub(crate) stored: StoredOnTarget,
    /// The last look at it. `None`: never, or this host cannot look there.
    pub(crate) look: Option<LookFacts>,
    pub(crate) sent_bytes: u64,
    pub(crate) verified_at: Option<DateTime<Utc>>,
    pub(crate) readings: ReadingSummary,
    /// The newest good proof from it. `None`: there is none.
    pub(crate) proof: Option<ProvenSnapshot>,
}

/// The last look at a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookFacts {
    pub(crate) at: DateTime<Utc>,
    pub(crate) succeeded: bool,
}

/// The runs of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindFacts {
    /// When the newest complete one ended. `None`: none was complete.
    pub(crate) last_success: Option<DateTime<Utc>>,
    /// The newest that ended.
    pub(crate) last: Option<NewestEnd>,
    /// When the one that is under way began.
    pub(crate) running_since: Option<DateTime<Utc>>,
}

/// One notification channel.
#[derive(Debug, Clone)]
pub(crate) struct ChannelFacts {
    pub(crate) name: String,
    /// Messages by outcome.
    pub(crate) totals: Vec<(String, u64)>,
    /// `None`: never.
    pub(crate) last_success: Option<DateTime<Utc>>,
}

/// What only the agent knows of itself.
#[derive(Debug, Clone)]
pub(crate) struct AgentFigures {
    /// When each job of its schedule is due next.
    pub(crate) next_due: Vec<(String, DateTime<Utc>)>,
    /// Whether it uses the newest configuration file.
    pub(crate) is_config_current: bool,
    pub(crate) process: ProcessFigures,
}

/// Where the facts come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricSources<'a> {
    pub(crate) config: &'a Config,
    /// `None`: it cannot be opened, or there is none.
    pub(crate) history: Option<&'a History>,
    /// `None`: there is none before the first backup.
    pub(crate) catalog: Option<&'a Catalog>,
}

/// A configured notification channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConfiguredChannel<'a> {
    pub(crate) name: &'a str,
    /// When a message last reached it. `None`: never.
    pub(crate) last_success: Option<DateTime<Utc>>,
}

/// Gathers the facts. `agent`: those of the agent that asks.
pub(crate) fn gather(
    from: MetricSources<'_>,
    channels: &[ConfiguredChannel<'_>],
    agent: Option<AgentFigures>,
    now: DateTime<Utc>,
) -> Result<MetricFacts, JobError> {
    let config = from.config;
    let backup_due = || {
        config
            .schedule
            .next(now)
            .map(|due| ("backup".to_owned(), due))
    };
    let spool_dir = config.state.join("spool");
    let spool_bytes = spool::waiting_bytes(&spool_dir)?;
    let default_limit = || spool::default_limit(&config.state, spool_bytes).ok();
    let run_totals = from.history.map(History::run_totals).transpose()?;
    let run_totals = run_totals.unwrap_or_default();
    Ok(MetricFacts {
        host: config.host.clone(),
        newest: from.newest()?,
        next_due: match &agent {
            Some(agent) => agent.next_due.clone(),
            None => backup_due().into_iter().collect(),
        },
        targets: from.targets()?,
        kinds: from.kinds(&run_totals)?,
        run_totals,
        spool_bytes,
        spool_limit: config.spool_limit.or_else(default_limit),
        channels: from.channels(channels)?,
        agent,
    })
}

impl MetricSources<'_> {
    fn newest(&self) -> Result<Option<NewestMade>, JobError> {
        let Some(catalog) = self.catalog else {
            return Ok(None);
        };
        let snapshots = catalog.snapshots()?;
        let Some(newest) = snapshots.last() else {
            return Ok(None);
        };
        let sequence = newest.known.sequence;
        let report = match self.history {
            Some(history) => history.report_of_snapshot(sequence)?,
            None => None,
        };
        Ok(Some(NewestMade {
            stamp: newest.known.stamp,
            sequence,
            bytes: newest.bytes,
            new_bytes: newest.new_bytes,
            reported: report.and_then(|report| reported(self.config, &report)),
        }))
    }

    fn targets(&self) -> Result<Vec<TargetFacts>, JobError> {
        let looks = self.history.map(LookBook::read).transpose()?;
        let looks = looks.unwrap_or_default();
        let sent = self.history.map(History::sent_bytes).transpose()?;
        let sent: BTreeMap<String, u64> = sent.unwrap_or_default().into_iter().collect();
        let mut proven = match self.history {
            Some(history) => proof_facts(self.config, history, self.catalog)?.targets,
            None => BTreeMap::new(),
        };
        let mut targets = Vec::new();
        for target in &self.config.targets {
            let name = &target.name;
            let look = looks.look(name);
            let remembered = RememberedTarget::read(self.config, self.catalog, name)?;
            let mut facts = TargetFacts {
                name: name.clone(),
                published: None,
                newest_stamp: None,
                behind: remembered.waiting.len() as u64,
                stored: StoredOnTarget::default(),
                look: look.map(|look| LookFacts {
                    at: look.looked_at,
                    succeeded: look.error.is_none(),
                }),
                sent_bytes: sent.get(name).copied().unwrap_or_default(),
                verified_at: None,
                readings: ReadingSummary::default(),
                proof: proven.remove(name).flatten(),
            };
            if let Some(catalog) = self.catalog {
                facts.published = catalog.newest_publication(name)?;
                facts.stored = catalog.stored_on(name)?;
                facts.verified_at = catalog.verified_at(name)?;
                facts.readings = catalog.reading_summary(name)?;
            }
            let shown = looks.shown(name).and_then(|shown| shown.newest);
            let seen_at = look.and_then(|look| look.succeeded_at);
            let seen = seen_at.zip(shown.map(|newest| newest.stamp));
            facts.newest_stamp = newest_stamp(seen, facts.published);
            targets.push(facts);
        }
        Ok(targets)
    }

    fn kinds(
        &self,
        totals: &[(String, String, u64)],
    ) -> Result<BTreeMap<String, KindFacts>, JobError> {
        let mut kinds = BTreeMap::from([("backup".to_owned(), KindFacts::default())]);
        let Some(history) = self.history else {
            return Ok(kinds);
        };
        for (kind, ..) in totals {
            kinds.entry(kind.clone()).or_default();
        }
        for end in history.newest_ends()? {
            let kind = kinds.entry(end.kind.clone()).or_default();
            if end.outcome == "complete" {
                kind.last_success = Some(end.ended_at);
            }
            // The newest comes last.
            kind.last = Some(end);
        }
        let open = history.open_runs()?.into_iter();
        // The row of a run that was killed has no end until the next one closes it.
        for open in open.filter(|open| is_running(open.run.pid, open.run.pid_started)) {
            let kind = kinds.entry(open.run.kind).or_default();
            kind.running_since.get_or_insert(open.run.started_at);
        }
        Ok(kinds)
    }

    fn channels(&self, channels: &[ConfiguredChannel<'_>]) -> Result<Vec<ChannelFacts>, JobError> {
        let totals = self.history.map(|history| history.totals(NOTIFY));
        let totals = totals.transpose()?.unwrap_or_default();
        let facts = channels.iter().map(|channel| {
            let own = totals.iter().filter(|(name, ..)| name == channel.name);
            ChannelFacts {
                name: channel.name.to_owned(),
                totals: own
                    .map(|(_, outcome, number)| (outcome.clone(), *number))
                    .collect(),
                last_success: channel.last_success,
            }
        });
        Ok(facts.collect())
    }
}

/// Returns the stamp of the newest snapshot on a target: the last look showed `seen`, its time and
/// that stamp. What this host published there after the look counts more than the look.
fn newest_stamp(
    seen: Option<(DateTime<Utc>, Stamp)>,
    published: Option<NewestPublication>,
) -> Option<Stamp> {
    match (seen, published) {
        (Some((looked_at, stamp)), published) => match published {
            Some(published) if published.published_at > looked_at => Some(published.stamp),
            _ => Some(stamp),
        },
        (None, published) => published.map(|published| published.stamp),
    }
}

/// The part of a run's report that metrics need. A report of another version may lack fields.
#[derive(Deserialize)]
struct ReportPart {
    files: u64,
    stored_bytes: u64,
    #[serde(default)]
    skipped: Vec<SkippedPart>,
}

#[derive(Deserialize)]
struct SkippedPart {
    path: String,
}

/// Returns the figures of `report`; `None`: it is not one of a backup.
fn reported(config: &Config, report: &str) -> Option<ReportedFacts> {
    let part: ReportPart = serde_json::from_str(report).ok()?;
    let mut skipped: Vec<(String, u64)> = config
        .sources
        .iter()
        .map(|source| (source.name.clone(), 0))
        .collect();
    for lacking in &part.skipped {
        let is_below = |to: &str| {
            let below = lacking.path.strip_prefix(to);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let sources = config.sources.iter().zip(&mut skipped);
        // The longest, since one source may be below another.
        let source = sources
            .filter(|(source, _)| is_below(&source.to))
            .max_by_key(|(source, _)| source.to.len());
        if let Some((_, (_, number))) = source {
            *number += 1;
        }
    }
    Some(ReportedFacts {
        files: part.files,
        stored_bytes: part.stored_bytes,
        skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_775_541_600 + second, 0).unwrap()
    }

    /// Kind: the target shows another snapshot than this host put there.
    #[test]
    fn the_newest_stamp_is_what_the_target_showed_last() {
        let stamp = |second| Stamp::at(at(second)).unwrap();
        let published = NewestPublication {
            stamp: stamp(500),
            sequence: 2,
            published_at: at(510),
        };
        for (seen, expected) in [
            (None, 500),
            (Some((at(600), stamp(100))), 100),
            (Some((at(505), stamp(100))), 500),
        ] {
            let found = newest_stamp(seen, Some(published));
            assert_eq!(found, Some(stamp(expected)), "{seen:?}");
        }
        let only_shown = newest_stamp(Some((at(600), stamp(100))), None);
        assert_eq!(only_shown, Some(stamp(100)));
        assert_eq!(newest_stamp(None, None), None);
    }
}
