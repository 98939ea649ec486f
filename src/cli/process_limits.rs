//! Limits of the process: open files, core dumps, and panics for a lack of threads or memory.
//!
//! The panic hook matches texts of the standard library and of zstd, since a refused thread or
//! buffer panics there without a typed payload. It is held by `tests/hostile/scarcity/limits.rs`
//! (`with_few_threads_it_works_or_says_so`): such a run ends with exit code 1 and the next step,
//! not as an internal error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use super::failure::{Failure, MORE_FILES, MORE_MEMORY};
use super::output;
use crate::base::panics;

/// Fewest open files with which everything works. With fewer a target may seem offline, or a thread
/// stops.
const LEAST_FILES: u64 = 64;
/// The usual soft limit of open files; more are not needed.
const ENOUGH_FILES: u64 = 1024;

/// Raises the limit of open files to [`ENOUGH_FILES`] if that is allowed. Fails with fewer than
/// [`LEAST_FILES`].
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

/// Installs the panic hook. A panic that is caught is the failure of that work and is not printed
/// here. The runtime and the standard library panic if no thread can be started, and zstd's library
/// if it gets no memory: then the process ends with the next step, as it does without memory.
pub(super) fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or_default();
        let is_thread = text.contains("spawn") && text.contains("thread");
        if is_thread || text.contains("zstd returned null pointer") {
            output::tell(format_args!(
                "sealift: a thread or memory was refused: {text}\n  next: {MORE_MEMORY}"
            ));
            exit_failed();
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

/// Ends the process with exit code 1, from a thread that cannot return to `main`.
#[allow(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the one place that does it"
)]
pub(super) fn exit_failed() -> ! {
    std::process::exit(1)
}

/// Ends the process like [`exit_failed`] after `time`, whatever it does then.
pub(super) fn exit_failed_after(time: std::time::Duration) {
    let named = std::thread::Builder::new().name("farewell".to_owned());
    // Without a thread, the process ends once its last lines are printed.
    let _ = named.spawn(move || {
        std::thread::sleep(time);
        exit_failed()
    });
}
