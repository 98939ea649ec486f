//! `config …`: checks the configuration, and shows what is in effect.

use clap::Subcommand;

use super::failure::{Failure, Outcome};
use super::{Context, output};
use crate::config::{Config, ConfigError, DrillConfig, Setting};
use crate::jobs::check_config::{self, ConfigFinding, ConfigReport};
use crate::jobs::check_drill_config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration and the files that it names; contacts no target
    Check {
        /// Also print the effective configuration: each key, its value, its line or "default"
        #[arg(long)]
        show: bool,
    },
}

pub(super) fn run(context: &Context, command: &ConfigCommand) -> Result<Outcome, Failure> {
    let ConfigCommand::Check { show } = command;
    if let Some(outcome) = check_drill(context, *show)? {
        return Ok(outcome);
    }
    let loaded = Config::find(context.config.as_deref()).map_err(Failure::usage)?;
    let report = check_config::run(&loaded, *show)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(&report)?,
    }
    if !report.errors.is_empty() {
        let errors = output::count(report.errors.len() as u64, "error");
        return Err(Failure::usage(format!(
            "the configuration has {errors}: no backup can be made with it"
        )));
    }
    Ok(match report.warnings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Checks the configuration of a machine that drills. `None`: it is that of a host, or there is
/// none.
fn check_drill(context: &Context, show: bool) -> Result<Option<Outcome>, Failure> {
    let (config, warnings) = match DrillConfig::find(context.config.as_deref()) {
        Ok(found) => found,
        Err(ConfigError::NotFound { .. } | ConfigError::ForHosts { .. }) => return Ok(None),
        Err(error) => return Err(Failure::usage(error)),
    };
    if show {
        return Err(Failure::usage("--show is for the configuration of a host")
            .hint("check a file with [drill] without --show"));
    }
    let report = check_drill_config::run(&config, &warnings);
    if context.json {
        output::print_json(&report)?;
    } else {
        print_findings("error", &report.errors)?;
        print_findings("warning", &report.warnings)?;
        output::print_line(format_args!(
            "{}: drills of {}, {}: {}",
            report.config_path,
            output::count(report.places as u64, "place"),
            output::count(report.checks as u64, "check"),
            verdict(report.errors.len(), report.warnings.len()),
        ))?;
    }
    if !report.errors.is_empty() {
        let errors = output::count(report.errors.len() as u64, "error");
        return Err(Failure::usage(format!(
            "the configuration has {errors}: no drill can be done with it"
        )));
    }
    Ok(Some(match report.warnings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    }))
}

fn print_findings(kind: &str, findings: &[ConfigFinding]) -> Result<(), Failure> {
    for finding in findings {
        output::print_line(format_args!("{kind}: {}: {}", finding.about, finding.text))?;
    }
    Ok(())
}

fn verdict(errors: usize, warnings: usize) -> String {
    match (errors, warnings) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => output::count(warnings as u64, "warning"),
        (errors, warnings) => format!(
            "{}, {}",
            output::count(errors as u64, "error"),
            output::count(warnings as u64, "warning")
        ),
    }
}

fn print(report: &ConfigReport) -> Result<(), Failure> {
    print_settings(&report.settings)?;
    print_findings("error", &report.errors)?;
    print_findings("warning", &report.warnings)?;
    print_findings("advice", &report.advice)?;
    let verdict = verdict(report.errors.len(), report.warnings.len());
    output::print_line(format_args!(
        "{}: host {}, {}, {}: {verdict}",
        report.config_path,
        report.host,
        output::count(report.sources as u64, "source"),
        output::count(report.targets as u64, "target"),
    ))?;
    Ok(())
}

fn print_settings(settings: &[Setting]) -> Result<(), Failure> {
    let mut last = ("", 0);
    for setting in settings {
        let table = (setting.table.as_str(), setting.index);
        if table != last {
            let header = match setting.table.as_str() {
                several @ ("source" | "target" | "check" | "notify") => format!("\n[[{several}]]"),
                one => format!("\n[{one}]"),
            };
            output::print_line(header)?;
            last = table;
        }
        let origin = match setting.line {
            Some(line) => format!("line {line}"),
            None => "default".to_owned(),
        };
        let text = match setting.key.as_str() {
            "" => setting.value.clone(),
            key => format!("{key} = {}", setting.value),
        };
        output::print_line(format_args!("{text}     # {origin}"))?;
    }
    if !settings.is_empty() {
        output::print_line("")?;
    }
    Ok(())
}
