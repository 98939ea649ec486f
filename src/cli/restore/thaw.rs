//! What to say, and to ask for, where archives lie in cold storage.

use super::super::failure::Failure;
use super::super::output::{count, size};
use crate::base::error_chain::with_causes;
use crate::repository::HostFolder;
use crate::restore::{self, Frozen, Thawing};

const HOURS: &str = "Glacier takes 5 to 12 hours, Deep Archive up to 48";

pub fn amount(frozen: &Frozen) -> String {
    format!(
        "{} of the {} that this needs, {}, lie in cold storage and cannot be read until they are thawed",
        frozen.archives.len(),
        count(frozen.needed as u64, "archive"),
        size(frozen.bytes()),
    )
}

/// The failure of a restore that was not told to thaw.
pub fn needed(frozen: &Frozen) -> Failure {
    Failure::from_error(format!("{}; nothing was changed", amount(frozen))).hint(format!(
        "the same command with --thaw asks for them (or --thaw=DAYS: for how long they stay readable, 7). \
         {HOURS}; the provider charges for it"
    ))
}

/// Asks for all of them. No success: nothing is restored yet.
pub async fn ask(folder: &HostFolder, frozen: &Frozen, days: u16) -> Failure {
    let thawing = match restore::thaw(folder, frozen, days).await {
        Ok(thawing) => thawing,
        Err(error) => {
            let (error, amount) = (with_causes(&error), amount(frozen));
            return Failure::from_error(format!("{amount}, and asking for them failed: {error}"))
                .hint("mend that and run the same command again: asking twice does no harm");
        }
    };
    let Thawing {
        asked,
        under_way,
        ready,
    } = thawing;
    let parts = [
        (asked, "asked for now"),
        (under_way, "under way already"),
        (ready, "readable by now"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> = parts
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    Failure::from_error(format!(
        "{}; for {}: {}. Nothing is restored yet",
        amount(frozen),
        count(days.into(), "day"),
        parts.join(", ")
    ))
    .hint(format!("{HOURS}: then run the same command again"))
}
