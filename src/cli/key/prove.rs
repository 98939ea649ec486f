//! `key prove`: shows that an identity exists, and leaves a signed receipt of it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::output;
use super::super::receipt_signer::{ReceiptSigner, SignerArgs, load_config, receipt_target};
use super::super::target_args::{Remote, RemoteArgs};
use super::{Context, Failure, Outcome, prompt};
use crate::config::DrillConfig;
use crate::jobs::context::runtime;
use crate::jobs::init::write_new_file;
use crate::jobs::key_proof::{Prover, SignedReceipt, collect, prove_offline, read_receipt, upload};
use crate::keys::recipients::short;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::storage::{self, TargetSpec};

#[derive(Debug, Args)]
pub(in crate::cli) struct ProveArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The identity file to prove (age, age with a passphrase, OpenSSH, plugin); can be repeated
    /// [default: `identity` of [drill]]
    #[arg(long, short, value_name = "FILE")]
    identity: Vec<PathBuf>,
    #[command(flatten)]
    signer: SignerArgs,
    /// Write what --archive needs into the new directory DIR instead, to be carried to a machine
    /// without a network
    #[arg(long, value_name = "DIR", requires = "from", conflicts_with_all = ["identity", "archive", "upload"])]
    collect: Option<PathBuf>,
    /// Without a network: use these files, or the directory that --collect wrote
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "output", conflicts_with_all = ["from", "upload"])]
    archive: Vec<PathBuf>,
    /// With --archive: write the receipt to this new file
    #[arg(long, value_name = "FILE", requires = "archive")]
    output: Option<PathBuf>,
    /// Put the receipt in this file, which --output wrote, on the target of --from
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with_all = ["identity", "archive"])]
    upload: Option<PathBuf>,
}

pub(in crate::cli) fn run(context: &Context, args: &ProveArgs) -> Result<Outcome, Failure> {
    let config = load_config(context)?;
    let config = config.as_ref();
    if let Some(dir) = &args.collect {
        return collect_into(context, args, dir);
    }
    if let Some(file) = &args.upload {
        return put(context, args, file);
    }
    let prover = prover(args, config)?;
    match &args.output {
        Some(output) => offline(context, args, &prover, output),
        None => online(context, args, config, &prover),
    }
}

fn prover(args: &ProveArgs, config: Option<&DrillConfig>) -> Result<Prover, Failure> {
    let signer = ReceiptSigner::load(&args.signer, config)?;
    let files = match (args.identity.is_empty(), config) {
        (true, Some(config)) => config.identities.clone(),
        _ => args.identity.clone(),
    };
    if files.is_empty() {
        return Err(
            Failure::usage("no identity is given: it is what is to be proven")
                .hint("give --identity FILE"),
        );
    }
    Ok(Prover {
        identities: Arc::new(Identities::load(&files, &prompt())?),
        signer: signer.signer,
        by: signer.by,
    })
}

/// Returns the options of each place that is meant.
fn places(args: &ProveArgs, config: Option<&DrillConfig>) -> Result<Vec<RemoteArgs>, Failure> {
    if args.remote.from.is_some() {
        return Ok(vec![args.remote.clone()]);
    }
    let Some(config) = config else {
        return Err(Failure::usage("no place of backups is given").hint("give --from URL"));
    };
    let of = |from: &String| RemoteArgs {
        from: Some(from.clone()),
        host: args.remote.host.clone().or_else(|| config.host.clone()),
        ..args.remote.clone()
    };
    Ok(config.from.iter().map(of).collect())
}

fn online(
    context: &Context,
    args: &ProveArgs,
    config: Option<&DrillConfig>,
    prover: &Prover,
) -> Result<Outcome, Failure> {
    let runtime = runtime()?;
    let mut reports = Vec::new();
    let mut failures: Vec<Failure> = Vec::new();
    for place in places(args, config)? {
        for one in runtime.block_on(place.for_each_host(context))? {
            match runtime.block_on(prove_one(context, &one, prover)) {
                Ok(signed) => reports.push(signed.report()),
                Err(failure) => failures.push(failure),
            }
        }
    }
    // The only failure is that of the command.
    if reports.is_empty()
        && let Some(failure) = failures.pop()
    {
        failures.iter().for_each(tell);
        return Err(failure);
    }
    failures.iter().for_each(tell);
    if context.json {
        output::print_json(&json!({ "proofs": reports }))?;
    } else {
        for report in &reports {
            let recipients: Vec<String> = report.recipients.iter().map(|one| short(one)).collect();
            output::print_line(format_args!(
                "{} opened snapshot {} of {}; receipt: {}",
                recipients.join(", "),
                report.stamp,
                report.host,
                report.receipt
            ))?;
        }
    }
    Ok(match failures.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn tell(failure: &Failure) {
    let text = failure.text();
    let causes = text.causes.iter().map(|cause| format!(": {cause}"));
    let causes: String = causes.collect();
    output::tell(format_args!("warning: {}{causes}", text.text));
}

async fn prove_one(
    context: &Context,
    place: &RemoteArgs,
    prover: &Prover,
) -> Result<SignedReceipt, Failure> {
    let opened = place.open(context).await?;
    let manifest = &opened.chain.latest()?.manifest;
    let target = receipt_target(place)?;
    let signed = prover.prove(&opened.folder, manifest, target).await?;
    upload(&opened.folder, &signed).await?;
    Ok(signed)
}

fn offline(
    context: &Context,
    args: &ProveArgs,
    prover: &Prover,
    to: &std::path::Path,
) -> Result<Outcome, Failure> {
    let signed = runtime()?.block_on(prove_offline(prover, &args.archive))?;
    write_new_file(to, &signed.file(), 0o644)?;
    let report = signed.report();
    context.note(format_args!(
        "next, on a machine with a network: sealift key prove --upload {} --from URL",
        output::shell_word(to)
    ));
    if context.json {
        output::print_json(&json!({ "proofs": [report], "output": to.display().to_string() }))?;
    } else {
        output::print_line(format_args!(
            "opened snapshot {} of {}; the receipt is in {}",
            report.stamp,
            report.host,
            to.display()
        ))?;
    }
    Ok(Outcome::Complete)
}

fn collect_into(
    context: &Context,
    args: &ProveArgs,
    dir: &std::path::Path,
) -> Result<Outcome, Failure> {
    let runtime = runtime()?;
    let Remote { folder, chain, .. } = runtime.block_on(args.remote.open(context))?;
    let manifest = &chain.latest()?.manifest;
    let target = receipt_target(&args.remote)?;
    let bytes = runtime.block_on(collect(&folder, manifest, target, dir))?;
    if context.json {
        let (dir, stamp) = (dir.display().to_string(), manifest.core.stamp);
        output::print_json(&json!({ "collected": dir, "stamp": stamp, "bytes": bytes }))?;
        return Ok(Outcome::Complete);
    }
    output::print_line(format_args!(
        "wrote what a proof of snapshot {} needs to {}: {}",
        manifest.core.stamp,
        dir.display(),
        output::size(bytes)
    ))?;
    context.note(format_args!(
        "next, on the machine with the identity: sealift key prove --archive {} --output RECEIPT --identity FILE \
         --signer-key FILE",
        output::shell_word(dir)
    ));
    Ok(Outcome::Complete)
}

/// Puts a receipt that was made elsewhere on the target.
fn put(context: &Context, args: &ProveArgs, file: &std::path::Path) -> Result<Outcome, Failure> {
    let signed = read_receipt(file)?;
    let (spec, _) = args
        .remote
        .source()?
        .ok_or_else(|| Failure::usage("no place of backups is given"))?;
    let spec = TargetSpec {
        patience: context.patience(),
        ..spec
    };
    let target = storage::open_existing(&spec, None).map_err(Failure::usage)?;
    let folder = HostFolder::new(target, signed.receipt.host.clone());
    runtime()?.block_on(upload(&folder, &signed))?;
    let report = signed.report();
    if context.json {
        output::print_json(&json!({ "proofs": [report] }))?;
    } else {
        let label = folder.target.label();
        output::print_line(format_args!("receipt: {} on {label}", report.receipt))?;
    }
    Ok(Outcome::Complete)
}
