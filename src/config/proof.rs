//! The `[proof]` table of a host: which proof of its backups it wants, and how often.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::ConfigError;
use super::value::{self, ValueText, optional};

/// Age from which a proof is too old if the configuration does not say.
const MAX_AGE: Duration = Duration::from_secs(92 * 86_400);
/// Age from which a key counts as silent if the configuration does not say.
const KEYS_MAX_AGE: Duration = Duration::from_secs(184 * 86_400);

/// A part of a drill that a proof must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofPart {
    /// Every file was restored.
    Restore,
    /// Every database passed its full check.
    Databases,
    /// There were checks of the operator, and all passed.
    Checks,
}

impl ProofPart {
    const ALL: [(&'static str, Self); 3] = [
        ("restore", Self::Restore),
        ("databases", Self::Databases),
        ("checks", Self::Checks),
    ];

    /// Returns the part as the configuration names it.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, part)| *part == self);
        found.map_or("", |(name, _)| name)
    }
}

/// `[proof]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofSettings {
    /// Age from which the newest proof is too old.
    pub max_age: Duration,
    /// What a drill must have done to be a proof.
    pub require: Vec<ProofPart>,
    /// Each target needs a proof of its own.
    pub per_target: bool,
    /// Age from which a recipient whose key was not proven to exist counts as silent.
    pub keys_max_age: Duration,
}

impl Default for ProofSettings {
    fn default() -> Self {
        Self {
            max_age: MAX_AGE,
            require: vec![ProofPart::Restore, ProofPart::Databases],
            per_target: false,
            keys_max_age: KEYS_MAX_AGE,
        }
    }
}

/// `[proof]` as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProof {
    max_age: Option<Spanned<ValueText>>,
    require: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    per_target: bool,
    keys_max_age: Option<Spanned<ValueText>>,
}

impl RawProof {
    pub(super) fn validate(
        &self,
        document: &ConfigDocument<'_>,
    ) -> Result<ProofSettings, ConfigError> {
        let defaults = ProofSettings::default();
        let age = |value| optional(document, value, value::parse_age);
        let require = self.require.as_ref().map(|parts| {
            let parts = parts.iter().map(|part| {
                let mut known = ProofPart::ALL.iter();
                let found = known.find(|(name, _)| name == part.get_ref());
                found.map(|(_, part)| *part).ok_or_else(|| {
                    let names = ProofPart::ALL.map(|(name, _)| name).join(", ");
                    let what = format!("require: {:?} is none of {names}", part.get_ref());
                    document.invalid(&part.span(), what)
                })
            });
            parts.collect::<Result<Vec<ProofPart>, _>>()
        });
        Ok(ProofSettings {
            max_age: age(&self.max_age)?.unwrap_or(defaults.max_age),
            require: require.transpose()?.unwrap_or(defaults.require),
            per_target: self.per_target,
            keys_max_age: age(&self.keys_max_age)?.unwrap_or(defaults.keys_max_age),
        })
    }
}
