//! Whom this machine remembers as the signer of a host at a place, and what a chain of manifests
//! changes about that. The file is [`crate::keys::known_signers`].

use std::path::PathBuf;
use std::sync::OnceLock;

use super::error::JobError;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::base::shell_word::shell_word;
use crate::format::chain::{Chain, ChainError, TrustedSigner};
use crate::format::signature::Trust;
use crate::keys::known_signers::file::{self, KnownSignersError, SignerFile};
use crate::keys::known_signers::{DamagedLine, KnownSigner, KnownSigners, SignerOrigin, trust_in};
use crate::repository::RepositoryError;

/// The signers that this machine remembers.
pub(crate) struct SignerMemory {
    /// The file; `None` if there is no home directory.
    path: Option<PathBuf>,
    known: KnownSigners,
    /// Why the file must not be used: others can change it, or it cannot be read.
    refusal: Option<KnownSignersError>,
    /// The file, opened to add lines, or why that is not possible.
    file: OnceLock<Result<SignerFile, String>>,
}

/// On what the trust in the signers of a place is based.
#[derive(Debug, Clone)]
pub(crate) enum Basis {
    /// The operator named the signer.
    Given,
    /// This host's own configuration names it.
    Own,
    /// Lines of the file.
    Remembered(Vec<(usize, KnownSigner)>),
    /// Lines of the file, for the same host at other places.
    Elsewhere(Vec<(usize, KnownSigner)>),
    /// Nothing is known.
    Unknown,
}

/// The signers that are remembered for one place, for commands that ask no questions.
pub(crate) struct RememberedPlace<'a> {
    pub(crate) memory: &'a SignerMemory,
    /// The place's name.
    pub(crate) place: String,
}

impl RememberedPlace<'_> {
    /// Returns the trust in the remembered signers of `host`, else in the signer of the oldest
    /// manifest. Fails if the file must not be used.
    pub(crate) fn trust(&self, host: &HostName) -> Result<Trust, JobError> {
        match self.memory.trust(&self.place, host)? {
            (trust, Basis::Remembered(_)) => Ok(trust),
            _ => Ok(Trust::FirstSeen),
        }
    }

    /// Returns the words for an `error` that means that the signer of `host` is not the remembered
    /// one; `None` if it means something else.
    pub(crate) fn change_behind(&self, host: &HostName, error: &RepositoryError) -> Option<String> {
        let RepositoryError::Chain(ChainError::NothingVerified { signers, .. }) = error else {
            return None;
        };
        let (_, Basis::Remembered(known)) = self.memory.trust(&self.place, host).ok()? else {
            return None;
        };
        let (newest, (line, old)) = (signers.last()?, known.first()?);
        Some(format!(
            "ITS SIGNER HAS CHANGED: {} remembers {}, and its snapshots are signed by {newest}",
            self.memory.line(*line),
            old.fingerprint()
        ))
    }
}

/// What was remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// Nothing is new.
    Nothing,
    /// These signers are new: the line and the signer of each.
    Added(Vec<(usize, KnownSigner)>),
    /// New signers could not be remembered, and why.
    Failed(String),
    /// Another process remembered another signer meanwhile.
    Conflict(String),
}

impl SignerMemory {
    /// Reads the file. What is wrong with it shows when a signer is looked up.
    pub(crate) fn load() -> Self {
        let path = file::path().ok();
        let read = match &path {
            Some(path) => file::read(path),
            None => Ok(KnownSigners::default()),
        };
        let (known, refusal) = match read {
            Ok(known) => (known, None),
            Err(error) => (KnownSigners::default(), Some(error)),
        };
        Self {
            path,
            known,
            refusal,
            file: OnceLock::new(),
        }
    }

    /// Returns the lines that cannot be read, each with the file.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = String> {
        let file = self.path.as_deref().unwrap_or("".as_ref()).display();
        let line = move |line: &DamagedLine| {
            let (number, reason) = (line.number, &line.reason);
            format!("line {number} of {file} is ignored: {reason}")
        };
        self.known.damaged.iter().map(line)
    }

    /// Returns how to name a line of the file.
    pub(crate) fn line(&self, number: usize) -> String {
        let file = self.path.as_deref().unwrap_or("".as_ref()).display();
        format!("{file} line {number}")
    }

    /// Opens the file to add lines, before this process gives up the right to open files.
    pub(crate) fn prepare(&self) {
        let _ = self.opened();
    }

    fn opened(&self) -> Result<&SignerFile, String> {
        let opened = self.file.get_or_init(|| match &self.path {
            Some(path) => SignerFile::open(path).map_err(|error| with_causes(&error)),
            None => Err(KnownSignersError::NoHome.to_string()),
        });
        opened.as_ref().map_err(String::clone)
    }

    /// Returns whose manifests of `host` at `place` to believe. Fails if the file must not be used,
    /// since it may name the signer.
    pub(crate) fn trust(&self, place: &str, host: &HostName) -> Result<(Trust, Basis), JobError> {
        if let Some(refusal) = &self.refusal {
            return Err(JobError::request(with_causes(refusal)).with_next(next_of(refusal)));
        }
        let owned =
            |lines: &[&(usize, KnownSigner)]| lines.iter().map(|one| (*one).clone()).collect();
        let here = self.known.of(place, host);
        if !here.is_empty() {
            return Ok((trust_in(&here), Basis::Remembered(owned(&here))));
        }
        let elsewhere = self.known.elsewhere(place, host);
        Ok(match elsewhere.is_empty() {
            true => (Trust::FirstSeen, Basis::Unknown),
            false => (trust_in(&elsewhere), Basis::Elsewhere(owned(&elsewhere))),
        })
    }

    /// Whether a line that cannot be read may have named the signer of any host.
    pub(crate) fn is_damaged(&self) -> bool {
        !self.known.damaged.is_empty()
    }

    /// Returns the lines of hosts of that name at other places.
    pub(crate) fn elsewhere(&self, place: &str, host: &HostName) -> Vec<&(usize, KnownSigner)> {
        self.known.elsewhere(place, host)
    }

    /// Returns the lines of `place`: those of `host`, or of every host there.
    pub(crate) fn at(&self, place: &str, host: Option<&HostName>) -> Vec<&(usize, KnownSigner)> {
        let is_it =
            |one: &KnownSigner| one.place == place && host.is_none_or(|host| one.host == *host);
        self.known
            .lines
            .iter()
            .filter(|(_, one)| is_it(one))
            .collect()
    }

    /// Returns the lines of `host` at `place` if none of them names a signer of `chain`.
    pub(crate) fn contradicted_by(
        &self,
        chain: &Chain,
        place: &str,
        host: &HostName,
    ) -> Vec<&(usize, KnownSigner)> {
        let here = self.known.of(place, host);
        let is_in = |one: &KnownSigner| {
            chain
                .trusted
                .iter()
                .any(|t| t.key.key_data() == one.key.key_data())
        };
        match here.iter().any(|(_, one)| is_in(one)) {
            true => Vec::new(),
            false => here,
        }
    }

    /// Remembers the signers of `chain` that are new: all of them with an `origin`, else those that
    /// a remembered one introduced.
    pub(crate) fn remember(
        &self,
        chain: &Chain,
        place: &str,
        host: &HostName,
        origin: Option<SignerOrigin>,
    ) -> Remembered {
        let here = self.known.of(place, host);
        let is_known = |key: &ssh_key::PublicKey| {
            here.iter()
                .any(|(_, one)| one.key.key_data() == key.key_data())
        };
        let mut follows: Vec<String> = here.iter().map(|(_, one)| one.fingerprint()).collect();
        let mut new = Vec::new();
        for signer in &chain.trusted {
            let origin = match origin_of(signer, &follows) {
                Some(introduced) => Some(introduced),
                None => origin,
            };
            let Some(origin) = origin else { continue };
            follows.push(signer.fingerprint());
            if !is_known(&signer.key) {
                new.push(KnownSigner::new(
                    place,
                    host,
                    &signer.key,
                    clock::now(),
                    origin,
                ));
            }
        }
        if new.is_empty() {
            return Remembered::Nothing;
        }
        let file = match self.opened() {
            Ok(file) => file,
            Err(why) => return Remembered::Failed(why),
        };
        match file.add(&new, &|one| is_known(&one.key)) {
            Ok(lines) => {
                // Another process may have remembered some of them meanwhile.
                let lines = lines.into_iter().zip(new);
                let lines = lines.filter(|((_, is_new), _)| *is_new);
                Remembered::Added(lines.map(|((line, _), signer)| (line, signer)).collect())
            }
            Err(error @ KnownSignersError::Changed { .. }) => {
                Remembered::Conflict(error.to_string())
            }
            Err(error) => Remembered::Failed(with_causes(&error)),
        }
    }

    /// Returns the error that the signer of `host` at `place` is another one than `known`.
    pub(crate) fn changed(
        &self,
        place: &str,
        host: &HostName,
        known: &[(usize, KnownSigner)],
        found: &[String],
    ) -> JobError {
        let mut text = format!("THE SIGNER OF {host} HAS CHANGED at {place}; nothing was read");
        for (line, signer) in known {
            let since = signer.since.format("%Y-%m-%d");
            text += &format!(
                "\n  remembered: {} ({}, since {since})",
                signer.fingerprint(),
                self.line(*line)
            );
        }
        for signer in found {
            text += &format!("\n  found:      {signer}");
        }
        text += "\n  No snapshot there is signed by a remembered signer, or by one that it introduced. Either the host got a \
                 new signer\n  without an introduction, another machine took its name, or someone else wrote these snapshots.";
        let newest = found.last().map_or("SIGNER", String::as_str);
        JobError::work(text).with_next(format!(
            "compare {newest} with the host (`ssh-keygen -lf /etc/sealift/signer.pub` there) or the paper page. Only if it is \
             the host's, give --signer {newest}, or forget the remembered one: `sealift remote forget {} --host {host}`",
            shell_word(place)
        ))
    }
}

/// Remembers `signers`, which the operator named, beside those that are remembered. Returns for
/// each the number of its line, and whether the line is new.
pub(crate) fn add(signers: &[KnownSigner]) -> Result<Vec<(usize, bool)>, JobError> {
    let file = SignerFile::open(&file::path().map_err(unusable)?).map_err(unusable)?;
    file.add(signers, &|_| true).map_err(unusable)
}

/// Forgets the signers that `goes` chooses. Returns their lines.
pub(crate) fn forget(
    goes: impl Fn(&KnownSigner) -> bool,
) -> Result<Vec<(usize, KnownSigner)>, JobError> {
    file::forget(&file::path().map_err(unusable)?, goes).map_err(unusable)
}

fn unusable(error: KnownSignersError) -> JobError {
    let next = next_of(&error);
    JobError::request(error).with_next(next)
}

fn next_of(error: &KnownSignersError) -> String {
    match error {
        KnownSignersError::Exposed { exposure, .. } => format!(
            "{}; then see whether its lines are right. Or give --signer",
            exposure.remedy
        ),
        _ => "see to the file, or give --signer".to_owned(),
    }
}

/// Returns [`SignerOrigin::Introduced`] if a signer of `follows` introduced this one.
fn origin_of(signer: &TrustedSigner, follows: &[String]) -> Option<SignerOrigin> {
    let by = signer.introduced.as_ref()?;
    follows
        .contains(&by.signer)
        .then_some(SignerOrigin::Introduced)
}
