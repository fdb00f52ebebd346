//! The GPUs that torch sees, and the loading of libtorch's CUDA part.

use std::error::Error as _;

/// Number of visible GPUs, at least 1. CUDA itself heeds CUDA_VISIBLE_DEVICES.
///
/// # Errors
/// libtorch's CUDA part cannot be loaded, or no GPU is visible; in words.
pub fn count() -> Result<usize, String> {
    load_cuda()?;
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!(
            "libtorch's CUDA part is loaded, but no GPU is visible (CUDA_VISIBLE_DEVICES is {})",
            std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or("not set".into())
        )),
    }
}

/// Loads libtorch_cuda.so for the rest of the process. The linker drops it from the program's needs
/// (nothing refers to it by name), and without it torch sees no GPU on any machine.
///
/// # Errors
/// It cannot be loaded; in words.
fn load_cuda() -> Result<(), String> {
    // SAFETY: libtorch_cuda's initializers register kernels with the libtorch that is already loaded;
    // this happens before the first use of a GPU.
    match unsafe { libloading::Library::new("libtorch_cuda.so") } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!(
            "libtorch has no usable CUDA part ({}); install the full libtorch with \
             `make setup TORCH_CUDA=1` or point LIBTORCH to one",
            // A bare "dlopen failed"; the loader's own words, which name the file, are its source.
            error.source().unwrap_or(&error)
        )),
    }
}
