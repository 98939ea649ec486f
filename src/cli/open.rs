//! `open ARCHIVE…`: decrypts archives to a tar on stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use crate::restore::open::{Identities, OpenArchiveError};
use crate::restore::{ConcatError, concat_tars};

#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// Archives (*.tar.zst.age); several make one tar
    #[arg(required = true, value_name = "ARCHIVE")]
    archives: Vec<PathBuf>,
    /// An identity file; can be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    identity: Vec<PathBuf>,
}

pub(super) fn run(_context: &Context, args: &OpenArgs) -> Result<Outcome, Failure> {
    if io::stdout().is_terminal() {
        return Err(Failure::usage("refusing to write a tar to the terminal")
            .hint("pipe it: sealift open ... | tar tv"));
    }
    let identities = Identities::load(&args.identity, &prompt())?;
    let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    concat_tars(&args.archives, &identities, &mut out)
        .map_err(|error| not_opened(error, &identities))?;
    out.flush()?;
    Ok(Outcome::Complete)
}

/// Adds whose identity was given, if it is the wrong one. An archive does not name its recipients.
fn not_opened(error: ConcatError, identities: &Identities) -> Failure {
    let error = match error {
        // So it is known as the end of the reader, which is no failure.
        ConcatError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return error.into();
        }
        error => error,
    };
    let is_wrong_key = matches!(
        &error,
        ConcatError::Open {
            source: OpenArchiveError::NoMatchingKey { .. },
            ..
        }
    );
    let failure = Failure::from(error);
    match (is_wrong_key, identities.recipients()) {
        (true, [_, ..]) => failure.hint(format!(
            "the identity is of {}; `sealift list --json` shows to whom each snapshot is encrypted",
            identities.recipients().join(", ")
        )),
        _ => failure,
    }
}
