//! The table of all metrics: docs/metrics.md has the same, and a test compares them.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Gauge,
    /// It only grows. Its name ends in `_total`.
    Counter,
}

/// A metric: all series of one name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricFamily {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricFamily {
    MetricFamily {
        name,
        kind: MetricKind::Gauge,
        labels,
        help,
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricFamily {
    MetricFamily {
        name,
        kind: MetricKind::Counter,
        labels,
        help,
    }
}

/// The metrics of a process. A text file for another exporter has none of them: that exporter has
/// its own under the same names.
pub(crate) const PROCESS: &str = "process_";

/// Every metric, in the order of the output.
pub(crate) const FAMILIES: &[MetricFamily] = &[
    gauge(
        "sealift_build_info",
        &["version", "host"],
        "The version of sealift and the host of its configuration. Always 1.",
    ),
    gauge(
        "sealift_verdict",
        &[],
        "The verdict on the backups: 0 green, 1 amber, 2 red.",
    ),
    gauge(
        "sealift_findings",
        &["severity", "code"],
        "Findings of the verdict that are not acknowledged.",
    ),
    gauge(
        "sealift_last_snapshot_timestamp_seconds",
        &[],
        "The stamp of the newest snapshot that this host made.",
    ),
    gauge(
        "sealift_last_snapshot_sequence",
        &[],
        "The sequence of the newest snapshot.",
    ),
    gauge(
        "sealift_last_snapshot_bytes",
        &[],
        "Size of the files of the newest snapshot.",
    ),
    gauge(
        "sealift_last_snapshot_files",
        &[],
        "Files of the newest snapshot.",
    ),
    gauge(
        "sealift_last_snapshot_new_bytes",
        &[],
        "Bytes of the newest snapshot that no earlier archive held.",
    ),
    gauge(
        "sealift_last_snapshot_stored_bytes",
        &[],
        "Size of the archives that were made for the newest snapshot.",
    ),
    gauge(
        "sealift_skipped_files",
        &["source"],
        "Paths that the newest snapshot lacks because they could not be read.",
    ),
    gauge(
        "sealift_next_due_timestamp_seconds",
        &["job"],
        "When the job of the schedule is due next.",
    ),
    gauge(
        "sealift_target_last_published_timestamp_seconds",
        &["target"],
        "When the newest snapshot on the target was published there.",
    ),
    gauge(
        "sealift_target_newest_stamp_timestamp_seconds",
        &["target"],
        "The stamp of the newest snapshot on the target.",
    ),
    gauge(
        "sealift_target_behind_snapshots",
        &["target"],
        "Snapshots that wait to be sent to the target.",
    ),
    gauge(
        "sealift_target_archives",
        &["target"],
        "Archives on the target.",
    ),
    gauge(
        "sealift_target_stored_bytes",
        &["target"],
        "Size of the archives on the target.",
    ),
    gauge(
        "sealift_target_last_look_timestamp_seconds",
        &["target"],
        "When this host last looked at the target.",
    ),
    gauge(
        "sealift_target_last_look_success",
        &["target"],
        "Whether the last look at the target succeeded: 1, or 0.",
    ),
    counter(
        "sealift_sent_bytes_total",
        &["target"],
        "Bytes that runs have sent to the target.",
    ),
    counter(
        "sealift_runs_total",
        &["kind", "outcome"],
        "Runs that have ended.",
    ),
    gauge(
        "sealift_run_last_success_timestamp_seconds",
        &["kind"],
        "When the newest complete run ended. 0: none was complete.",
    ),
    gauge(
        "sealift_run_last_end_timestamp_seconds",
        &["kind"],
        "When the newest run that has ended did so.",
    ),
    gauge(
        "sealift_run_last_exit_code",
        &["kind"],
        "The exit code of the newest run that has ended. Absent: a signal ended it.",
    ),
    gauge(
        "sealift_run_last_duration_seconds",
        &["kind"],
        "How long the newest run that has ended took.",
    ),
    gauge(
        "sealift_run_running",
        &["kind"],
        "Whether a run is under way: 1, or 0.",
    ),
    gauge(
        "sealift_run_started_timestamp_seconds",
        &["kind"],
        "When the run that is under way began.",
    ),
    gauge(
        "sealift_spool_bytes",
        &[],
        "Size of the archives that wait in the spool.",
    ),
    gauge(
        "sealift_spool_limit_bytes",
        &[],
        "The size up to which the spool may grow.",
    ),
    gauge(
        "sealift_verify_last_success_timestamp_seconds",
        &["target"],
        "When verify last found nothing wrong on the target. 0: never.",
    ),
    gauge(
        "sealift_verify_oldest_read_timestamp_seconds",
        &["target"],
        "When verify read the archive that it has not read for longest, of those that it has read.",
    ),
    gauge(
        "sealift_verify_damaged_archives",
        &["target"],
        "Archives on the target that were damaged when they were last read.",
    ),
    gauge(
        "sealift_proof_timestamp_seconds",
        &["target"],
        "When the newest proven restore was made from the target.",
    ),
    gauge(
        "sealift_proof_sequence",
        &["target"],
        "The sequence of the snapshot that was restored for proof.",
    ),
    gauge(
        "sealift_proof_restore_duration_seconds",
        &["target"],
        "How long the proven restore took.",
    ),
    gauge(
        "sealift_key_alive_timestamp_seconds",
        &["recipient"],
        "The stamp of the newest snapshot that the recipient's identity was proven to open.",
    ),
    counter(
        "sealift_notify_total",
        &["channel", "outcome"],
        "Messages to the notification channel.",
    ),
    gauge(
        "sealift_notify_last_success_timestamp_seconds",
        &["channel"],
        "When a message last reached the notification channel. 0: never.",
    ),
    gauge(
        "sealift_config_last_reload_successful",
        &[],
        "Whether the agent uses the newest configuration file: 1, or 0.",
    ),
    gauge(
        "process_resident_memory_bytes",
        &[],
        "Resident memory of the agent.",
    ),
    gauge(
        "process_open_fds",
        &[],
        "Open file descriptors of the agent.",
    ),
    gauge("process_start_time_seconds", &[], "When the agent started."),
];
