//! What the system lets the process have.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use super::failure::{Failure, MORE_FILES, MORE_MEMORY};
use super::output;
use crate::base::panics;

/// With so many everything works, with fewer a target may seem to be away, or a thread stops.
const LEAST_FILES: u64 = 64;
/// As much as is usual.
const ENOUGH_FILES: u64 = 1024;

/// Raises the limit of open files as far as it is allowed and makes sense; refuses to go on with too few.
pub(super) fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX).min(ENOUGH_FILES);
    let Some(current) = limit.current.filter(|current| *current < allowed) else {
        return enough(limit.current);
    };
    let raised = Rlimit {
        current: Some(allowed),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => enough(Some(allowed)),
        Err(_) => enough(Some(current)),
    }
}

fn enough(files: Option<u64>) -> Result<(), Failure> {
    match files {
        Some(files) if files < LEAST_FILES => Err(Failure::from_error(format!(
            "only {files} files may be open at once, and {LEAST_FILES} are needed"
        ))
        .hint(MORE_FILES)),
        _ => Ok(()),
    }
}

/// Keeps keys and decrypted content out of core dumps and of other processes of this user.
pub(super) fn hide_memory() {
    let behavior = DumpableBehavior::NotDumpable;
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let hidden = set_dumpable_behavior(behavior);
    if let Err(error) = hidden.and_then(|()| setrlimit(Resource::Core, no_core)) {
        output::tell(format_args!(
            "warning: this process's memory may get into a core dump: {error}"
        ));
    }
}

/// A panic that somebody catches is that one's failure and is not told here. The runtime and the standard library panic
/// where no thread can be had, zstd's where it gets no memory, wherever that is. It is no fault of the program's: the
/// process ends with a word on it, as when it has no more memory.
pub(super) fn tell_of_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or_default();
        let is_thread = text.contains("spawn") && text.contains("thread");
        if is_thread || text.contains("zstd returned null pointer") {
            output::tell(format_args!(
                "sealift: a thread or memory was refused: {text}\n  next: {MORE_MEMORY}"
            ));
            std::process::exit(1);
        }
        if let Some(what) = panics::noted(info) {
            output::tell(format_args!("sealift: internal error: {what}"));
        }
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            output::tell(trace);
        }
    }));
}
