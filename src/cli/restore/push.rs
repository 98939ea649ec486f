//! `restore --via`: restores a snapshot in place on another host, with the identity on this
//! machine.

use std::sync::Arc;

use serde_json::{Value, json};

use super::content::{not_fetched, request};
use super::{Context, Failure, Outcome, RestoreArgs, announce, output, prompt, tell_about};
use crate::jobs::context::runtime;
use crate::jobs::in_place_content::ContentScratch;
use crate::jobs::restore_by_push::{PushRestoreReport, PushRestoreRequest, RemoteError};
use crate::restore::open::Identities;
use crate::storage::ViaCommand;

/// Runs it. `options` are those of the restore there.
pub(super) fn run(
    context: &Context,
    args: &RestoreArgs,
    via: &str,
    options: RemoteOptions,
) -> Result<Outcome, Failure> {
    let via = ViaCommand::parse(via).map_err(|error| Failure::usage(format!("--via: {error}")))?;
    let choice = args.narrow.narrow(&args.snapshot)?;
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let scratch = ContentScratch::for_push(args.content.scratch.as_deref())?;
    let report = runtime()?.block_on(async {
        let fetch = request(context, args, &choice, identities).await?;
        let there = PushRestoreRequest {
            via,
            only: options.only,
            flags: options.flags,
            preserve: options.preserve,
        };
        let there = there.connect(context)?;
        let folder = fetch.folder.clone();
        let tell = |plan: &_| announce(context, plan);
        match there.run(fetch, &scratch, &tell, context).await {
            Ok(report) => Ok(report),
            Err(error) => Err(not_fetched(error, args, &folder).await),
        }
    });
    drop(scratch);
    conclude(context, report?)
}

/// The options of a restore in place that are passed on to the other host.
pub(super) struct RemoteOptions {
    /// The sources to restore; empty: all.
    pub(super) only: Vec<String>,
    /// Options without a value, such as `--no-checks`.
    pub(super) flags: Vec<&'static str>,
    /// The value of `--preserve`. `None`: it is not given.
    pub(super) preserve: Option<String>,
}

/// Prints what came of it; ends as the restore there ended.
fn conclude(context: &Context, mut report: PushRestoreReport) -> Result<Outcome, Failure> {
    // What the directory here could not keep is in its record, and the host reports its own.
    report.restored.not_kept.clear();
    tell_about(context, &report.restored);
    if context.json {
        output::print_json(&json!({
            "host": report.host,
            "snapshot": report.restored.snapshot,
            "stamp": report.restored.stamp,
            "sequence": report.restored.sequence,
            "signer": report.restored.signer,
            "files": report.restored.files,
            "bytes": report.restored.bytes,
            "fetched_bytes": report.restored.fetched_bytes,
            "restore": report.verdict,
        }))?;
    } else if let Some(verdict) = &report.verdict {
        print_verdict(context, &report, verdict)?;
    }
    let failure = |make: fn(String) -> Failure| Err(remote_failure(&report, make));
    match (report.exit_code, report.errors.is_empty()) {
        (0, true) => Ok(Outcome::Complete),
        (3, true) => Ok(Outcome::Partial),
        (2, _) => failure(Failure::usage),
        _ => failure(Failure::from_error),
    }
}

/// Prints the result of the other host, as that host would print it.
fn print_verdict(
    context: &Context,
    report: &PushRestoreReport,
    verdict: &Value,
) -> Result<(), Failure> {
    let host = &report.host;
    let list = |key: &str| verdict[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for warning in list("warnings") {
        output::tell(format_args!("warning: {host}: {}", text(&warning["text"])));
    }
    let checks = list("checks").into_iter();
    for check in checks.chain(list("checks_after_rollback")) {
        let passed = if check["passed"] == true {
            "passed"
        } else {
            "FAILED"
        };
        let (name, found) = (text(&check["name"]), text(&check["found"]));
        context.note(format_args!("{host}: check {name}: {passed}: {found}"));
    }
    // The last reason is that of the failure.
    let reasons = list("because");
    for reason in reasons.iter().rev().skip(1).rev() {
        output::tell(format_args!("{host}: {}", text(&reason["text"])));
    }
    let stamp = report.restored.stamp;
    match verdict["state"].as_str() {
        Some("planned") => {
            let plan = &verdict["plan"];
            let items = plan["items"].as_array();
            let items = items.into_iter().flatten().map(|item| text(&item["name"]));
            let items = items.collect::<Vec<_>>().join(", ");
            let line = format!("{host}: {items} would be restored from snapshot {stamp}");
            output::print_line(line)?;
        }
        Some("committed") if reasons.is_empty() => {
            let items = list("items");
            let items = items.iter().map(|item| text(&item["name"]));
            let items = items.collect::<Vec<_>>().join(", ");
            let down = verdict["downtime_seconds"].as_f64();
            let down = down.map_or(String::new(), |seconds| {
                format!("; the service was down for {seconds:.1} s")
            });
            let line = format!("{host}: restored {items} of snapshot {stamp} in place{down}");
            output::print_line(line)?;
            if let Some(copy) = verdict["safety_copy"].as_str() {
                output::print_line(format_args!(
                    "{host}: the old content is in {copy}; `sealift rollback` there brings it back"
                ))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the failure there as one of this command.
fn remote_failure(report: &PushRestoreReport, make: fn(String) -> Failure) -> Failure {
    let host = &report.host;
    let Some(RemoteError { text, causes, next }) = report.errors.first() else {
        return make(format!("the restore on {host} failed"));
    };
    let causes = causes.iter().map(|cause| format!(": {cause}"));
    let failure = make(format!("{host}: {text}{}", causes.collect::<String>()));
    match next {
        Some(next) => failure.hint(format!("on {host}: {next}")),
        None => failure,
    }
}
