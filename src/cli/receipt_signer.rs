//! The key that signs receipts, and the principal as which it signs.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::{DrillConfig, check_principal};
use crate::format::signature::Signer;

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
