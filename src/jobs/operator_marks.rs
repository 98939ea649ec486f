//! What the operator says about this host: that something touched the storage, and that scheduled
//! jobs wait.
//!
//! An incident stays: the verdict goes by it until a later proof. The next backup reads every
//! database again, also those that look unchanged, and checks all of them with `integrity_check`;
//! a mark of its own says that this was done.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::context::FrontEnd;
use super::error::JobError;
use crate::base::clock::in_seconds;
use crate::base::error_chain::with_causes;
use crate::base::fs::create_private_dir;
use crate::base::ids::Stamp;
use crate::config::Config;
use crate::state::history::{History, HistoryError, OperatorMark};

/// The longest pause without an end of the operator's own.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);

/// When a pause ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseEnd {
    /// After this time, at most a day.
    After(Duration),
    /// At this time.
    At(DateTime<Utc>),
}

impl Default for PauseEnd {
    fn default() -> Self {
        Self::After(LONGEST_PAUSE)
    }
}

/// An incident that was marked.
#[derive(Debug, Serialize)]
pub(crate) struct MarkedIncident {
    pub(crate) marked_at: DateTime<Utc>,
    pub(crate) note: Option<String>,
}

/// A pause that began or ended.
#[derive(Debug, Serialize)]
pub(crate) struct PauseReport {
    /// When scheduled jobs go on; `None`: they do not wait.
    pub(crate) paused_until: Option<DateTime<Utc>>,
    /// Until when they would have waited; `None`: they did not.
    pub(crate) was_paused_until: Option<DateTime<Utc>>,
    pub(crate) note: Option<String>,
}

/// Opens the history, also before the first run.
fn open(config: &Config) -> Result<History, JobError> {
    create_private_dir(&config.state).map_err(|error| {
        let dir = config.state.display();
        JobError::from(error).with_next(format!("make the state directory {dir}"))
    })?;
    Ok(History::open(&config.state)?)
}

/// Marks that something touched the storage of this host.
pub(crate) fn mark_incident(
    config: &Config,
    note: Option<&str>,
    now: DateTime<Utc>,
) -> Result<MarkedIncident, JobError> {
    let mark = OperatorMark {
        made_at: now,
        until: None,
        note: note.map(str::to_owned),
    };
    open(config)?.set_mark(OperatorMark::INCIDENT, &mark)?;
    Ok(MarkedIncident {
        marked_at: in_seconds(now),
        note: mark.note,
    })
}

/// Lets scheduled jobs wait.
pub(crate) fn pause(
    config: &Config,
    end: PauseEnd,
    note: Option<&str>,
    now: DateTime<Utc>,
) -> Result<PauseReport, JobError> {
    let until = match end {
        PauseEnd::At(time) if time <= now => {
            let time = time.format("%Y-%m-%d %H:%M:%S UTC");
            let text = format!("the pause would end at {time}, which is past");
            return Err(JobError::request(text).with_next("give a time to come, or --for 4h"));
        }
        PauseEnd::At(time) => time,
        PauseEnd::After(time) if time.is_zero() || time > LONGEST_PAUSE => {
            let text = "a pause has a length of at most 24h, and more than none";
            return Err(JobError::request(text).with_next("for a longer one, say its end: --until"));
        }
        PauseEnd::After(time) => now + time,
    };
    let history = open(config)?;
    let before = running_pause(&history, now)?;
    let mark = OperatorMark {
        made_at: now,
        until: Some(until),
        note: note.map(str::to_owned),
    };
    history.set_mark(OperatorMark::PAUSE, &mark)?;
    Ok(PauseReport {
        paused_until: Some(in_seconds(until)),
        was_paused_until: before.and_then(|mark| mark.until).map(in_seconds),
        note: mark.note,
    })
}

/// Lets scheduled jobs go on.
pub(crate) fn resume(config: &Config, now: DateTime<Utc>) -> Result<PauseReport, JobError> {
    let before = match History::open_existing(&config.state)? {
        None => None,
        Some(history) => {
            let before = running_pause(&history, now)?;
            history.remove_mark(OperatorMark::PAUSE)?;
            before
        }
    };
    Ok(PauseReport {
        paused_until: None,
        was_paused_until: before.as_ref().and_then(|mark| mark.until).map(in_seconds),
        note: before.and_then(|mark| mark.note),
    })
}

/// Returns the pause that has not ended at `now`; `None`: there is none.
pub(crate) fn running_pause(
    history: &History,
    now: DateTime<Utc>,
) -> Result<Option<OperatorMark>, HistoryError> {
    let mark = history.mark(OperatorMark::PAUSE)?;
    Ok(mark.filter(|mark| mark.until.is_none_or(|until| now < until)))
}

/// Returns the incident after which no backup has checked all databases; `None`: there is none. If
/// the history cannot be read, warns and returns none.
pub(crate) fn unchecked_incident(config: &Config, front: &dyn FrontEnd) -> Option<OperatorMark> {
    match find_unchecked(config) {
        Ok(found) => found,
        Err(error) => {
            let why = with_causes(&error);
            front.warn(&format!(
                "it is not known whether there was an incident, so databases are checked as usual: {why}"
            ));
            None
        }
    }
}

fn find_unchecked(config: &Config) -> Result<Option<OperatorMark>, HistoryError> {
    let Some(history) = History::open_existing(&config.state)? else {
        return Ok(None);
    };
    let Some(incident) = history.mark(OperatorMark::INCIDENT)? else {
        return Ok(None);
    };
    let checked = history.mark(OperatorMark::INCIDENT_CHECKED)?;
    let is_done = checked.is_some_and(|checked| checked.made_at >= incident.made_at);
    Ok((!is_done).then_some(incident))
}

/// Records that the backup of the snapshot `stamp` has checked all databases after `incident`.
pub(crate) fn note_check(
    config: &Config,
    incident: &OperatorMark,
    stamp: Stamp,
    front: &dyn FrontEnd,
) {
    let mark = OperatorMark {
        // A later incident is not covered.
        made_at: incident.made_at,
        until: None,
        note: Some(stamp.to_string()),
    };
    let marked = History::open(&config.state)
        .and_then(|history| history.set_mark(OperatorMark::INCIDENT_CHECKED, &mark));
    match marked {
        Ok(()) => front.note(&format!(
            "after the incident of {}, every database was read again and checked in full",
            incident.made_at.format("%Y-%m-%d %H:%M UTC")
        )),
        Err(error) => front.warn(&format!(
            "the check after the incident could not be recorded, so the next backup does it again: {}",
            with_causes(&error)
        )),
    }
}
