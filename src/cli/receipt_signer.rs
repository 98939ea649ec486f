//! What `drill` and `key prove` share: the configuration of the machine that drills, the key that
//! signs receipts, and how receipts name a target.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::failure::Failure;
use super::target_args::RemoteArgs;
use super::{named_place, output};
use crate::config::{ConfigError, DrillConfig, check_principal};
use crate::format::receipt::{ReceiptTarget, target_id};
use crate::format::signature::Signer;
use crate::storage::{self, TargetSpec};

/// Who signs a receipt.
#[derive(Debug, Args)]
pub(super) struct SignerArgs {
    /// The OpenSSH Ed25519 private key that signs the receipt [default: `signer` of [drill]]
    #[arg(long, value_name = "FILE")]
    signer_key: Option<PathBuf>,
    /// The principal in the host's allowed_signers file [default: `principal` of [drill], else
    /// drill@ and this machine's name]
    #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
    by: Option<String>,
}

fn principal(text: &str) -> Result<String, String> {
    check_principal(text).map(|()| text.to_owned())
}

/// The key and its principal.
pub(super) struct ReceiptSigner {
    pub(super) signer: Signer,
    pub(super) by: String,
}

impl ReceiptSigner {
    pub(super) fn load(args: &SignerArgs, config: Option<&DrillConfig>) -> Result<Self, Failure> {
        let path = args.signer_key.as_ref();
        let path = path.or_else(|| config.map(|config| &config.signer));
        let Some(path) = path else {
            return Err(Failure::usage("no key is given that signs the receipt").hint(
                "`ssh-keygen -t ed25519 -N '' -f drill` makes one; give --signer-key FILE, or `signer` in [drill]",
            ));
        };
        let by = args.by.clone();
        let by = by.or_else(|| config.and_then(|config| config.principal.clone()));
        Ok(Self {
            signer: Signer::load(path).map_err(Failure::usage)?,
            by: by.unwrap_or_else(default_principal),
        })
    }
}

fn default_principal() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    let by = format!("drill@{name}");
    match check_principal(&by) {
        Ok(()) => by,
        Err(_) => "drill@machine".to_owned(),
    }
}

/// Returns the configuration of this machine for drills, if it has one. That of a host is none.
pub(super) fn load_config(context: &Context) -> Result<Option<DrillConfig>, Failure> {
    match DrillConfig::find(context.config.as_deref()) {
        Ok((config, warnings)) => {
            for warning in warnings {
                output::tell(format_args!("warning: {warning}"));
            }
            Ok(Some(config))
        }
        Err(ConfigError::NotFound { .. } | ConfigError::ForHosts { .. }) => Ok(None),
        Err(error) => Err(Failure::usage(error)),
    }
}

/// Returns how receipts name the place: by the remote's name, or the kind of the target.
pub(super) fn receipt_target(remote: &RemoteArgs) -> Result<ReceiptTarget, Failure> {
    let (spec, _) = remote
        .source()?
        .ok_or_else(|| Failure::usage("no place of backups is given"))?;
    let place = storage::place_without_user(&spec).map_err(Failure::usage)?;
    let from = remote.from.as_deref().unwrap_or_default();
    Ok(ReceiptTarget {
        name: match named_place::is_name(from) {
            true => from.to_owned(),
            false => kind_of(&spec).to_owned(),
        },
        id: target_id(&place),
    })
}

/// Returns the kind of a target: a URL may name what no other reader of the target should know.
fn kind_of(spec: &TargetSpec) -> &str {
    match spec.url.split_once("://") {
        _ if storage::folder_path(&spec.url).is_some() => "folder",
        Some((scheme, _)) => scheme,
        None => "rsync",
    }
}
