//! How long runs usually take.

use std::time::Duration;

use crate::jobs::error::JobError;
use crate::state::history::{History, RunFilter};

/// Number of newest runs that are looked at.
const LOOKED_AT: u32 = 20;
/// Fewest runs that show what is usual.
const FEWEST: usize = 3;

/// Returns how long the newest complete runs of `kind` took, the median; `None`: fewer than three
/// are known.
pub(crate) fn usual_time(history: &History, kind: &str) -> Result<Option<Duration>, JobError> {
    let filter = RunFilter {
        kind: Some(kind.to_owned()),
        is_ended: true,
        limit: Some(LOOKED_AT),
        ..RunFilter::default()
    };
    let mut times = Vec::new();
    for row in history.runs(&filter)? {
        let Some(end) = row.end else { continue };
        let is_whole = matches!(end.outcome.as_str(), "complete" | "partial");
        if let (true, Ok(took)) = (is_whole, (end.ended_at - row.run.started_at).to_std()) {
            times.push(took);
        }
    }
    times.sort();
    Ok((times.len() >= FEWEST).then(|| times[times.len() / 2]))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::state::history::{EndedRun, NewRun};

    #[test]
    fn the_median_of_the_runs_that_did_their_work_is_usual() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let runs = [
            (10, "complete"),
            (1, "failed"),
            (30, "partial"),
            (9000, "complete"),
        ];
        for (number, (took, outcome)) in runs.iter().enumerate() {
            assert_eq!(usual_time(&history, "backup").unwrap(), None);
            let run = NewRun {
                id: format!("R{number}"),
                kind: "backup".to_owned(),
                trigger: "manual".to_owned(),
                started_at: at(0),
                pid: 1,
                pid_started: 1,
                note: None,
            };
            history.begin_run(&run).unwrap();
            let end = EndedRun {
                ended_at: at(*took),
                outcome: (*outcome).to_owned(),
                exit_code: None,
                stamp: None,
                sequence: None,
                message: String::new(),
                report: None,
            };
            history.end_run(&run.id, &end).unwrap();
        }
        let usual = usual_time(&history, "backup").unwrap();
        assert_eq!(usual, Some(Duration::from_secs(30)));
    }
}
