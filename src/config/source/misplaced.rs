//! Refuses keys that have no effect for a kind of source.

use toml::Spanned;

use super::RawSource;
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;

/// Refuses keys that have no effect for a source of this `kind`: their author expects one.
pub(super) fn refuse_misplaced(
    document: &ConfigDocument<'_>,
    raw: &RawSource,
    kind: &str,
) -> Result<(), ConfigError> {
    let of_trees = [
        ("stage", raw.stage.as_ref().map(Spanned::span)),
        ("exclude", raw.exclude.as_ref().map(Spanned::span)),
        (
            "one_file_system",
            raw.one_file_system.as_ref().map(Spanned::span),
        ),
        (
            "max_file_size",
            raw.max_file_size.as_ref().map(Spanned::span),
        ),
        ("cachedir_tag", raw.cachedir_tag.as_ref().map(Spanned::span)),
        ("nobackup", raw.nobackup.as_ref().map(Spanned::span)),
        ("check", raw.check.as_ref().map(Spanned::span)),
        ("must_exist", raw.must_exist.as_ref().map(Spanned::span)),
        ("mountpoint", raw.mountpoint.as_ref().map(Spanned::span)),
    ];
    let of_files = [
        ("owner", raw.owner.as_ref().map(Spanned::span)),
        ("mode", raw.mode.as_ref().map(Spanned::span)),
    ];
    let of_commands = [("allow_empty", raw.allow_empty.as_ref().map(Spanned::span))];
    let of_atocore = [
        ("url", raw.url.as_ref().map(Spanned::span)),
        ("token_file", raw.token_file.as_ref().map(Spanned::span)),
        (
            "include_chroma",
            raw.include_chroma.as_ref().map(Spanned::span),
        ),
        ("root_map", raw.root_map.as_ref().map(Spanned::span)),
        ("fallback", raw.fallback.as_ref().map(Spanned::span)),
        ("insecure", raw.insecure.as_ref().map(Spanned::span)),
        ("allow_root", raw.allow_root.as_ref().map(Spanned::span)),
    ];
    let misplaced = match kind {
        "tree" => [&of_files[..], &of_commands, &of_atocore].concat(),
        "command" => [&of_trees[..], &of_atocore].concat(),
        "atocore" => [&of_files[..], &of_commands, &of_trees].concat(),
        _ => [&of_trees[..], &of_commands, &of_atocore].concat(),
    };
    for (key, span) in &misplaced {
        if let Some(span) = span {
            let what = format!("{key:?} has no effect for a source of kind {kind:?}");
            return Err(document.invalid(span, what));
        }
    }
    Ok(())
}
