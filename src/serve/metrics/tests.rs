//! The output for histories of several ages, and what is written about it elsewhere:
//! docs/metrics.md, the alerts and the dashboard name only metrics that exist. `promtool` is asked
//! if there is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, Duration, Utc};
use regex::Regex;

use super::*;
use crate::base::ids::{Hash, Stamp, WriterId};
use crate::config::Config;
use crate::format::known::KnownRef;
use crate::format::manifest::{FORMAT, IndexRef, Manifest, ManifestCore, Totals};
use crate::jobs::metric_facts::{ConfiguredChannel, MetricSources, gather};
use crate::jobs::verdict::{
    FindingCode, KeyAlive, ProvenSnapshot, Severity, Verdict, VerdictFinding,
};
use crate::state::catalog::{ArchiveCheck, Catalog, PublicationState, SnapshotOrigin};
use crate::state::history::{EndedRun, History, NewRun};

/// A name that has every character that the text format treats specially.
const ODD: &str = "a \"b\" \\c\nd";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_775_541_600 + second, 0).unwrap()
}

/// A host with a state directory of its own.
struct Host {
    dir: tempfile::TempDir,
    config: Config,
    history: History,
}

impl Host {
    fn new(targets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), targets);
        let history = History::open(dir.path()).unwrap();
        Self {
            dir,
            config,
            history,
        }
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.dir.path().join("catalog.db")).unwrap()
    }

    fn facts(&self, catalog: Option<&Catalog>, agent: Option<AgentFigures>) -> MetricFacts {
        let from = MetricSources {
            config: &self.config,
            history: Some(&self.history),
            catalog,
        };
        let channel = ConfiguredChannel {
            name: ODD,
            last_success: None,
        };
        gather(from, &[channel], agent, at(0)).unwrap()
    }

    fn begin(&self, id: &str, kind: &str, at: DateTime<Utc>) {
        let run = NewRun {
            id: id.to_owned(),
            kind: kind.to_owned(),
            trigger: "schedule".to_owned(),
            started_at: at,
            pid: std::process::id(),
            pid_started: 0,
            note: None,
        };
        self.history.begin_run(&run).unwrap();
    }

    fn run(&self, id: &str, kind: &str, from: DateTime<Utc>, end: &EndedRun) {
        self.begin(id, kind, from);
        assert!(self.history.end_run(id, end).unwrap());
    }
}

fn config(state: &Path, targets: &[&str]) -> Config {
    let mut text = format!(
        "host = \"dalidou\"\nrecipients = [\"age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9\"]\n\
         signer = \"signer\"\nstate = {state:?}\n[schedule]\nbackup = \"0 6 * * *\"\n[spool]\nlimit = \"10GB\"\n\
         [[source]]\nname = \"db\"\nkind = \"tree\"\npath = \"/srv/db\"\nto = \"db\"\n\
         [[source]]\nname = \"db-old\"\nkind = \"tree\"\npath = \"/srv/old\"\nto = \"db-old\"\n"
    );
    for name in targets {
        // The escapes of TOML and of Rust are the same.
        text += &format!("[[target]]\nname = {name:?}\nurl = \"/srv/backups\"\n");
    }
    Config::parse(&text, Path::new("/etc/sealift.toml")).unwrap()
}

fn manifest(sequence: u64, stamp: DateTime<Utc>) -> Manifest {
    let core = ManifestCore {
        format: FORMAT,
        requires: Vec::new(),
        host: "dalidou".parse().unwrap(),
        stamp: Stamp::at(stamp).unwrap(),
        sequence,
        parents: Vec::new(),
        writer: WriterId([1; 8]),
        machine: "0".repeat(32),
        known: KnownRef::Inline(Vec::new()),
        marks_seen: Vec::new(),
        next_by: None,
        recipients: Vec::new(),
        index: IndexRef {
            extents: Vec::new(),
            bytes: 0,
            blake3: Hash([0; 32]),
        },
        totals: Totals {
            bytes: 283_000_000,
            new_bytes: 3_100_000,
            ..Totals::default()
        },
        next_signer: None,
    };
    Manifest::new(core, Vec::new())
}

fn ended(at: DateTime<Utc>, outcome: &str, code: Option<i32>, sequence: Option<u64>) -> EndedRun {
    let report = r#"{"files": 1200, "stored_bytes": 600000, "skipped": [
        {"path": "db", "reason": "x"}, {"path": "db/x", "reason": "x"}, {"path": "db-old/\"y", "reason": "x"},
        {"path": "elsewhere", "reason": "x"}]}"#;
    EndedRun {
        ended_at: at,
        outcome: outcome.to_owned(),
        exit_code: code,
        stamp: None,
        sequence,
        message: String::new(),
        report: Some(report.to_owned()),
    }
}

fn agent() -> AgentFigures {
    AgentFigures {
        next_due: vec![("verify".to_owned(), at(3600))],
        is_config_current: false,
        process: ProcessFigures::read(),
    }
}

fn verdict() -> Verdict {
    let finding = |target: &str| VerdictFinding {
        code: FindingCode::TargetStale,
        severity: Severity::Red,
        target: Some(target.to_owned()),
        source: None,
        since: None,
        text: "/srv/secret is old".to_owned(),
        next: String::new(),
    };
    let key = |recipient: &str, seconds: Option<i64>| KeyAlive {
        recipient: recipient.to_owned(),
        alive_after: seconds.map(at),
    };
    Verdict {
        state: Severity::Red,
        sentence: String::new(),
        since: None,
        findings: vec![finding("s3"), finding("laptop")],
        newest: None,
        proof: Some(ProvenSnapshot {
            stamp: Stamp::at(at(0)).unwrap(),
            sequence: 31,
            proven_at: at(-50),
            by: "drill@laptop".to_owned(),
            target: "s3".to_owned(),
            seconds: 12.4,
            bytes: 1,
        }),
        keys: vec![
            key(
                "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9",
                Some(-9),
            ),
            key(
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAOtPgyXzbjT6R9JZk+0I4r8afRRhBP5Sw60pHMQaB1",
                Some(-8),
            ),
            key(
                "age1yubikey1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqwxyz",
                Some(-7),
            ),
            key("age1never", None),
        ],
    }
}

/// Backups of a year, each three days after the one before, and some verifies, with some failures,
/// and a run that is under way.
fn year(host: &Host) -> Catalog {
    let catalog = host.catalog();
    for number in 0..122_u64 {
        let from = at((number.cast_signed() * 3 - 365) * 86_400);
        let to = from + Duration::milliseconds(4_125);
        let id = format!("R{number:04}");
        if number % 50 == 49 {
            host.run(&id, "backup", from, &ended(to, "killed", None, None));
            continue;
        }
        let sequence = number + 1;
        let made = manifest(sequence, from);
        catalog
            .add_snapshot(&made, SnapshotOrigin::MadeHere)
            .unwrap();
        let core = &made.core_hash;
        catalog
            .set_publication("s3", core, PublicationState::Published, to)
            .unwrap();
        if number < 117 {
            let state = PublicationState::Published;
            catalog.set_publication("gone", core, state, to).unwrap();
            catalog.set_publication(ODD, core, state, to).unwrap();
        }
        let (outcome, code) = if number == 121 {
            ("partial", 3)
        } else {
            ("complete", 0)
        };
        host.run(
            &id,
            "backup",
            from,
            &ended(to, outcome, Some(code), Some(sequence)),
        );
        if number % 7 == 0 {
            let end = ended(to, "failed", Some(1), None);
            host.run(&format!("V{number:04}"), "verify", from, &end);
        }
    }
    host.begin("Z", "prune", at(-10));
    for (target, error) in [
        ("s3", None),
        (ODD, Some("no route to /srv/secret")),
        ("gone", None),
    ] {
        let seen = error.map_or(Ok("{}"), Err);
        host.history.record_look(target, at(-20), seen).unwrap();
        host.history
            .add_to_total(("sent_bytes", target, ""), 77)
            .unwrap();
    }
    for (channel, outcome) in [(ODD, "sent"), (ODD, "failed"), ("gone", "sent")] {
        let total = ("notify", channel, outcome);
        host.history.add_to_total(total, 3).unwrap();
    }
    // Its process is gone.
    let dead = NewRun {
        id: "Y".to_owned(),
        kind: "drill".to_owned(),
        trigger: "schedule".to_owned(),
        started_at: at(-99),
        pid: std::process::id(),
        pid_started: 1,
        note: None,
    };
    host.history.begin_run(&dead).unwrap();
    catalog.set_verified("s3", at(-30)).unwrap();
    let check = ArchiveCheck {
        at: at(-40),
        whole: Some(false),
    };
    catalog.set_check("s3", &Hash([1; 32]), &check).unwrap();
    catalog
}

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
            vec!["{target=\"s3\"} 12.4".to_owned()],
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

#[test]
fn promtool_accepts_the_alerts() {
    let tests = root("deploy/prometheus/sealift.rules.test.yml");
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(tests)
        .output();
    let Ok(output) = output else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Returns the names of metrics in `text`.
fn named(text: &str) -> BTreeSet<&str> {
    let name = Regex::new(r"\b(?:sealift|process)_[a-z_]*[a-z]\b").unwrap();
    name.find_iter(text).map(|found| found.as_str()).collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let dashboard = text_of("deploy/grafana/sealift.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    let expressions = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<&str> = expressions
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(expressions.len() >= panels.len());
    let mut used = BTreeSet::new();
    for expression in &expressions {
        let names = named(expression);
        assert!(!names.is_empty(), "{expression}");
        used.extend(names);
    }
    let rules = text_of("deploy/prometheus/sealift.rules.yml");
    let tests = text_of("deploy/prometheus/sealift.rules.test.yml");
    for (text, least) in [(&dashboard, 20), (&rules, 8), (&tests, 8)] {
        let names = named(text);
        assert!(names.len() >= least, "{names:?}");
        used.extend(names);
    }
    let unknown: Vec<&&str> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Each alert has a test, and its annotations name a next step.
    let alert = Regex::new(r"alert: (\w+)").unwrap();
    let alerts: Vec<&str> = alert
        .captures_iter(&rules)
        .map(|found| found.get(1).unwrap().as_str())
        .collect();
    assert_eq!(rules.matches("description: \"Next: ").count(), alerts.len());
    let documented = text_of("docs/metrics.md");
    for alert in alerts {
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts")),
            "{alert}"
        );
        assert!(documented.contains(&format!("| `{alert}` |")), "{alert}");
    }
}

#[test]
fn the_table_of_the_documentation_is_that_of_the_code() {
    let documented = text_of("docs/metrics.md");
    let rows = documented.lines();
    let rows = rows.filter(|line| line.starts_with("| `") && !named(line).is_empty());
    let expected = FAMILIES.iter().map(|family| {
        let kind = match family.kind {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
        };
        let labels = match family.labels {
            [] => "–".to_owned(),
            labels => labels.join(", "),
        };
        format!(
            "| `{}` | {kind} | {labels} | {} |",
            family.name, family.help
        )
    });
    assert_eq!(rows.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for family in FAMILIES {
        let is_total = family.name.ends_with("_total");
        assert_eq!(
            is_total,
            family.kind == MetricKind::Counter,
            "{}",
            family.name
        );
        assert!(family.help.ends_with('.'), "{}", family.name);
    }
}
