//! Symplectic flows with torch: momenta are vector-Jacobian products of the couplings, differentiated once more for the
//! gradients.

use std::f64::consts::TAU;
use std::rc::Rc;

use ndarray::{Array, Array1, Array3, ArrayView1, ArrayView2, Dimension};
use tch::{Kind, Tensor};

use super::map::{Layout, Map};
use super::{array, gradient_to, tensor_device, tensor_kind};
use crate::engine::config::{Estimator, Precision};
use crate::engine::device::Device;
use crate::engine::symplectic::{Momenta, SymplecticEngine};
use crate::engine::{Image, Loss};
use crate::flow::symplectic::SymplecticFlow;
use crate::targets::surface::{RING_RADIUS, RING_VARIANCE, Surface};

/// A symplectic flow, and the surface that it is trained on, if there is one.
#[derive(Debug)]
pub struct TorchSymplectic {
    layout: Rc<Layout>,
    coordinates: i64,
    surface: Option<Surface>,
    kind: Kind,
    device: tch::Device,
}

/// The flow at some parameters.
struct Bound {
    map: Map,
    /// (n).
    ln_frequencies: Tensor,
    rests: Tensor,
}

impl TorchSymplectic {
    /// The engine of a flow. `threads` holds for all of the process.
    pub fn new(
        flow: &SymplecticFlow,
        surface: Option<Surface>,
        precision: Precision,
        device: Device,
        threads: usize,
    ) -> Self {
        tch::set_num_threads(threads as i32);
        let device = tensor_device(device);
        Self {
            layout: Rc::new(Layout::new(flow.couplings(), device)),
            coordinates: flow.coordinates as i64,
            surface,
            kind: tensor_kind(precision),
            device,
        }
    }

    fn tensor<D: Dimension>(&self, array: Array<f64, D>) -> Tensor {
        super::tensor(array, self.kind, self.device)
    }

    fn bind(&self, parameters: &Tensor) -> Bound {
        let n = self.coordinates;
        let of_couplings = parameters.size()[0] - 2 * n;
        let mut parts = parameters.split_with_sizes([of_couplings, n, n], 0).into_iter();
        let mut part = || parts.next().expect("three parts");
        Bound {
            map: Map::new(self.layout.clone(), &part(), None),
            ln_frequencies: part(),
            rests: part(),
        }
    }

    fn frozen(&self, parameters: ArrayView1<f64>) -> Bound {
        self.bind(&self.tensor(parameters.to_owned()))
    }

    /// A loss with its gradient to the parameters.
    fn loss(&self, parameters: ArrayView1<f64>, values: impl Fn(&Bound) -> Tensor) -> Loss {
        let leaf = self.tensor(parameters.to_owned()).set_requires_grad(true);
        let values = values(&self.bind(&leaf));
        let gradient = gradient_to(&values.mean(self.kind), &leaf);
        let batch = values.size()[0] as usize;
        Loss {
            values: array(&values, batch),
            asymmetry: None,
            gradient: array(&gradient, parameters.len()),
        }
    }

    /// ln ρ(Q, P) + V(q) + ½ p². Shapes: z (batch, n) → (batch).
    fn variational(&self, bound: &Bound, z: &Tensor, momenta: Momenta) -> Tensor {
        let q = bound.map.forward(&bound.oscillators(z)).0;
        let products = self.squared_products(&q, momenta, |q| bound.map.inverse(q).0);
        let ln_phase_density = bound.ln_phase_density(z, &self.squared(momenta));
        ln_phase_density + self.energy(&q) + products * 0.5
    }

    /// -ln ρ(Q, P). Shapes: q (batch, n) → (batch).
    fn likelihood(&self, bound: &Bound, q: &Tensor, momenta: Momenta) -> Tensor {
        let oscillators = bound.map.inverse(q).0;
        let forward = |point: &Tensor| bound.map.forward(point).0;
        let products = self.squared_products(&oscillators, momenta, forward);
        -bound.ln_phase_density(&bound.reduced(&oscillators), &products)
    }

    /// The variational loss with its path gradient: that of (q, p) alone, with the derivatives of ln ρ(q, p) + V(q) + ½ p² at fixed
    /// parameters as factors (arXiv:2207.08219). Where ρ is exact they vanish.
    fn path_loss(&self, parameters: ArrayView1<f64>, z: &Tensor, momenta: &Tensor) -> Loss {
        let leaf = self.tensor(parameters.to_owned()).set_requires_grad(true);
        let bound = self.bind(&leaf);
        let q = bound.map.forward(&bound.oscillators(z)).0;
        let p = product(&q, momenta, |q| bound.map.inverse(q).0);
        let energy = |q: &Tensor, p: &Tensor| self.energy(q) + squares(p) * 0.5;
        let values = bound.ln_phase_density(z, &squares(momenta)) + energy(&q, &p);

        let fixed = self.bind(&leaf.detach());
        let [at_q, at_p] = [&q, &p].map(|tensor| tensor.detach().set_requires_grad(true));
        let oscillators = fixed.map.inverse(&at_q).0;
        let back = product(&oscillators, &at_p, |point| fixed.map.forward(point).0);
        let ln_density = fixed.ln_phase_density(&fixed.reduced(&oscillators), &squares(&back));
        let mean = (ln_density + energy(&at_q, &at_p)).mean(self.kind);
        let forces = Tensor::run_backward(&[mean], &[&at_q, &at_p], false, false);
        let objective = (q * &forces[0]).sum(self.kind) + (p * &forces[1]).sum(self.kind);
        Loss {
            values: array(&values, z.size()[0] as usize),
            asymmetry: None,
            gradient: array(&gradient_to(&objective, &leaf), parameters.len()),
        }
    }

    /// V(q). Shapes: q (batch, n) → (batch).
    fn energy(&self, q: &Tensor) -> Tensor {
        match self.surface.expect("only a surface has a variational loss") {
            Surface::Ring => (squares(q).sqrt() - RING_RADIUS).square() / (2.0 * RING_VARIANCE),
            Surface::HarmonicChain { .. } => {
                let padded = q.constant_pad_nd([1, 1]);
                let steps = padded.narrow(1, 1, self.coordinates + 1)
                    - padded.narrow(1, 0, self.coordinates + 1);
                squares(&steps) * 0.5
            }
        }
    }

    /// |Jᵀ v|² of the given vectors v, J being the Jacobian of `map`; or its mean over normal v, Σ |Jᵀ e|² over all unit vectors e, by a
    /// batch of n copies of each point.
    ///
    /// Shapes: point (batch, n) → (batch).
    fn squared_products(
        &self,
        point: &Tensor,
        momenta: Momenta,
        map: impl Fn(&Tensor) -> Tensor,
    ) -> Tensor {
        match momenta {
            Momenta::Drawn(vectors) => {
                squares(&product(point, &self.tensor(vectors.to_owned()), map))
            }
            Momenta::Integrated => {
                let (batch, n) = (point.size()[0], self.coordinates);
                let copies = point.repeat([n, 1]);
                let unit = Tensor::eye(n, (self.kind, self.device));
                let vectors = unit.repeat_interleave_self_int(batch, 0, n * batch);
                let products = product(&copies, &vectors, map);
                squares(&products).view([n, batch]).sum_dim_intlist([0i64].as_slice(), false, None)
            }
        }
    }

    /// |v|² of momenta, or its mean n. Shapes: (batch), or a number.
    fn squared(&self, momenta: Momenta) -> Tensor {
        match momenta {
            Momenta::Drawn(vectors) => squares(&self.tensor(vectors.to_owned())),
            Momenta::Integrated => self.tensor(Array1::from_elem(1, self.coordinates as f64)),
        }
    }
}

impl Bound {
    /// Q of z.
    fn oscillators(&self, z: &Tensor) -> Tensor {
        z * (-&self.ln_frequencies).exp() + &self.rests
    }

    /// z of Q.
    fn reduced(&self, oscillators: &Tensor) -> Tensor {
        (oscillators - &self.rests) * self.ln_frequencies.exp()
    }

    /// ln ρ(Q, P) = Σ ln ω - ½ |z|² - ½ |P|² - n ln 2π. Shapes: z (batch, n), squared momenta (batch) → (batch).
    fn ln_phase_density(&self, z: &Tensor, squared_momenta: &Tensor) -> Tensor {
        let n = z.size()[1] as f64;
        let kind = z.kind();
        (squares(z) + squared_momenta) * -0.5 + self.ln_frequencies.sum(kind) - n * TAU.ln()
    }
}

impl SymplecticEngine for TorchSymplectic {
    fn variational_loss(
        &self,
        parameters: ArrayView1<f64>,
        z: ArrayView2<f64>,
        momenta: Momenta,
        estimator: Estimator,
    ) -> Loss {
        let z = self.tensor(z.to_owned());
        if let (Estimator::Path, Momenta::Drawn(momenta)) = (estimator, momenta) {
            return self.path_loss(parameters, &z, &self.tensor(momenta.to_owned()));
        }
        self.loss(parameters, |bound| self.variational(bound, &z, momenta))
    }

    fn likelihood_loss(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Loss {
        let q = self.tensor(q.to_owned());
        self.loss(parameters, |bound| self.likelihood(bound, &q, momenta))
    }

    fn variational_values(
        &self,
        parameters: ArrayView1<f64>,
        z: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Array1<f64> {
        let values =
            self.variational(&self.frozen(parameters), &self.tensor(z.to_owned()), momenta);
        array(&values, z.nrows())
    }

    fn likelihood_values(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Array1<f64> {
        let values = self.likelihood(&self.frozen(parameters), &self.tensor(q.to_owned()), momenta);
        array(&values, q.nrows())
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: ArrayView2<f64>) -> Image {
        let bound = self.frozen(parameters);
        let (q, log_det) = bound.map.forward(&bound.oscillators(&self.tensor(z.to_owned())));
        let log_det = log_det - bound.ln_frequencies.sum(self.kind);
        Image { field: array(&q, z.nrows()), log_det: array(&log_det, z.nrows()) }
    }

    fn inverse(&self, parameters: ArrayView1<f64>, q: ArrayView2<f64>) -> Image {
        let bound = self.frozen(parameters);
        let (oscillators, log_det) = bound.map.inverse(&self.tensor(q.to_owned()));
        let log_det = log_det + bound.ln_frequencies.sum(self.kind);
        let z = bound.reduced(&oscillators);
        Image { field: array(&z, q.nrows()), log_det: array(&log_det, q.nrows()) }
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        oscillators: &[usize],
    ) -> Array3<f64> {
        let leaf = self.tensor(q.to_owned()).set_requires_grad(true);
        let all = self.frozen(parameters).map.inverse(&leaf).0;
        let mut derivatives = Array3::zeros((oscillators.len(), q.nrows(), q.ncols()));
        for (mut derivative, &oscillator) in derivatives.outer_iter_mut().zip(oscillators) {
            // Each sample's oscillators depend on that sample alone.
            let one = all.select(1, oscillator as i64).sum(self.kind);
            let gradient = Tensor::run_backward(&[one], &[&leaf], true, false).remove(0);
            derivative.assign(&array::<ndarray::Ix2>(&gradient, q.nrows()));
        }
        derivatives
    }
}

/// |row|². Shapes: (batch, n) → (batch).
fn squares(rows: &Tensor) -> Tensor {
    rows.square().sum_dim_intlist([1i64].as_slice(), false, None)
}

/// Jᵀ v, J being the Jacobian of `map` at each point; it can be differentiated once more if the point can.
///
/// Shapes: point and vectors (batch, n) → (batch, n).
fn product(point: &Tensor, vectors: &Tensor, map: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let again = point.requires_grad();
    let point = if again { point.shallow_clone() } else { point.detach().set_requires_grad(true) };
    let objective = (map(&point) * vectors).sum(vectors.kind());
    Tensor::run_backward(&[objective], &[&point], again, again)
        .pop()
        .expect("one gradient for one point")
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis, s};

    use super::*;
    use crate::engine::symplectic::ln_density;
    use crate::flow::config::{Arrangement, FlowConfig, Symmetry};
    use crate::flow::coupling::{Conditioner, Networks, Transform};
    use crate::flow::symmetry::ln_prior;
    use crate::random::{Random, Use};

    /// Away from its start, where scales are zero and all frequencies one.
    fn random_flow(coordinates: usize, config: &FlowConfig) -> SymplecticFlow {
        let random = Random::new(15);
        let mut flow = SymplecticFlow::initialize((coordinates, 1), config, None, &random);
        let kick = random.normals(Use::Momenta, 0..1, flow.parameters.len());
        let deviation = match (config.conditioner, config.transform) {
            (Conditioner::Elu, Transform::Bump) => 0.03,
            _ => 0.3,
        };
        flow.parameters.scaled_add(deviation, &kick.row(0));
        flow
    }

    /// Every conditioner, transform and kind of network, an odd number of coordinates too.
    fn flows() -> Vec<SymplecticFlow> {
        let small = FlowConfig {
            arrangement: Arrangement::Halves,
            symmetry: Symmetry::None,
            couplings: 4,
            hidden_layers: 2,
            hidden_width: 6,
            ..Default::default()
        };
        let mut flows = Vec::new();
        for coordinates in [2, 5] {
            for transform in [Transform::Affine, Transform::Bump] {
                for (conditioner, networks) in [
                    (Conditioner::Elu, Networks::Separate),
                    (Conditioner::Elu, Networks::Joint),
                    (Conditioner::Odd, Networks::Joint),
                ] {
                    let config = FlowConfig { conditioner, networks, transform, ..small.clone() };
                    flows.push(random_flow(coordinates, &config));
                }
            }
        }
        flows
    }

    fn engine(flow: &SymplecticFlow) -> TorchSymplectic {
        let surface = match flow.coordinates {
            2 => Surface::Ring,
            beads => Surface::HarmonicChain { beads },
        };
        TorchSymplectic::new(flow, Some(surface), Precision::F64, Device::Cpu, 1)
    }

    /// z and momenta of some samples.
    fn phase(flow: &SymplecticFlow, samples: usize) -> [Array2<f64>; 2] {
        [Use::Latents, Use::Momenta]
            .map(|of| Random::new(5).normals(of, 0..samples, flow.coordinates))
    }

    fn largest<D: Dimension>(difference: &Array<f64, D>) -> f64 {
        difference.iter().fold(0.0, |most, value| most.max(value.abs()))
    }

    /// Rows are gradients of each number of one sample's image. Shapes: image (1, m), leaves (1, n) each → (m, n of all leaves).
    fn jacobian(image: &Tensor, leaves: &[&Tensor]) -> Array2<f64> {
        let row = |i: i64| -> Vec<f64> {
            let gradients = Tensor::run_backward(&[image.select(1, i)], leaves, true, false);
            let all = gradients.iter().flat_map(|gradient| array::<ndarray::Ix2>(gradient, 1));
            all.collect()
        };
        let rows: Vec<f64> = (0..image.size()[1]).flat_map(row).collect();
        let length = image.size()[1] as usize;
        Array2::from_shape_vec((length, rows.len() / length), rows).unwrap()
    }

    /// Mᵀ J M = J of M = ∂(q, p)/∂(Q, P), and (q, p) go back to (Q, P).
    #[test]
    fn point_transformations_are_symplectic() {
        for flow in flows() {
            let (engine, n) = (engine(&flow), flow.coordinates);
            let bound = engine.frozen(flow.parameters.view());
            let leaves =
                phase(&flow, 1).map(|values| engine.tensor(values).set_requires_grad(true));
            let [oscillators, momenta] = &leaves;
            let q = bound.map.forward(oscillators).0;
            let p = product(&q, momenta, |q| bound.map.inverse(q).0);
            let m = jacobian(&Tensor::cat(&[&q, &p], 1), &[oscillators, momenta]);
            let mut j = Array2::zeros((2 * n, 2 * n));
            j.slice_mut(s![..n, n..]).assign(&Array2::<f64>::eye(n));
            j.slice_mut(s![n.., ..n]).assign(&-Array2::<f64>::eye(n));
            let difference = largest(&(m.t().dot(&j).dot(&m) - &j));
            assert!(difference < 1e-10, "{flow:?}: {difference}");

            let back = bound.map.inverse(&q).0;
            let back_momenta = product(&back, &p, |point| bound.map.forward(point).0);
            for (found, expected) in [(&back, oscillators), (&back_momenta, momenta)] {
                let difference: Array2<f64> = array(&(found - expected), 1);
                assert!(largest(&difference) < 1e-10, "{flow:?}");
            }
        }
    }

    /// z comes back from q, and log_det is that of the Jacobian, oscillators and couplings together.
    #[test]
    fn inverse_undoes_forward_and_log_det_is_the_jacobians() {
        for flow in flows() {
            let (engine, n) = (engine(&flow), flow.coordinates);
            let parameters = flow.parameters.view();
            let [z, _] = phase(&flow, 3);
            let there = engine.forward(parameters, z.view());
            let back = engine.inverse(parameters, there.field.view());
            assert!(largest(&(&back.field - &z)) < 1e-9, "{flow:?}");
            assert!(largest(&(&back.log_det + &there.log_det)) < 1e-9, "{flow:?}");
            let all: Vec<usize> = (0..n).collect();
            let derivatives = engine.inverse_derivatives(parameters, there.field.view(), &all);
            let scale = flow.frequencies().mapv(f64::ln).sum();
            for sample in 0..3 {
                let of_sample = derivatives.index_axis(Axis(1), sample);
                let matrix = nalgebra::DMatrix::from_fn(n, n, |k, i| of_sample[[k, i]]);
                let log_det = matrix.determinant().abs().ln() + scale;
                assert!((back.log_det[sample] - log_det).abs() < 1e-9, "{flow:?}");
            }
        }
    }

    /// ln ρ(q, p) = ln q(q) + ln N(p; 0, AᵀA) with A = ∂Q/∂q, and energies are those of the host.
    #[test]
    fn losses_are_those_of_the_density_of_coordinates_and_of_momenta_given_them() {
        for flow in flows() {
            let (engine, n) = (engine(&flow), flow.coordinates);
            let parameters = flow.parameters.view();
            let [z, momenta] = phase(&flow, 3);
            let q = engine.forward(parameters, z.view()).field;
            let all: Vec<usize> = (0..n).collect();
            let derivatives = engine.inverse_derivatives(parameters, q.view(), &all);
            let ln_q = ln_density(&engine.inverse(parameters, q.view()));
            let energies = engine.surface.unwrap().energy(q.view());
            let likelihood =
                engine.likelihood_loss(parameters, q.view(), Momenta::Drawn(momenta.view()));
            let variational = |momenta| {
                let estimator = Estimator::Total;
                engine.variational_loss(parameters, z.view(), momenta, estimator).values
            };
            let drawn = variational(Momenta::Drawn(momenta.view()));
            let values = Momenta::Drawn(momenta.view());
            let alone = engine.variational_values(parameters, z.view(), values);
            assert!(largest(&(&alone - &drawn)) < 1e-12, "{flow:?}");
            let alone = engine.likelihood_values(parameters, q.view(), values);
            assert!(largest(&(&alone - &likelihood.values)) < 1e-12, "{flow:?}");
            let integrated = variational(Momenta::Integrated);
            let integrated_likelihood =
                engine.likelihood_loss(parameters, q.view(), Momenta::Integrated).values;
            for sample in 0..3 {
                let of_sample = derivatives.index_axis(Axis(1), sample);
                let a = nalgebra::DMatrix::from_fn(n, n, |k, i| of_sample[[k, i]]);
                let covariance = a.transpose() * &a;
                let inverse = covariance.clone().try_inverse().unwrap();
                let vector = |row: ArrayView1<f64>| nalgebra::DVector::from_vec(row.to_vec());
                let constant = 0.5 * covariance.determinant().ln() + 0.5 * n as f64 * TAU.ln();
                let p = vector(momenta.row(sample));
                let expected = 0.5 * (p.transpose() * &inverse * &p)[0] + constant - ln_q[sample];
                assert!((likelihood.values[sample] - expected).abs() < 1e-9, "{flow:?}");
                let expected = 0.5 * inverse.trace() + constant - ln_q[sample];
                assert!((integrated_likelihood[sample] - expected).abs() < 1e-9, "{flow:?}");

                let back = a.transpose() * vector(momenta.row(sample));
                let of_momenta = ln_prior(momenta.slice(s![sample..=sample, ..]))[0];
                let ln_oscillators = ln_prior(z.slice(s![sample..=sample, ..]))[0]
                    + flow.frequencies().mapv(f64::ln).sum();
                let energy = energies[sample];
                let expected = ln_oscillators + of_momenta + energy + 0.5 * back.norm_squared();
                assert!((drawn[sample] - expected).abs() < 1e-9, "{flow:?}");
                let entropy = 0.5 * n as f64 * (1.0 + TAU.ln());
                let expected = ln_oscillators - entropy + energy + 0.5 * covariance.trace();
                assert!((integrated[sample] - expected).abs() < 1e-9, "{flow:?}");
            }
        }
    }

    /// A loss at some parameters.
    type LossAt<'a> = &'a dyn Fn(ArrayView1<f64>) -> Loss;

    /// Along a random direction, by central differences.
    #[test]
    fn gradients_are_finite_differences_of_the_losses() {
        for flow in flows() {
            let engine = engine(&flow);
            let [z, momenta] = phase(&flow, 4);
            let q = engine.forward(flow.parameters.view(), z.view()).field;
            let losses: [LossAt; 3] = [
                &|at| {
                    let momenta = Momenta::Drawn(momenta.view());
                    engine.variational_loss(at, z.view(), momenta, Estimator::Total)
                },
                &|at| {
                    let momenta = Momenta::Integrated;
                    engine.variational_loss(at, z.view(), momenta, Estimator::Total)
                },
                &|at| engine.likelihood_loss(at, q.view(), Momenta::Drawn(momenta.view())),
            ];
            let count = flow.parameters.len();
            let direction = Random::new(8).normals(Use::Latents, 0..1, count).row(0).to_owned();
            for loss in losses {
                let step = 1e-5;
                let at = |step: f64| {
                    loss((&flow.parameters + &(&direction * step)).view()).values.mean().unwrap()
                };
                let expected = (at(step) - at(-step)) / (2.0 * step);
                let found = loss(flow.parameters.view()).gradient.dot(&direction);
                let difference = (found - expected).abs();
                assert!(difference < 1e-5 * expected.abs().max(1.0), "{flow:?}: {difference}");
            }
        }
    }

    /// Over many batches the path gradient is the total one: deviations in standard errors along some directions. And values are
    /// the same.
    #[test]
    fn path_gradients_have_the_mean_of_total_ones() {
        let flow = flows().into_iter().next().unwrap();
        let engine = engine(&flow);
        let parameters = flow.parameters.view();
        let directions = Random::new(8).normals(Use::Latents, 0..5, flow.parameters.len());
        let (batches, batch) = (200, 64);
        let mut differences = Array2::zeros((batches, 5));
        for (number, mut row) in differences.outer_iter_mut().enumerate() {
            let random = Random::new(100 + number as u64);
            let [z, momenta] =
                [Use::Latents, Use::Momenta].map(|of| random.normals(of, 0..batch, 2));
            let [total, path] = [Estimator::Total, Estimator::Path].map(|estimator| {
                let momenta = Momenta::Drawn(momenta.view());
                engine.variational_loss(parameters, z.view(), momenta, estimator)
            });
            assert!(largest(&(&total.values - &path.values)) < 1e-10);
            row.assign(&directions.dot(&(total.gradient - path.gradient)));
        }
        let means = differences.mean_axis(Axis(0)).unwrap();
        let errors = differences.std_axis(Axis(0), 1.0) / (batches as f64).sqrt();
        for (mean, error) in means.iter().zip(&errors) {
            assert!(mean.abs() < 4.0 * error && *error > 0.0, "{means} ± {errors}");
        }
    }
}
