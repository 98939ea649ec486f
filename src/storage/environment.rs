//! The environment variables from which a target's credentials come, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::error::OpenError;
use super::setting::{self, Takes};

/// Environment variables. Its `Debug` shows names only, because half of the values are secrets.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    /// Names of the variables whose value is not UTF-8.
    garbled: BTreeSet<String>,
}

impl Environment {
    /// Returns the variables of this process.
    pub fn of_process() -> Self {
        let mut of_process = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(of_process.values.insert(name, value)),
                Err(_) => drop(of_process.garbled.insert(name)),
            }
        }
        of_process
    }

    /// Returns an environment of these names and values, for tests.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            values: pairs.into_iter().map(owned).collect(),
            garbled: BTreeSet::new(),
        }
    }

    /// Returns all variables but `name`.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut rest = self.clone();
        rest.values.remove(name);
        rest
    }

    /// Whether a variable is set, even if it is empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Checks the variables for which `takes` returns a form. `target` is for the message.
    pub(super) fn check(
        &self,
        target: &str,
        takes: impl Fn(&str) -> Option<Takes>,
    ) -> Result<(), OpenError> {
        let mut garbled = self.garbled.iter();
        if let Some(name) = garbled.find(|name| takes(name).is_some()) {
            return Err(OpenError::setting(target, name, "is not UTF-8"));
        }
        for (name, value) in self.values.iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(takes) = takes(name) {
                let checked = setting::check(takes, value);
                checked.map_err(|what| OpenError::setting(target, name, what))?;
            }
        }
        Ok(())
    }

    /// Returns the names of all variables that begin with one of `prefixes`.
    pub(super) fn names<'a>(&'a self, prefixes: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let wanted = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        self.values.keys().map(String::as_str).filter(wanted)
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// Whether one of these variables is set and not empty.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    /// Returns all non-empty variables whose name begins with one of `prefixes`; names are in lower
    /// case.
    pub(super) fn lowercased<'a>(
        &'a self,
        prefixes: &'a [&str],
    ) -> impl Iterator<Item = (String, &'a str)> {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        self.values
            .iter()
            .filter(move |(name, value)| wanted(name) && !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// Returns the path that `variable` holds, else `below_home` in the home directory. `None`: the
    /// home directory is needed and unknown.
    pub(super) fn path(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let home = || self.get("HOME").map(PathBuf::from);
        match self.get(variable) {
            Some(path) => match path.strip_prefix("~/") {
                Some(rest) => home().map(|home| home.join(rest)),
                None => Some(PathBuf::from(path)),
            },
            None => home().map(|home| home.join(below_home)),
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::credentials::is_credential;

    /// Covers every variable that the code in this folder names, except those that tell any program
    /// where things are.
    #[test]
    fn every_variable_that_a_target_reads_is_a_credential() {
        let mut dirs = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/storage")];
        let mut named = 0;
        // Variables of the build, or of tests.
        let ours = ["CARGO_", "SEALIFT_TEST_"];
        let is_ours = |name: &str| ours.iter().any(|prefix| name.starts_with(prefix));
        let elsewhere = [
            "ALL_PROXY",
            "AZURITE_BLOB_STORAGE_URL",
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "REQUEST_METHOD",
            "SSL_CERT_DIR",
            "SSL_CERT_FILE",
        ];
        let other = |name: &str| {
            matches!(name, "LC_ALL" | "_") || elsewhere.contains(&name) || is_ours(name)
        };
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for literal in text.split('"').skip(1).step_by(2) {
                    let is_upper =
                        |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                    let is_variable = literal.contains('_') && literal.chars().all(is_upper);
                    if is_variable && !other(literal) {
                        named += 1;
                        let name = std::ffi::OsStr::new(literal);
                        assert!(is_credential(name), "{literal} in {path:?}");
                    }
                }
            }
        }
        assert!(named > 10, "{named}");
        assert!(!is_credential("PATH".as_ref()));
    }
}
