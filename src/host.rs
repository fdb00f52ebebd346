//! Copies of tensors on the host, for statistics and files.

use ndarray::{Array, ArrayD, Dimension};
use tch::{Device, Kind, Tensor};

/// Copies a tensor of any device and precision into an f64 array of as many axes as it has.
pub fn to_array<D: Dimension>(tensor: &Tensor) -> Array<f64, D> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous();
    let array: ArrayD<f64> = (&tensor).try_into().expect("an f64 tensor has an ndarray form");
    array.into_dimensionality().expect("the tensor has as many axes as asked for")
}
