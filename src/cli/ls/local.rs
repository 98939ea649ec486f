//! Lists a snapshot directory of this host, which does not hold the trees that are read in place.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::{Value, json};
use uzers::{Groups as _, Users as _, UsersCache};

use super::super::Context;
use super::super::failure::{Failure, Outcome};
use super::super::output::{self, printable};
use super::line::{FileLine, OWNER_COLUMN, mode_text, time_text};
use super::{LsArgs, no_match, no_such_path};
use crate::base::openat::{Dir, Kind};
use crate::base::path_choice::{PathChoice, is_at_or_below};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::base::walk::{self, Filter, Found, Walked};
use crate::format::index::EntryType;
use crate::jobs::local_snapshots;
use crate::producer;

pub(super) fn run(
    context: &Context,
    args: &LsArgs,
    choice: &SnapshotChoice,
) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let path = local_snapshots::find(&config, choice, context)?;
    let dir = Dir::open(&path)?;
    let exists = |path: &[u8]| {
        let found = dir.try_meta(OsStr::from_bytes(path));
        found.is_ok_and(|found| found.is_some())
    };
    let wanted = args.wanted(exists);
    let in_place = producer::in_place_of(&path);
    let listing = LocalListing {
        dir,
        wanted: &wanted,
        names: UsersCache::new(),
        width: Cell::new(OWNER_COLUMN),
    };
    for one in producer::left_out_of(&path) {
        if wanted.concerns(one.to.as_bytes()) {
            output::tell(format_args!(
                "warning: the snapshot lacks {}: {}",
                printable(one.to.as_bytes()),
                one.reason()
            ));
        }
    }
    if let Some(missing) = wanted.missing() {
        let elsewhere = is_elsewhere("ls", args.snapshot.text(), missing, &in_place);
        return Err(elsewhere.unwrap_or_else(|| listing.no_such(missing, no_such_path)));
    }
    // JSON that has begun cannot become an error any more.
    if context.json && wanted.has_globs() {
        listing.match_globs()?;
        if let Some(glob) = wanted.unmatched() {
            let elsewhere = is_elsewhere("ls", args.snapshot.text(), glob, &in_place);
            return Err(elsewhere.unwrap_or_else(|| listing.no_such(glob, no_match)));
        }
    }
    listing.print(context.json, args.human_readable)?;
    if let Some(glob) = wanted.unmatched() {
        let elsewhere = is_elsewhere("ls", args.snapshot.text(), glob, &in_place);
        return Err(elsewhere.unwrap_or_else(|| listing.no_such(glob, no_match)));
    }
    for to in in_place.iter().filter(|to| wanted.concerns(to.as_bytes())) {
        context.note(format_args!(
            "{to} is read in place and not copied here: list it on a target, with --identity"
        ));
    }
    Ok(Outcome::Complete)
}

/// Returns the error for a path, or a glob, in a tree of the local `snapshot` that was read in
/// place: this host does not keep it. `verb` is the command that would find it on a target.
pub(in crate::cli) fn is_elsewhere(
    verb: &str,
    snapshot: &str,
    path: &[u8],
    in_place: &[String],
) -> Option<Failure> {
    let concerns =
        |to: &&String| is_at_or_below(path, to.as_bytes()) || is_at_or_below(to.as_bytes(), path);
    let to = in_place.iter().find(concerns)?;
    let path = printable(path);
    let (done, action) = match verb {
        "ls" => ("listed", "list"),
        _ => ("read", "read"),
    };
    let text = format!(
        "{path} cannot be {done} without an identity: {to} is read in place, so this host's snapshots have no copy of it"
    );
    Some(Failure::from_error(text).hint(format!(
        "{action} it on a target: sealift {verb} '{snapshot}' '{path}' --identity FILE"
    )))
}

/// A snapshot directory, and what of it is listed.
struct LocalListing<'a> {
    dir: Dir,
    wanted: &'a PathChoice,
    names: UsersCache,
    /// The widest owner so far, in characters.
    width: Cell<usize>,
}

impl LocalListing<'_> {
    /// Prints what is wanted while it is found: a snapshot may have any number of files.
    fn print(&self, as_json: bool, human_readable: bool) -> Result<(), Failure> {
        let found = self.found()?;
        if as_json {
            return output::print_json_list(found.map(|one| Ok::<_, Failure>(self.json(&one))));
        }
        for one in found {
            let target = self.target_of(&one);
            let line = FileLine {
                kind: kind_of(&one),
                mode: one.meta.permissions(),
                owner: self.owner_of(&one),
                bytes: one.meta.len(),
                mtime: (one.meta.mtime(), one.meta.mtime_nsec() as u32),
                path: &one.rel,
                target: target.as_deref(),
                is_torn: false,
            };
            self.width
                .set(self.width.get().max(line.owner.chars().count()));
            output::print_entry(line.text(self.width.get(), human_readable))?;
        }
        Ok(())
    }

    /// Walks the directory, and reports what cannot be read.
    fn found(&self) -> Result<impl Iterator<Item = Found>, Failure> {
        let all = walk::walk(&self.dir, &Filter::everything())?;
        Ok(all.filter_map(|walked| match walked {
            Walked::Found(found) => self.wanted.takes(&found.rel).then_some(found),
            Walked::Note(_) => None,
            Walked::Skipped(skipped) => {
                let path = printable(skipped.path.as_bytes());
                output::tell(format_args!("skipped: {path}: {}", skipped.reason));
                None
            }
        }))
    }

    /// Notes which globs find anything.
    fn match_globs(&self) -> Result<(), Failure> {
        for walked in walk::walk(&self.dir, &Filter::everything())? {
            if let Walked::Found(found) = walked {
                self.wanted.takes(&found.rel);
            }
        }
        Ok(())
    }

    fn owner_of(&self, one: &Found) -> String {
        let (uid, gid) = (one.meta.uid(), one.meta.gid());
        let user = self.names.get_user_by_uid(uid);
        let user = user.map_or_else(|| uid.to_string(), |user| lossy(user.name()));
        let group = self.names.get_group_by_gid(gid);
        let group = group.map_or_else(|| gid.to_string(), |group| lossy(group.name()));
        format!("{user}:{group}")
    }

    fn target_of(&self, one: &Found) -> Option<Vec<u8>> {
        let is_link = one.meta.is_symlink();
        is_link
            .then(|| self.dir.read_link(one.rel()).ok())
            .flatten()
    }

    fn json(&self, one: &Found) -> Value {
        let mtime = (one.meta.mtime(), one.meta.mtime_nsec() as u32);
        json!({
            "path": String::from_utf8_lossy(&one.rel), "type": kind_of(one),
            "size": one.meta.len(), "mode": mode_text(one.meta.permissions()),
            "uid": one.meta.uid(), "gid": one.meta.gid(), "mtime": time_text(mtime),
        })
    }

    /// Returns the error for a path or a glob that finds nothing, with what it may mean.
    fn no_such(
        &self,
        path: &[u8],
        error: fn(&[u8], &mut dyn Iterator<Item = Vec<u8>>) -> Failure,
    ) -> Failure {
        error(path, &mut paths_in(&self.dir))
    }
}

/// Returns the error for a path that the snapshot directory does not have.
pub(in crate::cli) fn no_such_local(dir: &Dir, path: &[u8]) -> Failure {
    no_such_path(path, &mut paths_in(dir))
}

fn paths_in(dir: &Dir) -> impl Iterator<Item = Vec<u8>> {
    let all = walk::walk(dir, &Filter::everything());
    all.into_iter().flatten().filter_map(|walked| match walked {
        Walked::Found(found) => Some(found.rel),
        _ => None,
    })
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn kind_of(one: &Found) -> EntryType {
    match one.meta.kind() {
        Kind::Dir => EntryType::Dir,
        Kind::Symlink => EntryType::Symlink,
        Kind::Fifo => EntryType::Fifo,
        _ => EntryType::File,
    }
}
