//! Metrics for Prometheus: everything is computed when it is asked for, from the history, the
//! catalog, the configuration and the verdict, so a restart resets nothing.
//!
//! - [`families`] is the table of all metrics; docs/metrics.md has the same.
//! - [`series`] makes their values from facts ([`crate::jobs::metric_facts`]) and the verdict.
//! - [`textfile`] writes them for the node exporter.
//!
//! Labels are names of the configuration and words of this program. No path, no URL and no name of
//! a table is among them: metrics leave the host in clear.

pub(crate) mod families;
mod series;
pub(crate) mod textfile;

#[cfg(test)]
mod tests;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::handle::AgentState;
use crate::base::own_process::ProcessFigures;
use crate::jobs::metric_facts::{AgentFigures, MetricFacts};
use crate::jobs::verdict::Verdict;
use families::{FAMILIES, MetricFamily, MetricKind, PROCESS};
use series::{SeriesByName, SeriesValue, series};

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricsFormat {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Returns the format that a request with this `Accept` header prefers: OpenMetrics only if the
    /// header names it and does not prefer plain text.
    pub(crate) fn accepted_by(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let quality = |kind: &str| {
            let offers = accept.split(',').filter_map(|offer| {
                let mut parts = offer.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(kind) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |text| text.parse().unwrap_or(0.0)))
            });
            offers.fold(0.0_f64, f64::max)
        };
        let open = quality("application/openmetrics-text");
        match open > 0.0 && open >= quality("text/plain") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Returns the `Content-Type` of the output.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns what the agent knows of itself now.
pub(crate) fn agent_facts(state: &AgentState) -> AgentFigures {
    let due = state.schedule.iter();
    let due = due.filter_map(|job| Some((job.job.clone(), job.next?)));
    AgentFigures {
        next_due: due.collect(),
        is_config_current: state.reload_error.is_none(),
        process: ProcessFigures::read(),
    }
}

/// Renders all metrics.
pub(crate) fn render(facts: &MetricFacts, verdict: &Verdict, format: MetricsFormat) -> String {
    encode(series(facts, verdict), FAMILIES.iter(), format)
}

/// Renders all metrics except those of a process.
fn render_for_textfile(facts: &MetricFacts, verdict: &Verdict) -> String {
    let families = FAMILIES.iter();
    let families = families.filter(|family| !family.name.starts_with(PROCESS));
    encode(series(facts, verdict), families, MetricsFormat::Prometheus)
}

fn encode(
    series: SeriesByName,
    families: impl Iterator<Item = &'static MetricFamily>,
    format: MetricsFormat,
) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(AllSeries {
        families: families.collect(),
        series,
    }));
    let mut out = String::new();
    let encoded = match format {
        MetricsFormat::Prometheus => prometheus_text::encode(&mut out, &registry),
        MetricsFormat::OpenMetrics => text::encode(&mut out, &registry),
    };
    // Writing into a string does not fail.
    debug_assert!(encoded.is_ok());
    out
}

/// The series of these metrics, as the encoder takes them.
#[derive(Debug)]
struct AllSeries {
    families: Vec<&'static MetricFamily>,
    series: SeriesByName,
}

impl Collector for AllSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.families {
            let mut series = self.series.of(family.name).peekable();
            if series.peek().is_none() {
                continue;
            }
            let (name, kind) = match family.kind {
                MetricKind::Gauge => (family.name, MetricType::Gauge),
                // The encoder adds the ending.
                MetricKind::Counter => {
                    let name = family.name.strip_suffix("_total");
                    (name.unwrap_or(family.name), MetricType::Counter)
                }
            };
            let mut encoder = encoder.encode_descriptor(name, family.help, None, kind)?;
            for (values, value) in series {
                let labels = family.labels.iter().zip(values);
                let labels: Vec<(&str, &str)> =
                    labels.map(|(name, value)| (*name, &value[..])).collect();
                let mut encoder = encoder.encode_family(&labels)?;
                match (family.kind, value) {
                    (MetricKind::Counter, SeriesValue::Whole(value)) => {
                        let value = value.max(0).cast_unsigned();
                        encoder.encode_counter::<NoLabels, _, u64>(&value, None)?;
                    }
                    (MetricKind::Counter, SeriesValue::Part(value)) => {
                        encoder.encode_counter::<NoLabels, _, u64>(&value, None)?;
                    }
                    (MetricKind::Gauge, SeriesValue::Whole(value)) => {
                        encoder.encode_gauge(&value)?
                    }
                    (MetricKind::Gauge, SeriesValue::Part(value)) => {
                        encoder.encode_gauge(&value)?
                    }
                }
            }
        }
        Ok(())
    }
}

/// The labels of an exemplar, which no counter here has.
type NoLabels = Vec<(String, String)>;
