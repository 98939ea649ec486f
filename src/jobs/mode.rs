//! How far a job that deletes may go.

/// Whether the operator agreed to a deletion that the guard considers implausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// The operator agreed (`--yes`).
    Given,
    /// The operator was not asked, or did not agree.
    Missing,
}

/// Whether a job deletes, or only reports what it would delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Deletes.
    Delete(Consent),
    /// Deletes nothing, and reports what `Delete` would do with the same consent.
    DryRun(Consent),
}

impl Mode {
    /// Returns the mode for the options `--dry-run` and `--yes`.
    pub(crate) fn of(is_dry_run: bool, is_confirmed: bool) -> Self {
        let consent = match is_confirmed {
            true => Consent::Given,
            false => Consent::Missing,
        };
        match is_dry_run {
            true => Self::DryRun(consent),
            false => Self::Delete(consent),
        }
    }

    /// Whether the job deletes nothing.
    pub(crate) fn is_dry_run(self) -> bool {
        matches!(self, Self::DryRun(_))
    }

    /// Whether the operator agreed.
    pub(crate) fn is_confirmed(self) -> bool {
        matches!(
            self,
            Self::Delete(Consent::Given) | Self::DryRun(Consent::Given)
        )
    }
}
