//! How the system's allocator keeps memory that was given back.

/// Has large buffers returned to the system as soon as they are free. By itself glibc keeps whatever has once
/// been freed in ever larger pieces, a pool for each thread: half of the memory that a restore takes. Call it
/// before there are threads.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
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
