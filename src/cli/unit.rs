//! `unit`: prints units of systemd for this host.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use super::receipt_signer;
use crate::base::clock;
use crate::config::DrillConfig;
use crate::jobs::systemd_unit::{self, UnitFile, UnitName};

#[derive(Debug, Args)]
pub(super) struct UnitArgs {
    /// Print the files; nothing else is done in any case
    #[arg(long)]
    print: bool,
    /// agent; backup: one backup and its timer; recover: for interrupted restores, at boot; watch:
    /// for a third machine, and its timer; drill: restores for proof on the key holder's machine,
    /// and its timer
    #[arg(long, value_name = "NAME", value_enum, default_value = "agent")]
    name: UnitChoice,
    /// Only this part, without the name of its file
    #[arg(long, value_name = "PART", value_enum)]
    part: Option<PartChoice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UnitChoice {
    Agent,
    Backup,
    Recover,
    Watch,
    Drill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PartChoice {
    Unit,
    DropIn,
    Timer,
}

impl UnitChoice {
    fn unit(self) -> UnitName {
        match self {
            Self::Agent => UnitName::Agent,
            Self::Backup => UnitName::Backup,
            Self::Recover => UnitName::Recover,
            Self::Watch => UnitName::Watch,
            Self::Drill => UnitName::Drill,
        }
    }
}

impl PartChoice {
    fn is_of(self, file: &UnitFile) -> bool {
        let part = match self {
            Self::Unit => "unit",
            Self::DropIn => "drop_in",
            Self::Timer => "timer",
        };
        file.part == part
    }
}

/// Returns the configuration of this machine for drills.
fn drill_config(context: &Context) -> Result<DrillConfig, Failure> {
    receipt_signer::load_config(context)?.ok_or_else(|| {
        Failure::usage("there is no configuration with [drill]").hint(
            "drills belong on the key holder's machine: name its file with --config (docs/proof.md)",
        )
    })
}

pub(super) fn run(context: &Context, args: &UnitArgs) -> Result<Outcome, Failure> {
    // Printing is all that it can do, so `--print` says nothing new.
    let _ = args.print;
    let program = std::env::current_exe().map_err(|error| {
        Failure::from_error(format!("the path of this program is not known: {error}"))
    })?;
    let (name, now) = (args.name.unit(), clock::now());
    let mut files = match args.name {
        UnitChoice::Watch => systemd_unit::files(name, None, &program, now),
        UnitChoice::Drill => systemd_unit::drill_files(&drill_config(context)?, &program),
        _ => systemd_unit::files(name, Some(&context.load_config()?), &program, now),
    };
    if let Some(part) = args.part {
        files.retain(|file| part.is_of(file));
        if files.is_empty() {
            return Err(Failure::usage("this unit has no such part")
                .hint("without --part, all its parts are printed"));
        }
    }
    if context.json {
        output::print_json(&json!({ "files": files }))?;
        return Ok(Outcome::Complete);
    }
    for (number, file) in files.iter().enumerate() {
        let gap = if number > 0 { "\n" } else { "" };
        let text = match args.part {
            Some(_) => file.text.clone(),
            None => format!("{gap}# {}\n{}", file.path, file.text),
        };
        output::write_stdout(text.as_bytes())?;
    }
    Ok(Outcome::Complete)
}
