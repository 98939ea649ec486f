//! Decides with the key holder whether the signer of a place is the right one, and remembers it.
//!
//! Trust on first use, as ssh has it: an unknown signer is shown and asked about, then remembered;
//! a remembered one is not asked about; another one than the remembered is an error. A signer that
//! a remembered one introduced is remembered, too.

use super::failure::Failure;
use super::{Context, output, terminal};
use crate::format::chain::{Chain, ChainError};
use crate::format::signature::{Trust, fingerprint};
use crate::jobs::signer_memory::{Basis, Remembered};
use crate::keys::known_signers::{KnownSigner, SignerOrigin};
use crate::repository::{HostFolder, RepositoryError};

/// Most signers at other places that a question shows.
const MOST_ELSEWHERE: usize = 3;

/// Whether no manifest is believed because strangers signed them.
pub(super) fn is_signed_by_strangers(error: &RepositoryError) -> bool {
    let RepositoryError::Chain(ChainError::NothingVerified { signers, .. }) = error else {
        return false;
    };
    !signers.is_empty()
}

/// Returns the failure for a host's folder at `place` of which no manifest is believed.
pub(super) fn refused(
    context: &Context,
    place: &str,
    folder: &HostFolder,
    basis: Basis,
    error: RepositoryError,
) -> Failure {
    match (&error, basis) {
        (
            RepositoryError::Chain(ChainError::NothingVerified { signers, .. }),
            Basis::Remembered(known),
        ) if !signers.is_empty() => {
            let memory = context.signers();
            memory.changed(place, &folder.host, &known, signers).into()
        }
        _ if is_signed_by_strangers(&error) => Failure::from(error).hint(
            "compare the fingerprint with the host (`ssh-keygen -lf /etc/sealift/signer.pub` there) or the paper page; \
             if it is the host's, trust it with --signer",
        ),
        _ => error.into(),
    }
}

/// A host's manifests at a place, as a reader found them.
pub(super) struct SeenPlace<'a> {
    /// The place's name.
    pub(super) name: &'a str,
    pub(super) folder: &'a HostFolder,
    pub(super) chain: &'a Chain,
}

impl SeenPlace<'_> {
    /// Asks about an unknown signer, and remembers what is new. Returns the trust in the signers
    /// that the key holder confirmed now.
    pub(super) fn check(
        &self,
        context: &Context,
        basis: &Basis,
        accepts_unseen: bool,
    ) -> Result<Option<Trust>, Failure> {
        let origin = match basis {
            Basis::Own => return Ok(None),
            Basis::Given => {
                self.note_contradiction(context);
                None
            }
            Basis::Remembered(_) => None,
            // A damaged line may have named another one for this place.
            Basis::Elsewhere(_) if context.signers().is_damaged() => {
                Some(self.confirm(context, accepts_unseen)?)
            }
            Basis::Elsewhere(known) => {
                self.note_move(context, known);
                Some(SignerOrigin::Moved)
            }
            Basis::Unknown => Some(self.confirm(context, accepts_unseen)?),
        };
        let memory = context.signers();
        let host = &self.folder.host;
        match memory.remember(self.chain, self.name, host, origin) {
            Remembered::Nothing => {}
            Remembered::Failed(why) => {
                context.note(format_args!(
                    "note: the signer of {host} is not remembered: {why}"
                ));
            }
            Remembered::Conflict(what) => {
                return Err(Failure::from_error(format!("{what}; nothing was read"))
                    .hint("run it again, which compares with that one"));
            }
            Remembered::Added(lines) => {
                for (line, signer) in &lines {
                    self.note_added(context, *line, signer);
                }
            }
        }
        let confirmed = matches!(basis, Basis::Unknown | Basis::Elsewhere(_));
        Ok(confirmed.then(|| self.chain.trust()))
    }

    fn note_added(&self, context: &Context, line: usize, signer: &KnownSigner) {
        let (host, print) = (&signer.host, signer.fingerprint());
        let at = context.signers().line(line);
        let mut trusted = self.chain.trusted.iter();
        let introduced = trusted.find(|one| one.key.key_data() == signer.key.key_data());
        match introduced.and_then(|one| one.introduced.as_ref()) {
            Some(by) => context.note(format_args!(
                "the signer of {host} changes to {print}: {} introduced it in snapshot {}; remembered in {at}",
                by.signer, by.sequence
            )),
            None => context.note(format_args!("the signer of {host} is remembered in {at}: {print}")),
        }
    }

    /// Notes that the signer that the operator named is not the remembered one.
    fn note_contradiction(&self, context: &Context) {
        let memory = context.signers();
        let host = &self.folder.host;
        for (line, signer) in memory.contradicted_by(self.chain, self.name, host) {
            output::tell(format_args!(
                "note: {} remembers another signer of {host}: {}; `sealift remote trust` remembers this one, \
                 `sealift remote forget` forgets that one",
                memory.line(*line),
                signer.fingerprint()
            ));
        }
    }

    fn note_move(&self, context: &Context, known: &[(usize, KnownSigner)]) {
        let signed = |one: &KnownSigner| {
            let mut trusted = self.chain.trusted.iter();
            trusted.any(|trusted| trusted.key.key_data() == one.key.key_data())
        };
        if let Some((line, signer)) = known.iter().find(|(_, one)| signed(one)) {
            context.note(format_args!(
                "{} is a new place of {}; its signer is the one of {} ({})",
                self.name,
                self.folder.host,
                signer.place,
                context.signers().line(*line)
            ));
        }
    }

    /// Returns lines about other signers of a host of that name at other places.
    fn signers_elsewhere(&self, context: &Context) -> Vec<String> {
        let (host, memory) = (&self.folder.host, context.signers());
        let known = memory.elsewhere(self.name, host);
        let lines = known.iter().take(MOST_ELSEWHERE).map(|(line, known)| {
            let (place, print, line) = (&known.place, known.fingerprint(), memory.line(*line));
            format!("at {place} a host of that name has another signer, {print} ({line})")
        });
        lines.collect()
    }

    /// Asks whether the signers are the host's. Returns how the answer was given.
    fn confirm(&self, context: &Context, accepts_unseen: bool) -> Result<SignerOrigin, Failure> {
        let (host, memory) = (&self.folder.host, context.signers());
        // A fork has no latest snapshot, but snapshots can still be chosen by name.
        let signer = match self.chain.snapshots.last() {
            Some(newest) => &newest.signer,
            None => &self.chain.latest()?.signer,
        };
        let damaged = memory
            .is_damaged()
            .then_some("a damaged line of the file of known signers may have named another one");
        let elsewhere = self.signers_elsewhere(context);
        if accepts_unseen && damaged.is_none() {
            for line in &elsewhere {
                output::tell(format_args!("warning: {line}"));
            }
            context.note(format_args!("accepted the signer of {host}: {signer}"));
            return Ok(SignerOrigin::Accepted);
        }
        let mut question = format!("The snapshots of {host} are signed by\n  {signer}\n");
        let others = self.chain.trusted.iter().map(|one| fingerprint(&one.key));
        for other in others.filter(|other| other != signer) {
            question += &format!("and also by, or with an introduction of\n  {other}\n");
        }
        for line in &elsewhere {
            question += &format!("ATTENTION: {line}\n");
        }
        if let Some(damaged) = damaged {
            question += &format!("ATTENTION: {damaged}.\n");
        }
        question += &format!(
            "Compare it with what `init` printed, or with the paper page. Is it the signer of {host}?"
        );
        if terminal::is_interactive() && terminal::confirm(&question)? {
            return Ok(SignerOrigin::Confirmed);
        }
        if let Some(damaged) = damaged.filter(|_| accepts_unseen) {
            return Err(Failure::from_error(format!(
                "the signer of {host} ({signer}) is not accepted unseen: {damaged}; nothing was read"
            ))
            .hint(format!("mend or remove that line, or give --signer {signer} if it is the host's")));
        }
        Err(Failure::from_error(format!(
            "the signer of {host} ({signer}) is not confirmed; nothing was read"
        ))
        .hint(format!(
            "compare it with what `init` printed, then give --signer {signer}; or trust it without asking with --accept-signer"
        )))
    }
}
