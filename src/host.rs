//! The host's side of tensors: copies for statistics and files, and the memory they live in.

use ndarray::{Array, ArrayD, Dimension};
use tch::{Device, Kind, Tensor};

use crate::random::{Random, Use};

/// Copies a tensor of any device and precision into an f64 array of as many axes as it has.
pub fn to_array<D: Dimension>(tensor: &Tensor) -> Array<f64, D> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous();
    let array: ArrayD<f64> = (&tensor).try_into().expect("an f64 tensor has an ndarray form");
    array.into_dimensionality().expect("the tensor has as many axes as asked for")
}

/// An f64 tensor on the CPU with an array's shape and values.
pub fn from_array<D: Dimension>(array: &Array<f64, D>) -> Tensor {
    let shape: Vec<i64> = array.shape().iter().map(|&length| length as i64).collect();
    let array = array.as_standard_layout();
    let values = array.as_slice().expect("it is in standard layout");
    Tensor::from_slice(values).view(shape.as_slice())
}

/// Standard normal numbers of some samples. Shapes: (sample, L, L).
pub fn normals(
    random: &Random,
    of: Use,
    samples: std::ops::Range<usize>,
    (size, kind, device): (i64, Kind, Device),
) -> Tensor {
    let numbers = random.normals(of, samples, (size * size) as usize);
    from_array(&numbers).view([-1, size, size]).to_kind(kind).to_device(device)
}

/// Tells the C library to keep freed memory for the next tensors.
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
