//! `serve`: the agent.

use std::sync::Arc;

use chrono::SecondsFormat;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::failure::{Failure, Outcome, USAGE};
use super::{Context, output};
use crate::base::clock;
use crate::serve::agent::{self, ServeError, ServeMode, ServeRequest};
use crate::serve::log::{AgentLog, LogLevel, LogLine};
use crate::state::serve_lock::ServeLockError;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Answer HTTP at this address, such as 127.0.0.1:8101; can be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Run what is due, wait for it, and end
    #[arg(long)]
    once: bool,
    /// How to write the log, on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log: LogFormat,
}

/// What `--log` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object in each line.
    Json,
}

impl AgentLog for LogFormat {
    fn write(&self, line: &LogLine) {
        match self {
            Self::Text => output::tell(text(line)),
            Self::Json => {
                let mut value = serde_json::to_value(line).unwrap_or_default();
                if let Value::Object(fields) = &mut value {
                    let now = clock::now().to_rfc3339_opts(SecondsFormat::Millis, true);
                    fields.insert("t".to_owned(), json!(now));
                }
                output::tell(value);
            }
        }
    }
}

fn text(line: &LogLine) -> String {
    let level = match line.level {
        LogLevel::Info => "",
        LogLevel::Warning => "warning: ",
        LogLevel::Error => "error: ",
    };
    let run = line.run.iter().map(|run| format!("run {run}: "));
    let run: String = run.collect();
    format!("{level}{run}{}", line.text)
}

pub(super) fn run(context: &Context, args: &ServeArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let request = ServeRequest {
        config_file: context.config.clone(),
        mode: match args.once {
            true => ServeMode::Once,
            false => ServeMode::Serve,
        },
        listen: args.listen.clone(),
    };
    let worst = agent::serve(config, request, Arc::new(args.log)).map_err(refused)?;
    match (args.once, worst) {
        (false, _) | (true, 0) => Ok(Outcome::Complete),
        (true, 3) => Ok(Outcome::Partial),
        (true, USAGE) => Err(Failure::usage("a run failed: its configuration is wrong")),
        (true, _) => Err(Failure::from_error("a run failed").hint("`sealift status` names it")),
    }
}

fn refused(error: ServeError) -> Failure {
    let next = match &error {
        ServeError::Lock(ServeLockError::Taken { .. }) => {
            Some("stop that one first, or give this one a configuration with another `state`")
        }
        ServeError::Listen(error) => error.next(),
        ServeError::Address(_) => Some("an address is such as 127.0.0.1:8101, or unix:/PATH"),
        _ => None,
    };
    let failure = Failure::from_error(error);
    match next {
        Some(next) => failure.hint(next),
        None => failure,
    }
}
