//! A retention policy on the command line, and its use on this host's own snapshots.

use super::failure::Failure;
use crate::agent::{LocalRetention, State};
use crate::config::{Config, Retention, parse_duration};
use crate::ids::Stamp;
use crate::{clock, pins};

/// Deletes the snapshots of this host that `[retention]` lets go; gives their stamps.
pub fn retain_local(
    config: &Config,
    state: &State,
    confirmed: bool,
    dry_run: bool,
) -> Result<Vec<Stamp>, Failure> {
    let Some(policy) = config.retention else {
        return Ok(Vec::new());
    };
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let local = LocalRetention {
        dir: &config.snapshots_dir,
        policy,
        pins: &pins::read(&config.state)?,
        targets: &targets,
        now: clock::now(),
        confirmed,
        dry_run,
    };
    Ok(local.apply(state)?)
}

/// `daily=7,weekly=4,within=2d`: the keys of `[retention]`.
pub fn parse(text: &str) -> Result<Retention, String> {
    let mut policy = Retention::default();
    for part in text.split(',') {
        let wrong = || format!("{part:?} is not like \"daily=7\" or \"within=2d\"");
        let (key, value) = part.trim().split_once('=').ok_or_else(wrong)?;
        let place = match key {
            "last" => &mut policy.last,
            "hourly" => &mut policy.hourly,
            "daily" => &mut policy.daily,
            "weekly" => &mut policy.weekly,
            "monthly" => &mut policy.monthly,
            "yearly" => &mut policy.yearly,
            "within" => {
                policy.within = Some(parse_duration(value)?);
                continue;
            }
            _ => return Err(wrong()),
        };
        *place = value.parse().map_err(|_| wrong())?;
    }
    match policy == Retention::default() {
        true => Err(format!("{text:?} keeps nothing")),
        false => Ok(policy),
    }
}
