//! The system's ssh, as targets have it started: it never asks, never trusts an unknown host, never waits
//! for ever. Keys, agents, known hosts and jump hosts are those that the user's own ssh has.

use super::ErrorKind;

/// Seconds until a connection must stand.
pub(super) const CONNECT_SECONDS: u64 = 20;

/// `ssh` (the command with its options, instead of plain `ssh`) and the options that it always gets.
pub(super) fn command_line(ssh: Option<&str>, port: Option<u16>) -> String {
    let ssh = ssh.unwrap_or("ssh");
    let port = port.map_or(String::new(), |port| format!(" -p {port}"));
    format!(
        "{ssh} -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout={CONNECT_SECONDS} \
         -o ServerAliveInterval=15 -o ServerAliveCountMax=4{port}"
    )
}

/// What ssh's last words mean, if they are of those that need no other try, and a hint to go before them.
pub(super) fn refusal(said: &str) -> Option<(ErrorKind, &'static str)> {
    if said.contains("Host key verification failed") {
        let hint = "the server's host key is not known here, or another one; compare it and add it to \
                    known_hosts (ssh to it once); ";
        return Some((ErrorKind::Denied, hint));
    }
    ["Permission denied", "Too many authentication failures"]
        .iter()
        .any(|text| said.contains(text))
        .then_some((ErrorKind::Denied, ""))
}
