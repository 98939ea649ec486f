//! `source …`: what the configuration backs up.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::setup_args::SourceArgs;
use super::{Context, output};
use crate::config::{Fallback, Source, SourceKind, TableKind, render_source};
use crate::jobs::config_edit::EditedConfig;

#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// Add sources to the configuration
    Add(AddSourceArgs),
    /// Remove a source from the configuration; earlier snapshots keep it
    Remove {
        /// The source's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List what is backed up
    List,
}

#[derive(Debug, Args)]
pub(super) struct AddSourceArgs {
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) fn run(context: &Context, command: &SourceCommand) -> Result<Outcome, Failure> {
    match command {
        SourceCommand::Add(args) => add(context, args),
        SourceCommand::Remove { name } => remove(context, name),
        SourceCommand::List => list(context),
    }
}

fn add(context: &Context, args: &AddSourceArgs) -> Result<Outcome, Failure> {
    if args.sources.is_empty() {
        return Err(Failure::usage("nothing to add")
            .hint("give --tree DIR, --sqlite FILE, --json-file FILE or --command NAME=LINE"));
    }
    let mut edited = EditedConfig::open(&context.load_config()?)?;
    let new = args.sources.sources(edited.taken_places())?;
    let mut names = Vec::new();
    for source in &new {
        names.push(edited.add_source(source)?);
    }
    let blocks: Vec<String> = new.iter().map(render_source).collect();
    edited.save(Some(&blocks.join("\n")))?;
    let report = edited.report(names, Vec::new());
    if context.json || context.quiet {
        if context.json {
            output::print_json(&report)?;
        }
        return Ok(Outcome::Complete);
    }
    output::print_line(format_args!("config   {}", report.config_path))?;
    for name in &report.added {
        let source = edited.config().sources.iter().find(|one| one.name == *name);
        if let Some(source) = source {
            output::print_line(format_args!(
                "source   {name}: {} {}, in snapshots as {}",
                source.kind.name(),
                origin(source),
                source.to
            ))?;
        }
    }
    context.note("next: `sealift backup --dry-run` shows what a backup would take");
    Ok(Outcome::Complete)
}

fn remove(context: &Context, name: &str) -> Result<Outcome, Failure> {
    let mut edited = EditedConfig::open(&context.load_config()?)?;
    edited.remove(TableKind::Source, name)?;
    edited.save(None)?;
    let report = edited.report(Vec::new(), vec![name.to_owned()]);
    if context.json {
        output::print_json(&report)?;
        return Ok(Outcome::Complete);
    }
    if !context.quiet {
        output::print_line(format_args!("removed  {name} from {}", report.config_path))?;
    }
    context.note("note: earlier snapshots keep it, until retention deletes them");
    if edited.config().sources.iter().any(|one| one.name == name) {
        context.note(format_args!(
            "note: {name} is taken as the preset says, again"
        ));
    }
    if edited.config().sources.is_empty() {
        output::tell(
            "warning: no source is left, so there is nothing to back up: sealift source add",
        );
    }
    Ok(Outcome::Complete)
}

/// Returns the path that is read, or the program of the command.
fn origin(source: &Source) -> String {
    match &source.kind {
        SourceKind::Sqlite { path } | SourceKind::Json { path } => path.display().to_string(),
        SourceKind::Tree(tree) => tree.path.display().to_string(),
        SourceKind::Command { command } => command.brief(),
    }
}

fn list(context: &Context) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    if context.json {
        let atocore = config.atocore.iter().map(|source| {
            json!({
                "name": source.name,
                "kind": "atocore",
                "from": source.url,
                "to": "",
                "on_request": false,
                "required": source.fallback == Fallback::Fail,
            })
        });
        let rows = config.sources.iter().map(|source| {
            json!({
                "name": source.name,
                "kind": source.kind.name(),
                "from": origin(source),
                "to": source.to,
                "on_request": source.on_request,
                "required": source.required,
            })
        });
        output::print_json(&atocore.chain(rows).collect::<Vec<_>>())?;
        return Ok(Outcome::Complete);
    }
    let row = |source: &Source| {
        let when = match (source.on_request, source.required) {
            (true, _) => "on request",
            (false, true) => "required",
            (false, false) => "",
        };
        vec![
            source.name.clone(),
            source.kind.name().to_owned(),
            origin(source),
            source.to.clone(),
            when.to_owned(),
        ]
    };
    let atocore = config.atocore.iter().map(|source| {
        let when = match source.fallback {
            Fallback::Fail => "required",
            Fallback::Local => "or the sources below",
        };
        let row = [&source.name, "atocore", &source.url, "", when];
        row.map(str::to_owned).to_vec()
    });
    let rows: Vec<Vec<String>> = atocore.chain(config.sources.iter().map(row)).collect();
    let table = output::table(&["SOURCE", "KIND", "FROM", "TO", ""], &rows);
    output::write_stdout(table.as_bytes())?;
    Ok(Outcome::Complete)
}
