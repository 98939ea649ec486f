//! A snapshot that a running AtoCore makes: this host asks for it, checks it, and adopts it as one
//! of its own.
//!
//! AtoCore's answer is a claim. Only the directory that it names counts, and only if it is where
//! AtoCore's snapshots may be, is as new as the request, and passes the same validation as a
//! snapshot of this host. A snapshot directly in the snapshots directory is used where it is;
//! another one is copied into it, as reflinks if the file system can.
//!
//! If there is no such snapshot, the run fails, or this host copies AtoCore's data itself and the
//! run counts as partial.

mod adopt;
mod ask;
mod find;

use std::time::Instant;

use super::error::{ProduceError, SourceError};
use super::substitute::Substitute;
use super::{ProduceRequest, Produced, begin, produce_copies, wanted_sources};
use crate::base::progress::{Progress, Stage};
use crate::config::{AtoCoreSource, Config, Fallback, Source};

/// Makes a snapshot as `source` says.
pub(super) fn produce(
    config: &Config,
    source: &AtoCoreSource,
    request: &ProduceRequest,
    progress: &dyn Progress,
) -> Result<Produced, ProduceError> {
    let wanted = wanted_sources(config, &request.include)?;
    let with_chroma = source.include_chroma || wanted.iter().any(|one| one.is_vector_store());
    begin(progress, Stage::Producing, &source.name);
    let began = Instant::now();
    let error = match adopt::adopt(config, source, request, with_chroma, progress) {
        Ok(mut produced) => {
            produced.took.push((source.name.clone(), began.elapsed()));
            return Ok(produced);
        }
        Err(error) => SourceError::from(error),
    };
    match source.fallback {
        Fallback::Fail => Err(ProduceError::Source {
            name: source.name.clone(),
            source: Box::new(error),
        }),
        Fallback::Local => copy(config, request, progress, (wanted, with_chroma), &error),
    }
}

/// Copies AtoCore's data, because AtoCore made no snapshot for the reason `cause`. The vector store
/// is copied only if something holds AtoCore still for the copy.
fn copy(
    config: &Config,
    request: &ProduceRequest,
    progress: &dyn Progress,
    (mut wanted, with_chroma): (Vec<&Source>, bool),
    cause: &SourceError,
) -> Result<Produced, ProduceError> {
    let chroma = config.sources.iter().find(|one| one.is_vector_store());
    let is_guarded = chroma.is_some_and(|chroma| !chroma.is_unguarded());
    wanted.retain(|one| !one.is_vector_store());
    let chroma = chroma.filter(|_| with_chroma);
    wanted.extend(chroma.filter(|_| is_guarded));
    let substitute = Substitute {
        cause,
        refused: chroma.filter(|_| !is_guarded),
    };
    produce_copies(config, request, wanted, Some(&substitute), progress)
}
