//! The text of a configuration and the file that it came from, so that errors name the file and the
//! line.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::ConfigError;

/// The configuration's text, and the file for which it is read.
pub(super) struct ConfigDocument<'a> {
    /// The whole file.
    pub text: &'a str,
    /// Absolute. The file need not exist.
    pub file: &'a Path,
}

impl ConfigDocument<'_> {
    /// Returns the line in which `span` begins, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let head = &self.text.as_bytes()[..span.start.min(self.text.len())];
        head.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Returns the error for a value at `span` that is not valid.
    pub(super) fn invalid(&self, span: &Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.to_owned(),
            line: self.line(span),
            what: what.into(),
        }
    }

    /// Returns the error for a private key at `span`; `what` names its kind and never repeats it.
    pub(super) fn identity(&self, span: &Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Identity {
            file: self.file.to_owned(),
            line: self.line(span),
            what: what.into(),
        }
    }

    /// Returns the error for text that the TOML parser refused, in one line.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        self.invalid(&span, error.message().replace('\n', " "))
    }

    /// Returns `path` as an absolute path; a relative one is relative to the file's directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        let joined = dir.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }
}
