//! The output for histories of several ages. `promtool` is asked if there is one.

mod documents;
mod past;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::*;
use past::{Host, ODD, agent, at, verdict, year};

fn lines<'a>(out: &'a str, name: &str) -> Vec<&'a str> {
    let begins = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    out.lines().filter(begins).collect()
}

#[test]
fn a_year_of_runs_is_shown_as_it_was() {
    let host = Host::new(&["s3", ODD]);
    let catalog = year(&host);
    let facts = host.facts(Some(&catalog), Some(agent()));
    let out = render(&facts, &verdict(), MetricsFormat::Prometheus);
    let day = |day: i64| at((day - 365) * 86_400).timestamp();
    let odd = r#"a \"b\" \\c\nd"#;
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        (
            "sealift_build_info",
            vec![format!("{{version=\"{version}\",host=\"dalidou\"}} 1")],
        ),
        ("sealift_verdict", vec![" 2".to_owned()]),
        (
            "sealift_findings",
            vec!["{severity=\"red\",code=\"target_stale\"} 2".to_owned()],
        ),
        (
            "sealift_last_snapshot_timestamp_seconds",
            vec![format!(" {}", day(363))],
        ),
        ("sealift_last_snapshot_sequence", vec![" 122".to_owned()]),
        ("sealift_last_snapshot_bytes", vec![" 283000000".to_owned()]),
        ("sealift_last_snapshot_files", vec![" 1200".to_owned()]),
        (
            "sealift_last_snapshot_stored_bytes",
            vec![" 600000".to_owned()],
        ),
        (
            "sealift_skipped_files",
            vec![
                "{source=\"db\"} 2".to_owned(),
                "{source=\"db-old\"} 1".to_owned(),
            ],
        ),
        (
            "sealift_next_due_timestamp_seconds",
            vec![format!("{{job=\"verify\"}} {}", at(3600).timestamp())],
        ),
        (
            "sealift_target_newest_stamp_timestamp_seconds",
            vec![
                format!("{{target=\"{odd}\"}} {}", day(348)),
                format!("{{target=\"s3\"}} {}", day(363)),
            ],
        ),
        (
            "sealift_target_behind_snapshots",
            vec![
                format!("{{target=\"{odd}\"}} 5"),
                "{target=\"s3\"} 0".to_owned(),
            ],
        ),
        (
            "sealift_target_last_look_success",
            vec![
                format!("{{target=\"{odd}\"}} 0"),
                "{target=\"s3\"} 1".to_owned(),
            ],
        ),
        (
            "sealift_sent_bytes_total",
            vec![
                format!("{{target=\"{odd}\"}} 77"),
                "{target=\"s3\"} 77".to_owned(),
            ],
        ),
        (
            "sealift_runs_total",
            vec![
                "{kind=\"backup\",outcome=\"complete\"} 119".to_owned(),
                "{kind=\"backup\",outcome=\"killed\"} 2".to_owned(),
                "{kind=\"backup\",outcome=\"partial\"} 1".to_owned(),
                "{kind=\"verify\",outcome=\"failed\"} 17".to_owned(),
            ],
        ),
        (
            "sealift_run_last_success_timestamp_seconds",
            vec![
                format!("{{kind=\"backup\"}} {}.125", day(360) + 4),
                "{kind=\"prune\"} 0".to_owned(),
                "{kind=\"verify\"} 0".to_owned(),
            ],
        ),
        (
            "sealift_run_last_exit_code",
            vec![
                "{kind=\"backup\"} 3".to_owned(),
                "{kind=\"verify\"} 1".to_owned(),
            ],
        ),
        (
            "sealift_run_last_duration_seconds",
            vec![
                "{kind=\"backup\"} 4.125".to_owned(),
                "{kind=\"verify\"} 4.125".to_owned(),
            ],
        ),
        (
            "sealift_run_running",
            vec![
                "{kind=\"backup\"} 0".to_owned(),
                "{kind=\"prune\"} 1".to_owned(),
                "{kind=\"verify\"} 0".to_owned(),
            ],
        ),
        (
            "sealift_run_started_timestamp_seconds",
            vec![format!("{{kind=\"prune\"}} {}", at(-10).timestamp())],
        ),
        (
            "sealift_verify_last_success_timestamp_seconds",
            vec![
                format!("{{target=\"{odd}\"}} 0"),
                format!("{{target=\"s3\"}} {}", at(-30).timestamp()),
            ],
        ),
        (
            "sealift_proof_restore_duration_seconds",
            vec![
                format!("{{target=\"{odd}\"}} 12.4"),
                "{target=\"s3\"} 12.4".to_owned(),
            ],
        ),
        (
            "sealift_proof_sequence",
            vec![
                format!("{{target=\"{odd}\"}} 7"),
                "{target=\"s3\"} 31".to_owned(),
            ],
        ),
        (
            "sealift_key_alive_timestamp_seconds",
            vec![
                format!("{{recipient=\"5Sw60pHMQaB1\"}} {}", at(-8).timestamp()),
                format!("{{recipient=\"age1848ccmuk\"}} {}", at(-9).timestamp()),
                format!("{{recipient=\"qqqqqqqqwxyz\"}} {}", at(-7).timestamp()),
            ],
        ),
        (
            "sealift_notify_last_success_timestamp_seconds",
            vec![format!("{{channel=\"{odd}\"}} 0")],
        ),
        (
            "sealift_config_last_reload_successful",
            vec![" 0".to_owned()],
        ),
    ];
    for (name, series) in expected {
        let series: Vec<String> = series.iter().map(|rest| format!("{name}{rest}")).collect();
        assert_eq!(lines(&out, name), series, "{name}");
    }
    assert!(!lines(&out, "process_resident_memory_bytes").is_empty());
    for hidden in ["/srv", "gone", "age1never", "elsewhere"] {
        assert!(!out.contains(hidden), "{hidden}\n{out}");
    }
    // The same history shows the same, but for the process itself.
    let again = host.facts(Some(&catalog), Some(agent()));
    let again = render(&again, &verdict(), MetricsFormat::Prometheus);
    for (before, after) in out.lines().zip(again.lines()) {
        assert!(before == after || before.starts_with(PROCESS), "{after}");
    }
    check(&out);
    // Every metric has a series in one of the two.
    let names: BTreeSet<&str> = series(&facts, &verdict()).names().collect();
    let missing: Vec<&str> = FAMILIES
        .iter()
        .map(|family| family.name)
        .filter(|name| !names.contains(name))
        .collect();
    // No archive of this catalog was read.
    assert_eq!(missing, ["sealift_verify_oldest_read_timestamp_seconds"]);
}

#[test]
fn a_host_without_any_run_shows_no_value_that_it_does_not_have() {
    let host = Host::new(&["s3"]);
    let facts = host.facts(None, None);
    let quiet = Verdict {
        findings: Vec::new(),
        proof: None,
        keys: Vec::new(),
        ..verdict()
    };
    let out = render(&facts, &quiet, MetricsFormat::Prometheus);
    let found: BTreeSet<&str> = out
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next())
        .collect();
    let expected = [
        "sealift_build_info",
        "sealift_next_due_timestamp_seconds",
        "sealift_notify_last_success_timestamp_seconds",
        "sealift_run_last_success_timestamp_seconds",
        "sealift_run_running",
        "sealift_sent_bytes_total",
        "sealift_spool_bytes",
        "sealift_spool_limit_bytes",
        "sealift_target_archives",
        "sealift_target_behind_snapshots",
        "sealift_target_stored_bytes",
        "sealift_verdict",
        "sealift_verify_damaged_archives",
        "sealift_verify_last_success_timestamp_seconds",
    ];
    assert_eq!(found, BTreeSet::from(expected));
    let due = lines(&out, "sealift_next_due_timestamp_seconds");
    // 06:00 UTC is now, so the next one is tomorrow's.
    let tomorrow = at(86_400).timestamp();
    assert_eq!(
        due,
        [format!(
            "sealift_next_due_timestamp_seconds{{job=\"backup\"}} {tomorrow}"
        )]
    );
    check(&out);
    let open = render(&facts, &quiet, MetricsFormat::OpenMetrics);
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains(
        "# TYPE sealift_sent_bytes counter\nsealift_sent_bytes_total{target=\"s3\"} 0\n"
    ));
}

#[test]
fn open_metrics_are_sent_only_if_they_are_preferred() {
    use MetricsFormat::{OpenMetrics, Prometheus};
    for (accept, format) in [
        (None, Prometheus),
        (Some("*/*"), Prometheus),
        (Some("text/html, text/plain"), Prometheus),
        (
            Some("application/openmetrics-text; version=1.0.0"),
            OpenMetrics,
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ),
            OpenMetrics,
        ),
        (
            Some("application/openmetrics-text;q=0.1, text/plain"),
            Prometheus,
        ),
        (Some("application/openmetrics-text;q=0"), Prometheus),
        (Some("application/openmetrics-text;q=abc"), Prometheus),
    ] {
        assert_eq!(MetricsFormat::accepted_by(accept), format, "{accept:?}");
    }
}

#[test]
fn the_textfile_is_replaced_and_readable_for_the_exporter() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new(&["s3"]);
    let facts = host.facts(None, Some(agent()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sealift.prom");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    textfile::write_textfile(&path, &facts, &verdict()).unwrap();
    let out = std::fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&out, "sealift_verdict"), ["sealift_verdict 2"]);
    assert!(!out.contains(PROCESS), "{out}");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    check(&out);
    let nowhere = dir.path().join("missing/sealift.prom");
    let error = textfile::write_textfile(&nowhere, &facts, &verdict()).unwrap_err();
    assert!(
        error.with_causes().contains("missing/sealift.prom"),
        "{error}"
    );
    assert!(error.next().unwrap().contains("[serve]"));
}

/// Has `promtool` check metrics, if there is one.
fn check(metrics: &str) {
    use std::io::Write as _;
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return;
    };
    let mut input = child.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
