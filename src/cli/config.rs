//! `config …`: checks the configuration, and shows what is in effect.

use clap::Subcommand;

use super::failure::{Failure, Outcome};
use super::{Context, output};
use crate::config::{Config, Setting};
use crate::jobs::check_config::{self, ConfigReport};

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

fn print(report: &ConfigReport) -> Result<(), Failure> {
    print_settings(&report.settings)?;
    for finding in &report.errors {
        output::print_line(format_args!("error: {}: {}", finding.about, finding.text))?;
    }
    for finding in &report.warnings {
        output::print_line(format_args!("warning: {}: {}", finding.about, finding.text))?;
    }
    for finding in &report.advice {
        output::print_line(format_args!("advice: {}: {}", finding.about, finding.text))?;
    }
    let verdict = match (report.errors.len(), report.warnings.len()) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => output::count(warnings as u64, "warning"),
        (errors, warnings) => format!(
            "{}, {}",
            output::count(errors as u64, "error"),
            output::count(warnings as u64, "warning")
        ),
    };
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
