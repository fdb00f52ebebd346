//! The flow on CPUs: values, densities and derivatives without a tensor library.
//!
//! The batch is cut into tiles of `LANES` samples, each laid out (site, lane), so that a stencil is
//! read without gathering and every network works on full vectors. Derivatives take the networks'
//! activations from a record where all of them fit into the cache, else they compute them again.
//!
//! | file | what |
//! |---|---|
//! | `lanes` | functions of numbers that vectorize |
//! | `kernels` | matrix products in register blocks |
//! | `convolution` | features that a coupling's rows share: values, and cotangents pulled back |
//! | `network` | conditioners: values, and cotangents pulled back |
//! | `transform` | monotone maps, their inverses and partial derivatives |
//! | `passes` | all couplings on one tile, in both directions |
//! | `spectral` | functions of K + αI |
//! | `density` | sums over a tile's sites |
//! | `likelihood` | ln q of given fields and its gradient |

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::{Draw, Engine, Image, Loss, Potential};
use crate::engine::config::Estimator;
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Coupling;
use crate::flow::symmetry::ln_mean_exp;

mod convolution;
mod density;
mod kernels;
mod lanes;
mod likelihood;
mod network;
mod passes;
mod spectral;
mod transform;

use density::{Sums, dot, ln_normal, share, sum_ln_cosh, tanh};
use lanes::{LANES, Lanes};
use network::{Layout, Panels};
use passes::{Flow, Record};
use spectral::{Multipliers, Spectral};

pub use lanes::Real;

/// Partial gradients that are summed in a fixed order, whatever the number of threads.
const MAX_PARTS: usize = 32;

/// The flow z → x and its densities, on a pool of threads of its own.
#[derive(Debug)]
pub struct Native<T> {
    couplings: Arc<[Coupling]>,
    layouts: Vec<Layout>,
    /// N.
    sites: usize,
    spectral: Spectral<T>,
    /// (K + αI)^(1/2), ^(-1/2) and ^(-1).
    root: Multipliers<T>,
    inverse_root: Multipliers<T>,
    inverse: Multipliers<T>,
    preconditioner: bool,
    symmetry: Symmetry,
    pool: rayon::ThreadPool,
    /// Workspaces that no call is using.
    spaces: Mutex<Vec<Workspace<T>>>,
}

/// What one tile is worked on with.
#[derive(Debug)]
struct Workspace<T> {
    panels: Panels<T>,
    /// y or z.
    field: Vec<Lanes<T>>,
    /// x.
    image: Vec<Lanes<T>>,
    /// -y or its latent.
    mirror: Vec<Lanes<T>>,
    /// Of y, later z: starts as -∂ ln π/∂y.
    cotangent: Vec<Lanes<T>>,
    /// ∂ ln q(y)/∂y.
    score: Vec<Lanes<T>>,
    scratch: Vec<Lanes<T>>,
    record: Record<T>,
    mirror_record: Record<T>,
}

/// What is to be known of a tile besides its densities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    ln_q_mirror: bool,
    cotangent: bool,
    score: bool,
}

/// Densities of a tile.
struct Densities {
    ln_p: Sums,
    /// ln q(x) and ln q(-x), not symmetrized; the latter is zero unless wanted.
    ln_q: Sums,
    ln_q_mirror: Sums,
    ln_pi: Sums,
}

/// The loss of a lane as a sum of terms with derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Coefficients {
    /// Of ln q(x).
    ln_q: f64,
    /// Of ln q(-x).
    ln_q_mirror: f64,
    /// Of ∂ ln q(x)/∂x at fixed parameters.
    score: f64,
}

/// Losses of some tiles and their share of the gradient.
struct Part {
    values: Vec<f64>,
    asymmetry: Vec<f64>,
    gradient: Vec<f64>,
}

impl Part {
    fn new<T>(flow: &Flow<'_, T>) -> Self {
        let gradient = vec![0.0; flow.parameters.len()];
        Self { values: Vec::new(), asymmetry: Vec::new(), gradient }
    }

    /// This part followed by the next.
    fn join(mut self, next: Self) -> Self {
        self.values.extend(next.values);
        self.asymmetry.extend(next.asymmetry);
        self.gradient.iter_mut().zip(next.gradient).for_each(|(sum, value)| *sum += value);
        self
    }
}

impl<T: Real> Native<T> {
    /// The flow of `couplings`, which are those of `architecture`, for the target and Gaussian layer at its temperature.
    ///
    /// # Panics
    /// If the threads cannot be started.
    pub fn new(architecture: &Architecture, couplings: &Arc<[Coupling]>, threads: usize) -> Self {
        let spectral = Spectral::new(architecture.linear_size, 1.0 / architecture.temperature);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Self {
            layouts: couplings
                .iter()
                .map(|coupling| Layout::new(coupling, size_of::<T>()))
                .collect(),
            couplings: couplings.clone(),
            sites: architecture.sites(),
            root: spectral.power(0.5),
            inverse_root: spectral.power(-0.5),
            inverse: spectral.power(-1.0),
            spectral,
            preconditioner: architecture.config.preconditioner,
            symmetry: architecture.config.symmetry,
            pool: pool.expect("the threads of the flow start"),
            spaces: Mutex::default(),
        }
    }

    /// Losses of a batch from those of its tiles, whose gradients are added in a fixed order.
    fn loss_by_tiles(
        &self,
        parameters: ArrayView1<f64>,
        batch: usize,
        of_tiles: &(dyn Fn(&Flow<'_, T>, Range<usize>) -> Part + Sync),
    ) -> Loss {
        let part = self.with_flow(parameters, self.all_couplings(), |flow| {
            let tiles = batch.div_ceil(LANES);
            let tiles_per_part = tiles.div_ceil(MAX_PARTS).max(1);
            sum_parts(0..tiles.div_ceil(tiles_per_part).max(1), &|part| {
                of_tiles(flow, part * tiles_per_part..tiles.min((part + 1) * tiles_per_part))
            })
        });
        let scale = 1.0 / batch.max(1) as f64;
        Loss {
            values: part.values.into(),
            asymmetry: (self.symmetry == Symmetry::Regularizer).then(|| part.asymmetry.into()),
            gradient: Array1::from(part.gradient) * scale,
        }
    }

    /// Calls `work` in the pool with the flow at these parameters.
    fn with_flow<R: Send>(
        &self,
        parameters: ArrayView1<f64>,
        through: Range<usize>,
        work: impl FnOnce(&Flow<'_, T>) -> R + Send,
    ) -> R {
        let parameters: Vec<T> = parameters.iter().map(|&value| T::of(value)).collect();
        self.pool.install(|| {
            let packed: Vec<Vec<T>> =
                self.layouts.par_iter().map(|layout| layout.pack(&parameters)).collect();
            work(&Flow {
                couplings: &self.couplings,
                layouts: &self.layouts,
                parameters: &parameters,
                packed: &packed,
                through,
            })
        })
    }

    /// All of them.
    fn all_couplings(&self) -> Range<usize> {
        0..self.couplings.len()
    }

    /// The results of `work` for every tile of a batch, which it finds in `Workspace::field`, with a flow of some of the
    /// couplings.
    fn per_tile<R: Send>(
        &self,
        (parameters, through): (ArrayView1<f64>, Range<usize>),
        batch: ArrayView2<f64>,
        work: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> R + Sync + Send,
    ) -> Vec<R> {
        assert_eq!(batch.ncols(), self.sites, "a batch is (batch, N)");
        self.with_flow(parameters, through, |flow| {
            (0..batch.nrows().div_ceil(LANES))
                .into_par_iter()
                .map(|tile| {
                    self.with_workspace(flow, |space| {
                        load(batch, tile, &mut space.field);
                        work(flow, space)
                    })
                })
                .collect()
        })
    }

    /// Calls `work` with a workspace that an earlier call has left, or a new one.
    fn with_workspace<R>(
        &self,
        flow: &Flow<'_, T>,
        work: impl FnOnce(&mut Workspace<T>) -> R,
    ) -> R {
        let spare = self.spaces.lock().expect("no thread panics with the lock").pop();
        let mut space = spare.unwrap_or_else(|| Workspace::new(flow, self.sites));
        let result = work(&mut space);
        self.spaces.lock().expect("no thread panics with the lock").push(space);
        result
    }

    /// Fields mapped in place by some of the couplings, and their log-determinants.
    fn map_tiles(
        &self,
        flow: (ArrayView1<f64>, Range<usize>),
        batch: ArrayView2<f64>,
        map: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> Sums + Sync + Send,
    ) -> Image {
        let tiles = self.per_tile(flow, batch, |flow, space| {
            let log_det = map(flow, space);
            (space.field.clone(), log_det)
        });
        Image {
            log_det: numbers(tiles.iter().map(|(_, log_det)| log_det), batch.nrows()),
            field: unload(tiles.iter().map(|(field, _)| &field[..]), batch.dim()),
        }
    }

    fn loss_of_tiles(
        &self,
        flow: &Flow<'_, T>,
        z: ArrayView2<f64>,
        tiles: Range<usize>,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Part {
        let wanted = Wanted {
            ln_q_mirror: matches!(self.symmetry, Symmetry::Mixture | Symmetry::Regularizer),
            cotangent: true,
            score: estimator == Estimator::Path,
        };
        let mut part = Part::new(flow);
        self.with_workspace(flow, |space| {
            for tile in tiles {
                load(z, tile, &mut space.field);
                let densities = self.evaluate(flow, space, wanted);
                let samples = (z.nrows() - tile * LANES).min(LANES);
                let coefficients: [Coefficients; LANES] = std::array::from_fn(|lane| {
                    if lane < samples {
                        self.coefficients(&densities, lane, symmetry_weight, estimator)
                    } else {
                        Coefficients { ln_q: 0.0, ln_q_mirror: 0.0, score: 0.0 }
                    }
                });
                for lanes in &mut space.cotangent {
                    lanes.0[samples..].fill(T::ZERO);
                }
                self.differentiate(
                    flow,
                    space,
                    &coefficients,
                    Some((&mut part.gradient, estimator)),
                );
                let ln_q = self.symmetrized(&densities.ln_q, &densities.ln_q_mirror);
                let lanes = 0..samples;
                part.values.extend(lanes.clone().map(|lane| ln_q[lane] - densities.ln_pi[lane]));
                part.asymmetry
                    .extend(lanes.map(|lane| densities.ln_q[lane] - densities.ln_q_mirror[lane]));
            }
        });
        part
    }

    /// From z in `space.field` to y there, x in `space.image` and the densities, with what else is
    /// wanted: -∂ ln π/∂y in `space.cotangent`, ∂ ln q/∂y in `space.score`, and the latent of -x in
    /// `space.mirror`.
    fn evaluate(&self, flow: &Flow<'_, T>, space: &mut Workspace<T>, wanted: Wanted) -> Densities {
        let constant = self.ln_det_preconditioner();
        let ln_p = ln_normal(&space.field);
        let Workspace { panels, field, record, score, .. } = space;
        let log_det = if wanted.score {
            negate(field, score);
            flow.forward_with_score(panels, field, record, score)
        } else {
            flow.forward(field, record)
        };
        let ln_q = std::array::from_fn(|lane| ln_p[lane] - log_det[lane] - constant);
        let ln_pi = self.target(space, wanted.cotangent);
        let mut ln_q_mirror = [0.0; LANES];
        if wanted.ln_q_mirror {
            let Workspace { field, mirror, mirror_record, .. } = space;
            negate(field, mirror);
            let log_det = flow.inverse(mirror, mirror_record);
            ln_q_mirror = add(ln_normal(mirror), log_det.map(|value| value - constant));
        }
        Densities { ln_p, ln_q, ln_q_mirror, ln_pi }
    }

    /// ln π(x) = -½ xᵀ(K + αI)⁻¹x + Σ ln cosh x_i, and x in `space.image`; with `derivative`, -∂ ln
    /// π/∂y in `space.cotangent`.
    fn target(&self, space: &mut Workspace<T>, derivative: bool) -> Sums {
        let Workspace { field, image, cotangent, scratch, .. } = space;
        image.copy_from_slice(field);
        self.apply_preconditioner(&self.root, image, scratch);
        // ∂(½ xᵀ(K + αI)⁻¹x)/∂y, where y = x or, preconditioned, y = (K + αI)^(-1/2) x.
        let force = &mut *cotangent;
        force.copy_from_slice(field);
        if !self.preconditioner {
            self.spectral.apply(&self.inverse, force, scratch);
        }
        let quadratic = dot(field, force);
        let ln_cosh = sum_ln_cosh(image);
        if derivative {
            // `score` is in use: the tanh goes to `mirror`, which is written only later.
            let slope = &mut space.mirror;
            tanh(image, slope);
            self.apply_preconditioner(&self.root, slope, scratch);
            subtract(force, slope);
        }
        std::array::from_fn(|lane| ln_cosh[lane] - 0.5 * quadratic[lane])
    }

    /// After `evaluate`: from -∂ ln π/∂y in `space.cotangent` to the derivative of the loss with
    /// respect to z there, and z in `space.field`; adds to the gradient of the parameters.
    ///
    /// The derivative by z leaves out ln p(z) in ln q(x).
    fn differentiate(
        &self,
        flow: &Flow<'_, T>,
        space: &mut Workspace<T>,
        coefficients: &[Coefficients; LANES],
        gradient: Option<(&mut [f64], Estimator)>,
    ) {
        let (mut gradient, estimator) = match gradient {
            Some((gradient, estimator)) => (Some(gradient), estimator),
            None => (None, Estimator::Total),
        };
        let of = |pick: fn(&Coefficients) -> f64| {
            Lanes(std::array::from_fn(|lane| T::of(pick(&coefficients[lane]))))
        };
        if estimator == Estimator::Path {
            add_product(&mut space.cotangent, &of(|of| of.score), &space.score);
        }
        // The cotangent of ln q(-x) reuses the place of the score.
        let Workspace { panels, field, record, mirror, score, mirror_record, cotangent, .. } =
            space;
        let of_mirror = of(|of| of.ln_q_mirror);
        // The path gradient of the mixture holds the parameters of ln q(-x) fixed.
        let fixed = estimator == Estimator::Path && self.symmetry == Symmetry::Mixture;
        let of_parameters = if fixed { None } else { gradient.as_deref_mut() };
        pull_back_ln_q(flow, panels, mirror, mirror_record, score, &of_mirror, of_parameters);
        subtract(cotangent, score);
        let of_log_det = of(|of| -of.ln_q);
        flow.pull_back_forward(panels, field, record, cotangent, &of_log_det, gradient);
    }

    /// Coefficients of the loss ln q_sym(x) - ln π(x) + `symmetry_weight` × asymmetry.
    fn coefficients(
        &self,
        densities: &Densities,
        lane: usize,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Coefficients {
        let (ln_q, ln_q_mirror) = self.shares(densities.ln_q[lane], densities.ln_q_mirror[lane]);
        let asymmetry = if self.symmetry == Symmetry::Regularizer { symmetry_weight } else { 0.0 };
        let (total, score) = match estimator {
            Estimator::Total => (ln_q, 0.0),
            Estimator::Path => (0.0, ln_q),
        };
        Coefficients { ln_q: total + asymmetry, ln_q_mirror: ln_q_mirror - asymmetry, score }
    }

    /// Derivatives of the model's ln q(x) by the flow's ln q(x) and ln q(-x).
    fn shares(&self, ln_q: f64, ln_q_mirror: f64) -> (f64, f64) {
        match self.symmetry {
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => (1.0, 0.0),
            Symmetry::Mixture => (share::<T>(ln_q, ln_q_mirror), share::<T>(ln_q_mirror, ln_q)),
        }
    }

    /// The model's ln q(x) from the flow's ln q(x) and ln q(-x).
    fn symmetrized(&self, ln_q: &Sums, ln_q_mirror: &Sums) -> Sums {
        match self.symmetry {
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => *ln_q,
            Symmetry::Mixture => {
                std::array::from_fn(|lane| ln_mean_exp(ln_q[lane], ln_q_mirror[lane]))
            }
        }
    }

    /// ½ Σ ln λ with the preconditioner, else 0.
    fn ln_det_preconditioner(&self) -> f64 {
        if self.preconditioner { self.spectral.half_ln_det() } else { 0.0 }
    }

    /// A power of K + αI with the preconditioner, else nothing.
    fn apply_preconditioner(
        &self,
        multipliers: &Multipliers<T>,
        field: &mut [Lanes<T>],
        scratch: &mut [Lanes<T>],
    ) {
        if self.preconditioner {
            self.spectral.apply(multipliers, field, scratch);
        }
    }
}

impl<T: Real> Engine for Native<T> {
    fn loss(
        &self,
        parameters: ArrayView1<f64>,
        z: ArrayView2<f64>,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        self.loss_by_tiles(parameters, z.nrows(), &|flow, tiles| {
            self.loss_of_tiles(flow, z, tiles, symmetry_weight, estimator)
        })
    }

    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: ArrayView2<f64>) -> Loss {
        let loss = self.loss_by_tiles(parameters, x.nrows(), &|flow, tiles| {
            self.likelihood_of_tiles(flow, x, tiles)
        });
        Loss { asymmetry: None, ..loss }
    }

    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: ArrayView2<f64>) -> Array1<f64> {
        let tiles = self.per_tile((parameters, self.all_couplings()), x, |flow, space| {
            let [ln_q, ln_q_mirror] = self.invert(flow, space);
            self.symmetrized(&ln_q, &ln_q_mirror)
        });
        numbers(tiles.iter(), x.nrows())
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: ArrayView2<f64>) -> Draw {
        let wanted = Wanted {
            ln_q_mirror: self.symmetry == Symmetry::Mixture,
            cotangent: false,
            score: false,
        };
        let tiles = self.per_tile((parameters, self.all_couplings()), z, |flow, space| {
            let densities = self.evaluate(flow, space, wanted);
            let ln_q = self.symmetrized(&densities.ln_q, &densities.ln_q_mirror);
            (space.image.clone(), ln_q, densities.ln_pi)
        });
        Draw {
            field: unload(tiles.iter().map(|(field, ..)| &field[..]), z.dim()),
            ln_q: numbers(tiles.iter().map(|(_, ln_q, _)| ln_q), z.nrows()),
            ln_pi: numbers(tiles.iter().map(|(.., ln_pi)| ln_pi), z.nrows()),
        }
    }

    fn potential(&self, parameters: ArrayView1<f64>, z: ArrayView2<f64>) -> Potential {
        let wanted = Wanted {
            ln_q_mirror: self.symmetry == Symmetry::Mixture,
            cotangent: true,
            score: false,
        };
        let tiles = self.per_tile((parameters, self.all_couplings()), z, |flow, space| {
            let densities = self.evaluate(flow, space, wanted);
            let coefficients: [Coefficients; LANES] = std::array::from_fn(|lane| {
                self.coefficients(&densities, lane, 0.0, Estimator::Total)
            });
            self.differentiate(flow, space, &coefficients, None);
            // What ln p(z) contributes besides: U has -ln p(z) and, in ln q, a share of + ln p(z).
            let rest = Lanes(coefficients.map(|of| T::of(1.0 - of.ln_q)));
            add_product(&mut space.cotangent, &rest, &space.field);
            let ln_q = self.symmetrized(&densities.ln_q, &densities.ln_q_mirror);
            let energy: Sums = std::array::from_fn(|lane| {
                ln_q[lane] - densities.ln_p[lane] - densities.ln_pi[lane]
            });
            (energy, space.cotangent.clone(), space.image.clone())
        });
        Potential {
            energy: numbers(tiles.iter().map(|(energy, ..)| energy), z.nrows()),
            gradient: unload(tiles.iter().map(|(_, gradient, _)| &gradient[..]), z.dim()),
            field: unload(tiles.iter().map(|(.., field)| &field[..]), z.dim()),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: ArrayView2<f64>) -> Image {
        let constant = self.ln_det_preconditioner();
        self.map_tiles((parameters, self.all_couplings()), z, |flow, space| {
            let log_det = flow.forward(&mut space.field, &mut space.record);
            self.apply_preconditioner(&self.root, &mut space.field, &mut space.scratch);
            log_det.map(|value| value + constant)
        })
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: ArrayView2<f64>) -> Image {
        let constant = self.ln_det_preconditioner();
        self.map_tiles((parameters, self.all_couplings()), x, |flow, space| {
            self.apply_preconditioner(&self.inverse_root, &mut space.field, &mut space.scratch);
            let log_det = flow.inverse(&mut space.field, &mut space.record);
            log_det.map(|value| value - constant)
        })
    }

    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image {
        self.map_tiles((parameters, couplings), z, |flow, space| {
            flow.forward(&mut space.field, &mut space.record)
        })
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        self.map_tiles((parameters, couplings), y, |flow, space| {
            flow.inverse(&mut space.field, &mut space.record)
        })
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: ArrayView2<f64>,
        latents: &[usize],
    ) -> Array3<f64> {
        let tiles = self.per_tile((parameters, self.all_couplings()), x, |flow, space| {
            let Workspace { panels, field, image, record, cotangent, scratch, .. } = space;
            self.apply_preconditioner(&self.inverse_root, field, scratch);
            flow.inverse(field, record);
            image.copy_from_slice(field);
            let derivative = |&site: &usize| {
                field.copy_from_slice(image);
                cotangent.fill(Lanes::ZERO);
                cotangent[site] = Lanes::ONE;
                flow.pull_back_inverse(panels, field, record, cotangent, &Lanes::ZERO, None);
                self.apply_preconditioner(&self.inverse_root, cotangent, scratch);
                cotangent.clone()
            };
            latents.iter().map(derivative).collect::<Vec<_>>()
        });
        let mut derivatives = Array3::zeros((latents.len(), x.nrows(), self.sites));
        for (index, mut derivative) in derivatives.outer_iter_mut().enumerate() {
            derivative.assign(&unload(tiles.iter().map(|tile| &tile[index][..]), x.dim()));
        }
        derivatives
    }
}

impl<T: Real> Workspace<T> {
    fn new(flow: &Flow<'_, T>, sites: usize) -> Self {
        let field = || vec![Lanes::ZERO; sites];
        Self {
            panels: Panels::new(flow.couplings, flow.layouts),
            field: field(),
            image: field(),
            mirror: field(),
            cotangent: field(),
            score: field(),
            scratch: field(),
            record: Record::new(flow),
            mirror_record: Record::new(flow),
        }
    }
}

/// After an inverse pass: with ln q(y) = ln p(z) + log_det and ∂ ln p/∂z = -z, leaves coefficient × ∂ ln q/∂y
/// in `cotangent` and adds that of the parameters to `gradient`; `latent` goes from z back to y. With coefficients
/// of zero no pass is made.
fn pull_back_ln_q<T: Real>(
    flow: &Flow<'_, T>,
    panels: &mut Panels<T>,
    latent: &mut [Lanes<T>],
    record: &mut Record<T>,
    cotangent: &mut [Lanes<T>],
    coefficient: &Lanes<T>,
    gradient: Option<&mut [f64]>,
) {
    cotangent.fill(Lanes::ZERO);
    if coefficient.0.iter().all(|&value| value == T::ZERO) {
        return;
    }
    add_product(cotangent, &Lanes(coefficient.0.map(|value| -value)), latent);
    flow.pull_back_inverse(panels, latent, record, cotangent, coefficient, gradient);
}

/// Sum over the parts by halves: the order of the additions depends on nothing else.
fn sum_parts(parts: Range<usize>, part: &(dyn Fn(usize) -> Part + Sync)) -> Part {
    if parts.len() <= 1 {
        return part(parts.start);
    }
    let middle = parts.start + parts.len() / 2;
    let (first, second) =
        rayon::join(|| sum_parts(parts.start..middle, part), || sum_parts(middle..parts.end, part));
    first.join(second)
}

/// Samples of a tile from (batch, site) to (site, lane); lanes without a sample are zero.
fn load<T: Real>(batch: ArrayView2<f64>, tile: usize, field: &mut [Lanes<T>]) {
    let samples = tile * LANES..batch.nrows().min((tile + 1) * LANES);
    if samples.len() < LANES {
        field.fill(Lanes::ZERO);
    }
    for (lane, sample) in samples.enumerate() {
        for (lanes, &value) in field.iter_mut().zip(batch.row(sample)) {
            lanes.0[lane] = T::of(value);
        }
    }
}

/// Tiles as (batch, site), without the lanes that have no sample.
fn unload<'a, T: Real>(
    tiles: impl Iterator<Item = &'a [Lanes<T>]>,
    shape: (usize, usize),
) -> Array2<f64> {
    let mut samples = Vec::with_capacity(shape.0 * shape.1);
    for (tile, field) in tiles.enumerate() {
        for lane in 0..LANES.min(shape.0 - tile * LANES) {
            samples.extend(field.iter().map(|lanes| lanes.0[lane].to_f64()));
        }
    }
    Array2::from_shape_vec(shape, samples).expect("one value for each sample and site")
}

/// One number of each sample.
fn numbers<'a>(tiles: impl Iterator<Item = &'a Sums>, batch: usize) -> Array1<f64> {
    tiles.flatten().copied().take(batch).collect()
}

fn add(mut a: Sums, b: Sums) -> Sums {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

fn negate<T: Real>(field: &[Lanes<T>], out: &mut [Lanes<T>]) {
    for (out, lanes) in out.iter_mut().zip(field) {
        *out = Lanes(lanes.0.map(|value| -value));
    }
}

fn subtract<T: Real>(field: &mut [Lanes<T>], other: &[Lanes<T>]) {
    for (lanes, other) in field.iter_mut().zip(other) {
        lanes.0.iter_mut().zip(other.0).for_each(|(value, other)| *value = *value - other);
    }
}

/// `field` += `factor` × `other`, with one factor per lane; zero factors give zero.
fn add_product<T: Real>(field: &mut [Lanes<T>], factor: &Lanes<T>, other: &[Lanes<T>]) {
    for (lanes, other) in field.iter_mut().zip(other) {
        for ((value, factor), other) in lanes.0.iter_mut().zip(factor.0).zip(other.0) {
            if factor != T::ZERO {
                *value += factor * other;
            }
        }
    }
}
