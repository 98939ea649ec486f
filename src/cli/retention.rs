//! A retention policy on the command line.

use crate::config::{Retention, parse_duration};

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
