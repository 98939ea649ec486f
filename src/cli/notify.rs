//! `notify …`: tries the channels of the configuration.

use clap::Subcommand;

use super::failure::{Failure, Outcome};
use super::{Context, output};
use crate::base::clock;
use crate::jobs::notify::{ChannelTest, send_tests};

#[derive(Debug, Subcommand)]
pub(super) enum NotifyCommand {
    /// Send one real message to each channel, and print what comes back
    Test {
        /// Only this channel
        #[arg(value_name = "CHANNEL")]
        channel: Option<String>,
    },
}

pub(super) fn run(context: &Context, command: &NotifyCommand) -> Result<Outcome, Failure> {
    let NotifyCommand::Test { channel } = command;
    let config = context.load_config()?;
    let report = send_tests(&config, channel.as_deref(), clock::now())?;
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    match context.json {
        true => output::print_json(&report)?,
        false => print(&report.channels)?,
    }
    let failed = report.channels.iter().filter(|channel| !channel.sent);
    match failed.count() {
        0 => Ok(Outcome::Complete),
        failed => {
            let channels = output::count(failed as u64, "channel");
            Err(
                Failure::from_error(format!("{channels} did not accept the message"))
                    .hint("mend the [[notify]] table, and try again"),
            )
        }
    }
}

fn print(channels: &[ChannelTest]) -> Result<(), Failure> {
    for channel in channels {
        let (name, kind) = (&channel.name, channel.kind);
        match (&channel.error, &channel.answer) {
            (Some(error), _) => {
                output::print_line(format_args!("{name} ({kind}): not sent: {error}"))?;
            }
            (None, answer) => {
                let answer = answer.as_deref().unwrap_or("no answer");
                let id = channel.id.as_ref().map(|id| format!(", id {id}"));
                let id = id.unwrap_or_default();
                output::print_line(format_args!("{name} ({kind}): sent, answer {answer}{id}"))?;
            }
        }
    }
    Ok(())
}
