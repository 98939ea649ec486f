//! `key paper`: the page for the safe.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use super::super::Context;
use super::super::failure::{Failure, Outcome};
use super::super::output;
use super::super::target_args::trust_of;
use super::prompt;
use crate::base::clock;
use crate::base::ids::Hash;
use crate::base::ownership::{open_regular, read_text};
use crate::jobs::init::write_new_file;
use crate::jobs::paper::{Paper, PaperSecret};
use crate::jobs::recovery_files::RECOVER_PY;
use crate::restore::open::Identities;
use crate::storage::TargetSpec;

/// Largest identity file that is read, in bytes.
const MAX_IDENTITY_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct PaperArgs {
    /// The identity file
    #[arg(long, short, value_name = "FILE")]
    identity: PathBuf,
    /// Where to write the page (HTML, 0600)
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The signer of the backups: a SHA256:... fingerprint, a public key, or a file of one
    #[arg(long, value_name = "SIGNER")]
    signer: Option<String>,
    /// Where the backups are; can be repeated
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
    /// Print the identity itself, if a passphrase protects its file [default: print the encrypted
    /// file]
    #[arg(long, conflicts_with = "public")]
    decrypted: bool,
    /// Leave the identity out: a page for the wall
    #[arg(long)]
    public: bool,
}

/// What `key paper` wrote.
#[derive(Debug, Serialize)]
struct WrittenPaper<'a> {
    /// The path of the page.
    page: String,
    /// Whether the identity is on it.
    has_identity: bool,
    recipients: &'a [String],
    recover_py_sha256: Hash,
}

pub(super) fn run(context: &Context, args: &PaperArgs) -> Result<Outcome, Failure> {
    // Proves that the file can be used, before it is trusted to paper.
    let identities = Identities::load(std::slice::from_ref(&args.identity), &prompt())?;
    let secrets = match (args.public, args.decrypted) {
        (true, _) => Vec::new(),
        (false, true) => {
            let text = Identities::decrypted_text(&args.identity, &prompt())?;
            PaperSecret::of_file(&text)?
        }
        (false, false) => {
            let text = open_regular(&args.identity)
                .and_then(|file| read_text(&file, MAX_IDENTITY_BYTES))
                .map(Zeroizing::new);
            let text = text.map_err(|error| {
                let path = args.identity.display();
                Failure::from_error(format!("cannot read {path} as text: {error}"))
                    .hint("convert it: age -a writes text")
            })?;
            PaperSecret::of_file(&text)?
        }
    };
    let labels = args.target.iter();
    let places: Vec<String> = labels
        .map(|url| TargetSpec::from_url(url).label())
        .collect();
    let recover_py = Hash::sha256(RECOVER_PY);
    let signers = match &args.signer {
        Some(signer) => fingerprints(signer)?,
        None => Vec::new(),
    };
    let paper = Paper {
        secrets,
        recipients: identities.recipients(),
        signers: &signers,
        places: &places,
        recover_py,
        made_at: clock::now(),
    };
    let page = paper.render()?;
    write_new_file(&args.output, page.as_bytes(), 0o600)?;
    if context.json {
        output::print_json(&WrittenPaper {
            page: args.output.display().to_string(),
            has_identity: !args.public,
            recipients: identities.recipients(),
            recover_py_sha256: recover_py,
        })?;
    } else {
        output::print_line(format_args!("wrote {}", args.output.display()))?;
    }
    if !args.public {
        context.note(
            "print it, delete the file, and type the identity back once: `sealift key check` says whether it is right",
        );
    }
    Ok(Outcome::Complete)
}

/// Returns the fingerprints that a value of `--signer` names: the reader of the page types them,
/// and does not have the files of this machine.
fn fingerprints(signer: &str) -> Result<Vec<String>, Failure> {
    let found = trust_of(signer)?.fingerprints();
    match found.is_empty() {
        false => Ok(found),
        true => Err(
            Failure::usage(format!("{signer} names no key that may sign snapshots")).hint(
                "give the fingerprint that `init` printed, SHA256:..., or the host's signer.pub",
            ),
        ),
    }
}
