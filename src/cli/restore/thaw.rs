//! Messages and requests for archives in cold storage.

use super::super::failure::Failure;
use super::super::output::{count, size};
use crate::base::error_chain::with_causes;
use crate::repository::HostFolder;
use crate::restore::{self, Frozen, Thawing};

const HOURS: &str = "Glacier takes 5 to 12 hours, Deep Archive up to 48";

/// Returns how much of a restore is in cold storage.
pub(super) fn amount(frozen: &Frozen) -> String {
    format!(
        "{} of the {} that this needs, {}, are in cold storage and cannot be read until they are thawed",
        frozen.archives.len(),
        count(frozen.needed as u64, "archive"),
        size(frozen.bytes()),
    )
}

/// Returns the failure of a restore without `--thaw`.
pub(super) fn needed(frozen: &Frozen) -> Failure {
    Failure::from_error(format!("{}; nothing was changed", amount(frozen))).hint(format!(
        "the same command with --thaw requests them (or --thaw=DAYS: for how long they stay readable, 7). \
         {HOURS}; the provider charges for it"
    ))
}

/// Requests all of them. Returns a failure in any case, since nothing is restored yet.
pub(super) async fn ask(folder: &HostFolder, frozen: &Frozen, days: u16) -> Failure {
    let thawing = match restore::thaw(folder, frozen, days).await {
        Ok(thawing) => thawing,
        Err(error) => {
            let (error, amount) = (with_causes(&error), amount(frozen));
            return Failure::from_error(format!("{amount}, and requesting them failed: {error}"))
                .hint("fix that and run the same command again: requesting twice does no harm");
        }
    };
    let Thawing {
        asked,
        under_way,
        ready,
    } = thawing;
    let parts = [
        (asked, "requested now"),
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
