//! The system's ssh, as rsync and sftp start it.
//!
//! It runs non-interactively, refuses an unknown host key and gives up on a silent server. Keys,
//! agents, known hosts and jump hosts come from the user's own ssh configuration.

use tokio::process::Command;

use super::error::ErrorKind;
use super::process_failure::ProcessFailure;

/// Seconds within which a connection must be established.
pub(super) const CONNECT_SECONDS: u64 = 20;

/// Returns the ssh command line: `ssh` (a command with its options; `None`: plain `ssh`) and the
/// options that are always added. A connection must be established within `connect_seconds`.
pub(super) fn command_line(ssh: Option<&str>, port: Option<u16>, connect_seconds: u64) -> String {
    let ssh = ssh.unwrap_or("ssh");
    let port = port.map_or(String::new(), |port| format!(" -p {port}"));
    format!(
        "{ssh} -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout={connect_seconds} \
         -o ServerAliveInterval=15 -o ServerAliveCountMax=4{port}"
    )
}

/// Returns the ssh command that leads to the machine `login`, ready for further arguments.
pub(super) fn command(
    ssh: Option<&str>,
    port: Option<u16>,
    login: &str,
    connect_seconds: u64,
) -> Result<Command, ProcessFailure> {
    let words = words(&command_line(ssh, port, connect_seconds)).ok_or_else(|| {
        let what = "a quote in the ssh command is not closed";
        ProcessFailure::new(ErrorKind::Permanent, what)
    })?;
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.env("LC_ALL", "C").args(words).arg(bare(login));
    Ok(command)
}

/// Checks the setting `ssh`. An error follows the setting's name in a message.
pub(super) fn check_command(line: &str) -> Result<(), String> {
    match words(line) {
        None => Err("has a quote that is not closed".to_owned()),
        Some(words) if words.first().is_none_or(String::is_empty) => {
            Err("names no command".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// Removes the brackets around an IPv6 address: only URLs and rsync's arguments need them.
fn bare(login: &str) -> String {
    login.replace(['[', ']'], "")
}

/// Splits a command line into words as rsync splits its `-e`: a word may be quoted, and a doubled
/// quote within quotes is one quote. `None`: a quote is not closed.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match quote {
            None if c == ' ' => words.extend(word.take()),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            Some(open) if c == open && characters.peek() == Some(&open) => {
                characters.next();
                word.get_or_insert_default().push(c);
            }
            Some(open) if c == open => quote = None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Recognises ssh output that makes a retry pointless. Returns the kind of error and a hint to put
/// before the output.
pub(super) fn refusal(said: &str) -> Option<(ErrorKind, &'static str)> {
    if said.contains("Host key verification failed") {
        let hint = "the server's host key is unknown or has changed; compare it and add it to \
                    known_hosts (ssh to it once); ";
        return Some((ErrorKind::Denied, hint));
    }
    ["Permission denied", "Too many authentication failures"]
        .iter()
        .any(|text| said.contains(text))
        .then_some((ErrorKind::Denied, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_rsync_splits_them() {
        let words = |line| words(line).unwrap_or_default();
        assert_eq!(words("ssh  -i key "), ["ssh", "-i", "key"]);
        assert_eq!(
            words("ssh -i 'my key' -o \"A=b c\""),
            ["ssh", "-i", "my key", "-o", "A=b c"]
        );
        assert_eq!(words("a'b c'd ''"), ["ab cd", ""]);
        assert_eq!(words("'it''s' \"'\""), ["it's", "'"]);
        assert_eq!(super::words("ssh 'x"), None);
    }

    #[test]
    fn a_command_ends_with_its_machine() {
        let command = command(Some("my-ssh -i 'a b'"), Some(2222), "me@[::1]", 20).unwrap();
        let command = command.as_std();
        assert_eq!(command.get_program(), "my-ssh");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[..2], ["-i", "a b"]);
        assert!(arguments.contains(&"StrictHostKeyChecking=yes".as_ref()));
        assert_eq!(arguments[arguments.len() - 3..], ["-p", "2222", "me@::1"]);
        assert!(super::command(Some("ssh '"), None, "x", 20).is_err());
    }
}
