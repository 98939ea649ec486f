//! A retention policy on the command line.

use std::collections::BTreeSet;

use crate::config::{Retention, parse_age};

/// Parses `daily=7,weekly=4,within=2d`: the keys of `[retention]`.
pub(super) fn parse(text: &str) -> Result<Retention, String> {
    let mut policy = Retention::default();
    let mut seen = BTreeSet::new();
    for part in text.split(',') {
        let wrong = || format!("{part:?} is not like \"daily=7\" or \"within=2d\"");
        let (key, value) = part.trim().split_once('=').ok_or_else(wrong)?;
        if !seen.insert(key) {
            return Err(format!("{key} is given twice"));
        }
        let number = match key {
            "last" => &mut policy.last,
            "hourly" => &mut policy.hourly,
            "daily" => &mut policy.daily,
            "weekly" => &mut policy.weekly,
            "monthly" => &mut policy.monthly,
            "yearly" => &mut policy.yearly,
            "within" => {
                policy.within = Some(parse_age(value)?);
                continue;
            }
            _ => return Err(wrong()),
        };
        *number = value.parse().map_err(|_| wrong())?;
    }
    match policy == Retention::default() {
        true => Err(format!("{text:?} keeps nothing")),
        false => Ok(policy),
    }
}

/// Reads a tag that keeps its snapshots.
pub(super) fn tag(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a tag is not empty".to_owned()),
        tag => Ok(tag.to_owned()),
    }
}
