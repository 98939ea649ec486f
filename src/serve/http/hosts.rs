//! Under which names the agent answers.
//!
//! A page of any site can have its own name resolve to this machine, and then read the answers
//! (DNS rebinding). So a name that is not known to be this machine's gets no answer.

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::http::uri::Authority;

use super::client::Connected;
use super::problem::HttpProblem;
use crate::config::{Config, ListenAddress};

/// Refuses the name by which the client calls this agent, unless it is one of its own.
pub(super) fn check(
    authority: Option<&str>,
    connected: Connected,
    config: &Config,
) -> Result<(), HttpProblem> {
    let text = authority.unwrap_or_default();
    let is_known = text
        .parse::<Authority>()
        .is_ok_and(|authority| is_own(&authority, connected, config));
    match is_known {
        true => Ok(()),
        false => {
            let shown: String = text.chars().take(100).collect();
            let detail = format!(
                "this agent does not answer to {shown:?}; if that is its name here, add it to [serve] allowed_hosts"
            );
            let status = StatusCode::MISDIRECTED_REQUEST;
            Err(HttpProblem::new(status, "unknown_host", detail))
        }
    }
}

fn is_own(authority: &Authority, connected: Connected, config: &Config) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let with_port = authority.as_str().to_ascii_lowercase();
    let allowed = &config.serve.allowed_hosts;
    let is_allowed = allowed
        .iter()
        .any(|name| name == host || *name == with_port);
    if is_allowed || ["localhost", "127.0.0.1", "[::1]"].contains(&host) {
        return true;
    }
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        // A name is never this machine's address, so no other site's page can send it.
        return connected.own.map(|own| own.to_canonical()) == Some(address.to_canonical())
            || listens_on(config, address);
    }
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy().to_ascii_lowercase();
    let short = machine.split('.').next().unwrap_or_default();
    [&machine, short, &config.host.as_str().to_ascii_lowercase()].contains(&host)
}

fn listens_on(config: &Config, address: IpAddr) -> bool {
    let mut listen = config.serve.listen.iter();
    listen.any(|one| matches!(one, ListenAddress::Tcp(own) if own.ip() == address))
}
