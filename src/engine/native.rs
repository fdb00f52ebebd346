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
//! | `spectral` | functions of the target's spectrum |
//! | `density` | sums over a tile's sites |
//! | `likelihood` | ln q of given fields and its gradient |

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::{Batch, Draw, Engine, Image, Loss, Potential};
use crate::engine::config::Estimator;
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Coupling;
use crate::flow::symmetry::ln_mean_exp;
use crate::targets::Target;
use crate::targets::density::SitePotential;

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
/// Temperatures that are remembered.
const MAX_KNOWN: usize = 256;

/// The flow z → x and its densities, on a pool of threads of its own.
#[derive(Debug)]
pub struct Native<T> {
    couplings: Arc<[Coupling]>,
    layouts: Vec<Layout>,
    /// N.
    sites: usize,
    spectral: Spectral<T>,
    target: Option<Target>,
    /// The target at the temperatures that were asked for.
    known: Mutex<HashMap<u64, Arc<AtTemperature<T>>>>,
    preconditioner: bool,
    symmetry: Symmetry,
    pool: rayon::ThreadPool,
    /// Workspaces that no call is using.
    spaces: Mutex<Vec<Workspace<T>>>,
}

/// The target at one temperature.
#[derive(Debug)]
struct AtTemperature<T> {
    /// κ, and the κ^(-1/2) and κ^(1/2) of the Gaussian layer and its inverse.
    spectrum: Multipliers<T>,
    root: Multipliers<T>,
    inverse_root: Multipliers<T>,
    /// -½ Σ ln κ, ln|det| of the Gaussian layer.
    log_det: f64,
    site: SitePotential,
}

/// Samples of one temperature that are worked on together, one in each lane.
#[derive(Debug, Clone)]
struct Tile {
    samples: Range<usize>,
    temperature: f64,
}

/// What one tile is worked on with.
#[derive(Debug)]
struct Workspace<T> {
    /// None without a target.
    at: Option<Arc<AtTemperature<T>>>,
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
    /// The flow of `couplings`, which are those of `architecture`, with its target, if there is one.
    ///
    /// # Panics
    /// If the threads cannot be started.
    pub fn new(
        architecture: &Architecture,
        couplings: &Arc<[Coupling]>,
        target: Option<&Target>,
        threads: usize,
    ) -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Self {
            layouts: couplings
                .iter()
                .map(|coupling| Layout::new(coupling, size_of::<T>()))
                .collect(),
            couplings: couplings.clone(),
            sites: architecture.sites(),
            spectral: Spectral::new(architecture.linear_size),
            target: target.cloned(),
            known: Mutex::default(),
            preconditioner: architecture.config.preconditioner,
            symmetry: architecture.config.symmetry,
            pool: pool.expect("the threads of the flow start"),
            spaces: Mutex::default(),
        }
    }

    /// The target at a temperature, if there is one.
    fn at(&self, temperature: f64) -> Option<Arc<AtTemperature<T>>> {
        let target = self.target.as_ref()?;
        let mut known = self.known.lock().expect("no thread panics with the lock");
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let make = || {
            let density = target.density(temperature);
            let power = |power: f64| self.spectral.multipliers(&density.spectrum_to(power));
            Arc::new(AtTemperature {
                spectrum: power(1.0),
                root: power(-0.5),
                inverse_root: power(0.5),
                log_det: -0.5 * density.spectrum.iter().map(|kappa| kappa.ln()).sum::<f64>(),
                site: density.site,
            })
        };
        Some(known.entry(temperature.to_bits()).or_insert_with(make).clone())
    }

    /// Losses of a batch from those of its tiles, whose gradients are added in a fixed order.
    fn loss_by_tiles(
        &self,
        parameters: ArrayView1<f64>,
        batch: Batch,
        of_tiles: &(dyn Fn(&Flow<'_, T>, &[Tile]) -> Part + Sync),
    ) -> Loss {
        let tiles = tiles(batch);
        let part = self.with_flow(parameters, self.all_couplings(), |flow| {
            let tiles_per_part = tiles.len().div_ceil(MAX_PARTS).max(1);
            sum_parts(0..tiles.len().div_ceil(tiles_per_part).max(1), &|part| {
                let first = part * tiles_per_part;
                of_tiles(flow, &tiles[first..tiles.len().min(first + tiles_per_part)])
            })
        });
        let scale = 1.0 / batch.len().max(1) as f64;
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
        batch: Batch,
        work: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> R + Sync + Send,
    ) -> Vec<(Range<usize>, R)> {
        assert_eq!(batch.dim().1, self.sites, "a batch is (batch, N)");
        let tiles = tiles(batch);
        self.with_flow(parameters, through, |flow| {
            let of_tile = |tile: &Tile| {
                self.with_workspace(flow, |space| {
                    self.load(batch, tile, space);
                    (tile.samples.clone(), work(flow, space))
                })
            };
            tiles.par_iter().map(of_tile).collect()
        })
    }

    /// Samples of a tile from (batch, site) to (site, lane); lanes without a sample are zero.
    fn load(&self, batch: Batch, tile: &Tile, space: &mut Workspace<T>) {
        space.at = self.at(tile.temperature);
        let field = &mut space.field;
        if tile.samples.len() < LANES {
            field.fill(Lanes::ZERO);
        }
        for (lane, values) in batch.values(tile.samples.clone()).rows().into_iter().enumerate() {
            for (lanes, &value) in field.iter_mut().zip(values) {
                lanes.0[lane] = T::of(value);
            }
        }
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
        batch: Batch,
        map: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> Sums + Sync + Send,
    ) -> Image {
        let tiles = self.per_tile(flow, batch, |flow, space| {
            let log_det = map(flow, space);
            (space.field.clone(), log_det)
        });
        Image {
            log_det: numbers(&tiles, |(_, log_det)| log_det),
            field: unload(&tiles, batch.dim(), |(field, _)| field),
        }
    }

    fn loss_of_tiles(
        &self,
        flow: &Flow<'_, T>,
        z: Batch,
        tiles: &[Tile],
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
                self.load(z, tile, space);
                let densities = self.evaluate(flow, space, wanted);
                let samples = tile.samples.len();
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
        let constant = self.log_det_preconditioner(space);
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

    /// ln π(x) = -½ Σ_k κ_k |x_k|²/N - Σ V(x_i), and x in `space.image`; with `derivative`, -∂ ln π/∂y in
    /// `space.cotangent`. NaN without a target.
    fn target(&self, space: &mut Workspace<T>, derivative: bool) -> Sums {
        let Workspace { at, field, image, cotangent, scratch, .. } = space;
        image.copy_from_slice(field);
        let Some(at) = at.as_deref() else { return [f64::NAN; LANES] };
        self.apply_preconditioner(&at.root, image, scratch);
        // The quadratic form's derivative by y, where y = x or, preconditioned, y = κ^(1/2) x.
        let force = &mut *cotangent;
        force.copy_from_slice(field);
        if !self.preconditioner {
            self.spectral.apply(&at.spectrum, force, scratch);
        }
        let quadratic = dot(field, force);
        let site = match at.site {
            SitePotential::LnCosh => sum_ln_cosh(image).map(|sum| -sum),
        };
        if derivative {
            // `score` is in use: -∂V/∂x goes to `mirror`, which is written only later.
            let slope = &mut space.mirror;
            match at.site {
                SitePotential::LnCosh => tanh(image, slope),
            }
            self.apply_preconditioner(&at.root, slope, scratch);
            subtract(force, slope);
        }
        std::array::from_fn(|lane| -0.5 * quadratic[lane] - site[lane])
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

    /// ln|det| of the Gaussian layer, if there is one, else 0.
    fn log_det_preconditioner(&self, space: &Workspace<T>) -> f64 {
        if self.preconditioner { space.gaussian().log_det } else { 0.0 }
    }

    /// A power of κ with the Gaussian layer, else nothing.
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
        z: Batch,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        self.loss_by_tiles(parameters, z, &|flow, tiles| {
            self.loss_of_tiles(flow, z, tiles, symmetry_weight, estimator)
        })
    }

    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: Batch) -> Loss {
        let loss = self
            .loss_by_tiles(parameters, x, &|flow, tiles| self.likelihood_of_tiles(flow, x, tiles));
        Loss { asymmetry: None, ..loss }
    }

    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: Batch) -> Array1<f64> {
        let tiles = self.per_tile((parameters, self.all_couplings()), x, |flow, space| {
            let [ln_q, ln_q_mirror] = self.invert(flow, space);
            self.symmetrized(&ln_q, &ln_q_mirror)
        });
        numbers(&tiles, |ln_q| ln_q)
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw {
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
            field: unload(&tiles, z.dim(), |(field, ..)| field),
            ln_q: numbers(&tiles, |(_, ln_q, _)| ln_q),
            ln_pi: numbers(&tiles, |(.., ln_pi)| ln_pi),
        }
    }

    fn potential(&self, parameters: ArrayView1<f64>, z: Batch) -> Potential {
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
            energy: numbers(&tiles, |(energy, ..)| energy),
            gradient: unload(&tiles, z.dim(), |(_, gradient, _)| gradient),
            field: unload(&tiles, z.dim(), |(.., field)| field),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image {
        self.map_tiles((parameters, self.all_couplings()), z, |flow, space| {
            let constant = self.log_det_preconditioner(space);
            let log_det = flow.forward(&mut space.field, &mut space.record);
            if let Some(at) = space.at.as_deref() {
                self.apply_preconditioner(&at.root, &mut space.field, &mut space.scratch);
            }
            log_det.map(|value| value + constant)
        })
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image {
        self.map_tiles((parameters, self.all_couplings()), x, |flow, space| {
            let constant = self.log_det_preconditioner(space);
            if let Some(at) = space.at.as_deref() {
                self.apply_preconditioner(&at.inverse_root, &mut space.field, &mut space.scratch);
            }
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
        self.map_tiles((parameters, couplings), Batch::uniform(z, &f64::NAN), |flow, space| {
            flow.forward(&mut space.field, &mut space.record)
        })
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        self.map_tiles((parameters, couplings), Batch::uniform(y, &f64::NAN), |flow, space| {
            flow.inverse(&mut space.field, &mut space.record)
        })
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64> {
        let tiles = self.per_tile((parameters, self.all_couplings()), x, |flow, space| {
            let Workspace { at, panels, field, image, record, cotangent, scratch, .. } = space;
            let divide = |field: &mut [Lanes<T>], scratch: &mut [Lanes<T>]| {
                if let Some(at) = at.as_deref() {
                    self.apply_preconditioner(&at.inverse_root, field, scratch);
                }
            };
            divide(field, scratch);
            flow.inverse(field, record);
            image.copy_from_slice(field);
            let derivative = |&site: &usize| {
                field.copy_from_slice(image);
                cotangent.fill(Lanes::ZERO);
                cotangent[site] = Lanes::ONE;
                flow.pull_back_inverse(panels, field, record, cotangent, &Lanes::ZERO, None);
                divide(cotangent, scratch);
                cotangent.clone()
            };
            latents.iter().map(derivative).collect::<Vec<_>>()
        });
        let mut derivatives = Array3::zeros((latents.len(), x.len(), self.sites));
        for (index, mut derivative) in derivatives.outer_iter_mut().enumerate() {
            derivative.assign(&unload(&tiles, x.dim(), |tile| &tile[index]));
        }
        derivatives
    }
}

impl<T: Real> Workspace<T> {
    fn new(flow: &Flow<'_, T>, sites: usize) -> Self {
        let field = || vec![Lanes::ZERO; sites];
        Self {
            at: None,
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

    /// What the Gaussian layer is made of.
    fn gaussian(&self) -> &AtTemperature<T> {
        self.at.as_deref().expect("configurations have a Gaussian layer only with a target")
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

/// A batch in tiles: runs of equal temperatures, cut after each [`LANES`] samples.
fn tiles(batch: Batch) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::with_capacity(batch.len().div_ceil(LANES));
    for (sample, &temperature) in batch.temperatures().iter().enumerate() {
        match tiles.last_mut() {
            Some(tile)
                if tile.samples.len() < LANES
                    && tile.temperature.to_bits() == temperature.to_bits() =>
            {
                tile.samples.end = sample + 1;
            }
            _ => tiles.push(Tile { samples: sample..sample + 1, temperature }),
        }
    }
    tiles
}

/// A field of each tile as (batch, site), without the lanes that have no sample.
fn unload<T: Real, R>(
    tiles: &[(Range<usize>, R)],
    shape: (usize, usize),
    field: impl Fn(&R) -> &Vec<Lanes<T>>,
) -> Array2<f64> {
    let mut values = Vec::with_capacity(shape.0 * shape.1);
    for (samples, result) in tiles {
        for lane in 0..samples.len() {
            values.extend(field(result).iter().map(|lanes| lanes.0[lane].to_f64()));
        }
    }
    Array2::from_shape_vec(shape, values).expect("one value for each sample and site")
}

/// One number of each sample.
fn numbers<R>(tiles: &[(Range<usize>, R)], sums: impl Fn(&R) -> &Sums) -> Array1<f64> {
    tiles.iter().flat_map(|(samples, result)| &sums(result)[..samples.len()]).copied().collect()
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
