//! What is written about the metrics elsewhere: documentation, alerts and dashboard name only
//! metrics that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use super::super::*;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
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
