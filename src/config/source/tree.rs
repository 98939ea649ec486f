//! The keys of a source of kind `tree`.

use toml::Spanned;

use super::RawSource;
use crate::base::walk::Filter;
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;
use crate::config::value::{self, optional};
use crate::config::{Check, SourceKind, TreeSource};

/// Returns the tree at `path` with the settings of `raw`.
pub(super) fn tree(
    document: &ConfigDocument<'_>,
    raw: &RawSource,
    path: std::path::PathBuf,
) -> Result<SourceKind, ConfigError> {
    let said = |value: &Option<Spanned<bool>>, default| {
        value.as_ref().map_or(default, |value| *value.get_ref())
    };
    let filter = Filter {
        excludes: raw
            .exclude
            .as_ref()
            .map_or(Vec::new(), |lines| lines.get_ref().clone()),
        one_file_system: said(&raw.one_file_system, false),
        max_file_bytes: optional(document, &raw.max_file_size, value::parse_size)?,
        cachedir_tag: said(&raw.cachedir_tag, true),
        nobackup: said(&raw.nobackup, true),
        hollow: Vec::new(),
    };
    if let Err(e) = filter.check() {
        let span = raw.exclude.as_ref().map_or(0..0, Spanned::span);
        return Err(document.invalid(&span, e.to_string()));
    }
    let check = match raw
        .check
        .as_ref()
        .map(|check| (check.get_ref().as_str(), check.span()))
    {
        None | Some(("report", _)) => Check::Report,
        Some(("strict", _)) => Check::Strict,
        Some((other, span)) => {
            let what = format!("check is \"strict\" or \"report\", not {other:?}");
            return Err(document.invalid(&span, what));
        }
    };
    let stage = said(&raw.stage, true);
    if check == Check::Strict && !stage {
        let span = raw.check.as_ref().map_or(0..0, Spanned::span);
        let what = "check = \"strict\" needs a staged copy to check; remove `stage = false`";
        return Err(document.invalid(&span, what));
    }
    Ok(SourceKind::Tree(TreeSource {
        path,
        stage,
        filter,
        check,
        must_exist: must_exist(document, raw.must_exist.as_ref())?,
        mountpoint: said(&raw.mountpoint, false),
    }))
}

/// Validates the paths below the tree that must exist.
fn must_exist(
    document: &ConfigDocument<'_>,
    raw: Option<&Spanned<Vec<Spanned<String>>>>,
) -> Result<Vec<String>, ConfigError> {
    let Some(raw) = raw else {
        return Ok(Vec::new());
    };
    if raw.get_ref().is_empty() {
        let what = "`must_exist` is empty: name a path that must be in the tree, such as [\"photos/.marker\"]";
        return Err(document.invalid(&raw.span(), what));
    }
    let checked = raw.get_ref().iter().map(|marker| {
        let path = marker.get_ref().trim_end_matches('/');
        let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        match path.split('/').any(is_bad) {
            false => Ok(path.to_owned()),
            true => {
                let what = format!(
                    "must_exist: {:?} is not a path below the source's `path`, such as \"photos/.marker\"",
                    marker.get_ref()
                );
                Err(document.invalid(&marker.span(), what))
            }
        }
    });
    checked.collect()
}
