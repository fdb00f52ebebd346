//! What evaluates a flow against its target, and differentiates it: the native kernels on CPUs, those for GPUs, or
//! torch operations with autograd on any device. All give the same numbers up to rounding.

mod choice;
pub mod config;
pub mod cuda;
pub mod device;
mod fourier;
mod model;
pub mod native;
pub mod symplectic;
mod symplectic_model;
#[cfg(test)]
mod tests;
#[cfg(feature = "torch")]
pub mod torch;

use std::fmt::Debug;
use std::ops::Range;

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, CowArray, Ix2, ShapeBuilder, s};

use crate::engine::config::Estimator;
use crate::random::{Random, Use};

pub use choice::{check_built, check_symplectic_built};
pub use model::Model;
pub use symplectic_model::SymplecticModel;

/// Field samples with their log-densities.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// (batch, N). For the mixture the sign of each sample is yet to be drawn; every even
    /// function of the field may be taken without.
    pub field: Array2<f64>,
    /// (batch): ln q(x) of the model; for the mixture ln q_sym(x).
    pub ln_q: Array1<f64>,
    /// (batch): ln π(x), unnormalized.
    pub ln_pi: Array1<f64>,
}

/// The loss of one batch, and the gradient of what is minimized.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// (batch): ln q(x) - ln π(x) of samples of the flow, whose mean is the variational free energy (Eq. 5);
    /// or -ln q(x) of given fields.
    pub values: Array1<f64>,
    /// (batch): ln q(x) - ln q(-x), where the symmetry is a regularizer (App. E).
    pub asymmetry: Option<Array1<f64>>,
    /// (parameters): gradient of mean value + λ mean asymmetry.
    pub gradient: Array1<f64>,
}

/// Potential energies of a batch of chains, their gradients, and the field that each position stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Potential {
    /// (chains): U(z).
    pub energy: Array1<f64>,
    /// (chains, N): ∂U/∂z.
    pub gradient: Array2<f64>,
    /// (chains, N): g(z).
    pub field: Array2<f64>,
}

/// What a map makes of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// (batch, N).
    pub field: Array2<f64>,
    /// (batch): ln|det| of the map's derivative.
    pub log_det: Array1<f64>,
}

/// Latents or fields, each with the temperature of the target and of the Gaussian layer that it is evaluated at.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    values: Values<'a>,
    /// (batch): T. Samples of one temperature should follow each other, since an engine evaluates those together.
    temperatures: ArrayView1<'a, f64>,
}

/// Where the numbers of a batch come from.
#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    /// (batch, N): z or x.
    Given(ArrayView2<'a, f64>),
    /// z ~ N(0, I) on so many sites, those of samples `first`, `first` + 1, … of a key: an engine draws them itself, where and
    /// when it needs them.
    Prior { random: Random, first: usize, sites: usize },
}

impl<'a> Batch<'a> {
    /// Given latents or fields, (batch, N), and a temperature of each, (batch).
    pub fn new<'b: 'a, 'c: 'a>(
        values: ArrayView2<'b, f64>,
        temperatures: ArrayView1<'c, f64>,
    ) -> Self {
        assert_eq!(values.nrows(), temperatures.len(), "each sample has a temperature");
        Self { values: Values::Given(values.reborrow()), temperatures: temperatures.reborrow() }
    }

    /// All at one temperature.
    pub fn uniform<'b: 'a>(values: ArrayView2<'b, f64>, temperature: &'a f64) -> Self {
        let count = values.nrows();
        Self::new(values, repeated(temperature, count))
    }

    /// Latents of the prior on `sites` sites: those of some samples of a key.
    pub fn prior(
        random: &Random,
        samples: Range<usize>,
        sites: usize,
        temperature: &'a f64,
    ) -> Self {
        let (count, first) = (samples.len(), samples.start);
        let values = Values::Prior { random: *random, first, sites };
        Self { values, temperatures: repeated(temperature, count) }
    }

    /// (batch): T.
    pub fn temperatures(&self) -> ArrayView1<'_, f64> {
        self.temperatures.view()
    }

    /// (batch, N).
    pub fn dim(&self) -> (usize, usize) {
        let sites = match &self.values {
            Values::Given(values) => values.ncols(),
            Values::Prior { sites, .. } => *sites,
        };
        (self.len(), sites)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.temperatures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs of equal temperatures, cut after each `most` samples, with their temperatures.
    pub fn tiles(&self, most: usize) -> Vec<(Range<usize>, f64)> {
        let mut tiles: Vec<(Range<usize>, f64)> = Vec::with_capacity(self.len().div_ceil(most));
        let (mut last, mut length) = (None, 0);
        for (sample, &temperature) in self.temperatures.iter().enumerate() {
            // By its bits, since NaN stands for none.
            if last == Some(temperature.to_bits()) && length < most {
                length += 1;
                tiles.last_mut().expect("there was a sample before").0.end = sample + 1;
            } else {
                length = 1;
                tiles.push((sample..sample + 1, temperature));
            }
            last = Some(temperature.to_bits());
        }
        tiles
    }

    /// The key and the first number of latents that are yet to be drawn.
    pub fn to_draw(&self) -> Option<(&Random, usize)> {
        match &self.values {
            Values::Given(_) => None,
            Values::Prior { random, first, .. } => Some((random, *first)),
        }
    }

    /// Latents or fields of some of the samples, drawn now if they are the prior's. Shapes: (samples, N).
    pub fn values(&self, samples: Range<usize>) -> CowArray<'_, f64, Ix2> {
        match &self.values {
            Values::Given(values) => values.slice(s![samples, ..]).into(),
            Values::Prior { random, first, sites } => {
                let samples = first + samples.start..first + samples.end;
                random.normals(Use::Latents, samples, *sites).into()
            }
        }
    }
}

/// A number so many times.
fn repeated(number: &f64, count: usize) -> ArrayView1<'_, f64> {
    let view = ArrayView1::from_shape((count,).strides((0,)), std::slice::from_ref(number));
    view.expect("a view may repeat a number")
}

/// An evaluation of one flow and its target at given parameters. It converts what it gets to its own precision and layout,
/// and alone knows of a tensor library or a device.
///
/// Shapes: parameters (parameters), z, x and y (batch, N). Without a target ln π is NaN, and nothing depends on temperatures.
pub trait Engine: Debug {
    /// Losses of x = g(z) and the gradient of mean(values) + `symmetry_weight` × mean(asymmetry); the estimator is that of
    /// the values' gradient.
    fn loss(
        &self,
        parameters: ArrayView1<f64>,
        z: Batch,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss;

    /// Losses -ln q(x) of given fields, symmetrized for the mixture, with the gradient of their mean: that of
    /// the forward KL divergence from the fields' distribution.
    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: Batch) -> Loss;

    /// ln q(x) of the model at given fields; for the mixture ln q_sym(x).
    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: Batch) -> Array1<f64>;

    /// x = g(z) with the log-densities of model and target.
    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw;

    /// U(z) = -ln p(z) - ln π(g(z)) + ln q(g(z)) (App. C), q being q_sym for the mixture.
    fn potential(&self, parameters: ArrayView1<f64>, z: Batch) -> Potential;

    /// x = g(z).
    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image;

    /// z = g⁻¹(x).
    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image;

    /// The part of g that a range of the couplings makes, without the Gaussian layer.
    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image;

    /// The inverse of [`Engine::forward_through`] for the same couplings.
    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image;

    /// ∂z_i/∂x_j of z = g⁻¹(x) at each sample, for some sites i and all sites j. Shapes: (latents, batch, N).
    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64>;
}
