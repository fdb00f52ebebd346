//! The flow with torch operations: any device, gradients by autograd. The reference for the other engines.

pub(super) mod density;
pub(super) mod gpus;
pub(super) mod map;
mod preconditioner;
pub(super) mod symplectic;
mod target;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use ndarray::{Array, Array1, Array3, ArrayD, ArrayView1, ArrayView2, Dimension};
use tch::{Kind, Tensor};

use super::{Batch, Draw, Engine, Image, Loss, Potential};
use crate::engine::config::{Estimator, Precision};
use crate::engine::device::Device;
use crate::flow::Flow;
use crate::flow::config::Symmetry;
use crate::targets::Target;
use density::{SymmetrizedFlow, ln_prior};
use map::{Layout, Map};
use preconditioner::Preconditioner;
use target::TensorTarget;

/// A flow and its target as tensors on one device.
#[derive(Debug)]
pub struct Torch {
    layout: Rc<Layout>,
    symmetry: Symmetry,
    target: Option<Target>,
    preconditioner: bool,
    /// Of the last batch of one temperature.
    last: RefCell<Option<(u64, At)>>,
    linear_size: i64,
    kind: Kind,
    device: tch::Device,
}

/// Target and Gaussian layer at the temperatures of a batch; none without a target.
#[derive(Debug, Clone, Default)]
struct At {
    target: Option<Rc<TensorTarget>>,
    preconditioner: Option<Rc<Preconditioner>>,
}

impl At {
    /// ln π(x), or NaN. Shapes: x (batch, L, L) → (batch).
    fn ln_density(&self, x: &Tensor) -> Tensor {
        match &self.target {
            Some(target) => target.ln_density(x),
            None => Tensor::full([x.size()[0]], f64::NAN, (x.kind(), x.device())),
        }
    }
}

impl Torch {
    /// The engine of a flow with its target, if there is one. `threads` holds for all of the process.
    pub fn new(
        flow: &Flow,
        target: Option<&Target>,
        precision: Precision,
        device: Device,
        threads: usize,
    ) -> Self {
        tch::set_num_threads(threads as i32);
        let (kind, device) = (tensor_kind(precision), tensor_device(device));
        let architecture = &flow.architecture;
        Self {
            layout: Rc::new(Layout::new(flow.couplings(), device)),
            symmetry: architecture.config.symmetry,
            target: target.cloned(),
            preconditioner: architecture.config.preconditioner,
            last: RefCell::default(),
            linear_size: architecture.linear_size as i64,
            kind,
            device,
        }
    }

    /// The flow's map at these parameters and one temperature.
    #[cfg(test)]
    pub(super) fn map(&self, parameters: ArrayView1<f64>, temperature: f64) -> Map {
        self.frozen(parameters, &self.at(ndarray::aview1(&[temperature]))).map
    }

    /// Target and Gaussian layer at these temperatures, one of each sample.
    fn at(&self, temperatures: ArrayView1<f64>) -> At {
        let Some(target) = &self.target else { return At::default() };
        let make = |temperatures: &[f64]| {
            let densities: Vec<_> = temperatures.iter().map(|&t| target.density(t)).collect();
            At {
                target: Some(Rc::new(TensorTarget::new(&densities, self.kind, self.device))),
                preconditioner: self
                    .preconditioner
                    .then(|| Rc::new(Preconditioner::new(&densities, self.kind, self.device))),
            }
        };
        // No samples are evaluated as one, at any temperature.
        let first = temperatures.first().copied().unwrap_or(1.0);
        if temperatures.iter().any(|temperature| temperature.to_bits() != first.to_bits()) {
            return make(&temperatures.to_vec());
        }
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((bits, at)) if *bits == first.to_bits() => at.clone(),
            _ => last.insert((first.to_bits(), make(&[first]))).1.clone(),
        }
    }

    /// The parameters, as a leaf that gradients are taken to.
    fn leaf(&self, parameters: ArrayView1<f64>) -> Tensor {
        self.tensor(parameters.to_owned()).set_requires_grad(true)
    }

    /// The flow at these parameters: the vector is cut into the layers' weights once, whatever number of passes follows.
    fn bind(&self, parameters: &Tensor, at: &At) -> SymmetrizedFlow {
        let map = Map::new(self.layout.clone(), parameters, at.preconditioner.clone());
        SymmetrizedFlow { map, symmetry: self.symmetry }
    }

    /// The same with no gradients to the parameters.
    fn frozen(&self, parameters: ArrayView1<f64>, at: &At) -> SymmetrizedFlow {
        self.bind(&self.tensor(parameters.to_owned()), at)
    }

    fn tensor<D: Dimension>(&self, array: Array<f64, D>) -> Tensor {
        tensor(array, self.kind, self.device)
    }

    /// Fields of a batch on the lattice.
    fn fields(&self, batch: Batch) -> Tensor {
        self.on_lattice(batch.values(0..batch.len()).view())
    }

    /// Fields on the lattice; torch cannot evaluate none, so that these become one, which [`array`] drops again.
    ///
    /// Shapes: (batch, N) → (batch, L, L).
    fn on_lattice(&self, fields: ArrayView2<f64>) -> Tensor {
        let fields = match fields.nrows() {
            0 => ndarray::Array2::zeros((1, fields.ncols())),
            _ => fields.to_owned(),
        };
        self.tensor(fields).view([-1, self.linear_size, self.linear_size])
    }

    fn image(&self, (field, log_det): (Tensor, Tensor), batch: usize) -> Image {
        Image { field: array(&field.flatten(1, -1), batch), log_det: array(&log_det, batch) }
    }

    /// A number whose gradient to the parameters is the path gradient of the mean energy: that of x
    /// alone, with ∂/∂x of ln q(x) - ln π(x) at fixed parameters as factors (arXiv:2207.08219).
    fn path_objective(&self, parameters: &Tensor, at: &At, field: &Tensor) -> Tensor {
        let x = field.detach().set_requires_grad(true);
        let ln_q = self.bind(&parameters.detach(), at).symmetrized_ln_density(&x);
        let energies = ln_q - at.ln_density(&x);
        let forces = gradient_to(&energies.mean(energies.kind()), &x);
        (field * forces).sum(field.kind())
    }
}

impl Engine for Torch {
    fn loss(
        &self,
        parameters: ArrayView1<f64>,
        z: Batch,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        let (batch, at) = (z.len(), self.at(z.temperatures()));
        let leaf = self.leaf(parameters);
        let bound = self.bind(&leaf, &at);
        let draw = bound.draw(&self.fields(z));
        let energies = &draw.ln_q - at.ln_density(&draw.field);
        let asymmetry = bound.asymmetry(&draw);
        let energy = match estimator {
            Estimator::Total => energies.mean(energies.kind()),
            Estimator::Path => self.path_objective(&leaf, &at, &draw.field),
        };
        let objective = match &asymmetry {
            Some(asymmetry) => energy + asymmetry.mean(asymmetry.kind()) * symmetry_weight,
            None => energy,
        };
        Loss {
            values: array(&energies, batch),
            asymmetry: asymmetry.map(|asymmetry| array(&asymmetry, batch)),
            gradient: array(&gradient_to(&objective, &leaf), parameters.len()),
        }
    }

    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: Batch) -> Loss {
        let leaf = self.leaf(parameters);
        let bound = self.bind(&leaf, &self.at(x.temperatures()));
        let values = -bound.symmetrized_ln_density(&self.fields(x));
        let gradient = gradient_to(&values.mean(values.kind()), &leaf);
        Loss {
            values: array(&values, x.len()),
            asymmetry: None,
            gradient: array(&gradient, parameters.len()),
        }
    }

    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: Batch) -> Array1<f64> {
        let flow = self.frozen(parameters, &self.at(x.temperatures()));
        array(&flow.symmetrized_ln_density(&self.fields(x)), x.len())
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw {
        let at = self.at(z.temperatures());
        let draw = self.frozen(parameters, &at).draw(&self.fields(z));
        Draw {
            field: array(&draw.field.flatten(1, -1), z.len()),
            ln_q: array(&draw.ln_q, z.len()),
            ln_pi: array(&at.ln_density(&draw.field), z.len()),
        }
    }

    fn potential(&self, parameters: ArrayView1<f64>, z: Batch) -> Potential {
        let (batch, at) = (z.len(), self.at(z.temperatures()));
        let leaf = self.fields(z).set_requires_grad(true);
        let draw = self.frozen(parameters, &at).draw(&leaf);
        let energy = draw.ln_q - ln_prior(&leaf) - at.ln_density(&draw.field);
        let gradient = gradient_to(&energy.sum(energy.kind()), &leaf);
        Potential {
            energy: array(&energy, batch),
            gradient: array(&gradient.flatten(1, -1), batch),
            field: array(&draw.field.flatten(1, -1), batch),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image {
        let flow = self.frozen(parameters, &self.at(z.temperatures()));
        self.image(flow.map.forward(&self.fields(z)), z.len())
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image {
        let flow = self.frozen(parameters, &self.at(x.temperatures()));
        self.image(flow.map.inverse(&self.fields(x)), x.len())
    }

    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image {
        let flow = self.frozen(parameters, &At::default());
        self.image(flow.map.forward_through(couplings, &self.on_lattice(z)), z.nrows())
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        let flow = self.frozen(parameters, &At::default());
        self.image(flow.map.inverse_through(couplings, &self.on_lattice(y)), y.nrows())
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64> {
        let leaf = self.fields(x).set_requires_grad(true);
        let (z, _) = self.frozen(parameters, &self.at(x.temperatures())).map.inverse(&leaf);
        let z = z.flatten(1, -1);
        let mut derivatives = Array3::zeros((latents.len(), x.len(), x.dim().1));
        for (mut derivative, &site) in derivatives.outer_iter_mut().zip(latents) {
            // Each sample's latents depend on that sample alone, so that one gradient holds those of all samples.
            let latent = z.select(1, site as i64).sum(self.kind);
            let gradient = Tensor::run_backward(&[latent], &[&leaf], true, false).remove(0);
            derivative.assign(&array::<ndarray::Ix2>(&gradient.flatten(1, -1), x.len()));
        }
        derivatives
    }
}

fn tensor_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::F64 => Kind::Double,
    }
}

fn tensor_device(device: Device) -> tch::Device {
    match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(index) => tch::Device::Cuda(index),
    }
}

fn tensor<D: Dimension>(array: Array<f64, D>, kind: Kind, device: tch::Device) -> Tensor {
    let shape: Vec<i64> = array.shape().iter().map(|&length| length as i64).collect();
    let array = array.as_standard_layout();
    let values = array.as_slice().expect("it is in standard layout");
    Tensor::from_slice(values).view(shape.as_slice()).to_kind(kind).to_device(device)
}

/// The first `rows` rows of a tensor of any device and precision.
fn array<D: Dimension>(tensor: &Tensor, rows: usize) -> Array<f64, D> {
    let tensor = tensor.detach().narrow(0, 0, rows as i64);
    let tensor = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Double).contiguous();
    let array: ArrayD<f64> = (&tensor).try_into().expect("an f64 tensor has an ndarray form");
    array.into_dimensionality().expect("the tensor has as many axes as asked for")
}

fn gradient_to(objective: &Tensor, leaf: &Tensor) -> Tensor {
    Tensor::run_backward(&[objective], &[leaf], false, false)
        .pop()
        .expect("one gradient for one leaf")
}
