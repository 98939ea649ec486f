//! How memory is allocated and returned to the system.
//!
//! The allocator of its own is there for one promise, which `tests/hostile/scarcity/limits.rs`
//! holds (`with_little_memory_it_works_or_says_so`): a process without memory ends with exit code 1
//! and the next step, where Rust's own allocator would abort it (SIGABRT, a core dump, no advice).
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::MORE_MEMORY;

/// The system's allocator, which reports that it has no more memory and ends the process with exit
/// code 1. As after a kill, finished work stays, and the next run clears up.
#[derive(Debug)]
pub struct ReportingAllocator;

// SAFETY: every call is passed on to the system's allocator unchanged, and so is its answer, unless
// it is null: then the call does not return.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { checked(System.alloc(layout), layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { checked(System.alloc_zeroed(layout), layout.size()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        unsafe { checked(System.realloc(memory, layout, bytes), bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

fn checked(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        end_process(bytes);
    }
    memory
}

/// Reports the lack of memory once, with one write, and ends the process. Allocates nothing.
#[cold]
fn end_process(bytes: usize) -> ! {
    static IS_REPORTED: AtomicBool = AtomicBool::new(false);
    if !IS_REPORTED.swap(true, Ordering::Relaxed) {
        let mut text = [0; 512];
        let mut left = &mut text[..];
        // Text that does not fit is cut off.
        let _ = write!(
            left,
            "sealift: out of memory: {bytes} bytes more were refused\n  next: {MORE_MEMORY}\n"
        );
        let written = 512 - left.len();
        // SAFETY: `text` has at least `written` bytes. An error of the write does not matter any
        // more.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), written) };
    }
    // SAFETY: it ends the process at once. What runs at an ordinary exit may need memory.
    unsafe { libc::_exit(1) }
}

/// Makes glibc return large buffers to the system as soon as they are free. By default it keeps
/// ever larger freed pieces in a pool for each thread, which is half of the memory of a restore.
/// Must be called before any thread is started.
#[cfg(target_env = "gnu")]
pub(super) fn return_large_buffers() {
    const LARGE_BYTES: i32 = 1 << 20;
    const KEPT_BYTES: i32 = 8 << 20;
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        // SAFETY: it changes a setting of the allocator while there is no other thread. If it is
        // refused, the default stays.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn return_large_buffers() {}
