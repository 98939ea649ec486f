//! The channel that is a command.

use std::io::{Seek as _, Write as _};
use std::time::Duration;

use super::ChannelAnswer;
use super::item::NotifyMessage;
use crate::base::command::{CommandLine, Streams, in_memory, run_guarded};
use crate::base::error_chain::with_causes;

/// Runs the command with the message on its standard input. It gets no part of the message as an
/// argument.
pub(super) fn run(
    line: &CommandLine,
    message: &NotifyMessage,
    timeout: Duration,
) -> Result<ChannelAnswer, String> {
    let input = || {
        let mut file = in_memory("sealift-event")?;
        file.write_all(&serde_json::to_vec(message)?)?;
        file.rewind()?;
        Ok::<_, std::io::Error>(file)
    };
    let input = input().map_err(|error| format!("cannot pass the event: {error}"))?;
    let streams = Streams {
        input: Some(input),
        ..Streams::default()
    };
    let environment = [
        ("SEALIFT_EVENT", message.event.as_str()),
        ("SEALIFT_HOST", message.host.as_str()),
    ];
    match run_guarded(line, streams, &environment, timeout) {
        Ok(_) => Ok(ChannelAnswer {
            status: "exit code 0".to_owned(),
            id: None,
        }),
        Err(error) => Err(with_causes(&error)),
    }
}
