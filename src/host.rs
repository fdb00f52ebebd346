//! The memory of this process.

/// Tells the C library to keep freed memory for the next arrays.
///
/// Each step allocates and frees hundreds of megabytes in pieces of megabytes. By default glibc returns
/// such pieces to the kernel at once and gets them back page by page, every one cleared again: a fifth
/// to a third of a training step (page faults under `perf stat` of the `train_step` bench).
pub fn keep_freed_memory() {
    // SAFETY: these calls only set parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
