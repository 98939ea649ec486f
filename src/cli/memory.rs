//! How memory is taken and given back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::MORE_MEMORY;

/// The system's allocator. Where that has no more, the process ends with a word on it and exit code 1 instead of
/// a core dump: as after any kill, what is complete stays, and the next run clears up.
#[derive(Debug)]
pub struct Memory;

// SAFETY: every call is the system allocator's; it is passed on as it came, and its answer too unless it is
// null, in which case nothing returns.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { given(System.alloc(layout), layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { given(System.alloc_zeroed(layout), layout.size()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        unsafe { given(System.realloc(memory, layout, bytes), bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

fn given(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        end_without(bytes);
    }
    memory
}

/// Allocates nothing, and says it once, in one piece.
#[cold]
fn end_without(bytes: usize) -> ! {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        let mut text = [0; 512];
        let mut left = &mut text[..];
        // What does not fit is cut off.
        let _ = write!(
            left,
            "sealift: out of memory: {bytes} bytes more were refused\n  next: {MORE_MEMORY}\n"
        );
        let said = 512 - left.len();
        // SAFETY: `text` is `said` bytes long at least. That nobody reads them is no matter any more.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), said) };
    }
    // SAFETY: it ends the process at once: nothing that runs at an ordinary exit can be relied on here.
    unsafe { libc::_exit(1) }
}

/// Has large buffers returned to the system as soon as they are free. By itself glibc keeps whatever has once
/// been freed in ever larger pieces, a pool for each thread: half of the memory that a restore takes. Call it
/// before there are threads.
#[cfg(target_env = "gnu")]
pub(super) fn return_large_buffers() {
    const LARGE_BYTES: i32 = 1 << 20;
    const KEPT_BYTES: i32 = 8 << 20;
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        // SAFETY: it changes a number of the allocator's, and no other thread is there to see it change. If
        // it is refused, all is as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn return_large_buffers() {}
