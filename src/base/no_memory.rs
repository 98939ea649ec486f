//! Tells a lack of memory from other errors.

use std::io;

/// zstd's texts for a lack of memory: it has no kind of its own for it.
const TEXTS: [&str; 2] = ["not enough memory", "could not allocate"];

/// Whether the process did not get the memory that it needed.
pub(crate) fn is_lack_of_memory(error: &io::Error) -> bool {
    let has_text = || {
        let text = error.to_string();
        TEXTS.iter().any(|known| text.contains(known))
    };
    error.kind() == io::ErrorKind::OutOfMemory || has_text()
}
