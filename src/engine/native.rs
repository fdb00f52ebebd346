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
//! | `energy` | ln q - ln π of the flow's samples and its derivatives |
//! | `likelihood` | ln q of given fields and its gradient |
//! | `tile` | a batch in tiles |

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array3, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::{Batch, Draw, Engine, Image, Loss, Potential};
use crate::engine::config::{Estimator, Precision};
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Coupling;
use crate::targets::Target;
use crate::targets::density::SitePotential;

mod convolution;
mod density;
mod energy;
mod kernels;
mod lanes;
mod likelihood;
mod network;
mod passes;
mod spectral;
mod tile;
mod transform;

use density::Sums;
use energy::{Coefficients, Wanted};
use lanes::{LANES, Lanes};
use network::layout::Layout;
use network::panels::Panels;
use passes::{Flow, Record};
use spectral::{Multipliers, Spectral};
use tile::{Part, Tile, add_product, numbers, sum_parts, tiles, unload};

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
    /// κ; empty with the Gaussian layer.
    spectrum: Multipliers<T>,
    layer: Option<GaussianLayer<T>>,
    site: SitePotential,
}

/// The Gaussian layer x = κ^(-1/2) y at one temperature.
#[derive(Debug)]
struct GaussianLayer<T> {
    /// κ^(-1/2) and κ^(1/2).
    scales: Multipliers<T>,
    inverse_scales: Multipliers<T>,
    /// ln|det ∂x/∂y|.
    log_det: f64,
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

/// The engine in a precision.
pub fn in_precision(
    precision: Precision,
    architecture: &Architecture,
    couplings: &Arc<[Coupling]>,
    target: Option<&Target>,
    threads: usize,
) -> Box<dyn Engine> {
    match precision {
        Precision::F32 => Box::new(Native::<f32>::new(architecture, couplings, target, threads)),
        Precision::F64 => Box::new(Native::<f64>::new(architecture, couplings, target, threads)),
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
        let key = temperature.to_bits();
        let mut known = self.known.lock().expect("no thread panics with the lock");
        if let Some(at) = known.get(&key) {
            return Some(at.clone());
        }
        let density = target.density(temperature);
        let power = |power: f64| self.spectral.multipliers(&density.spectrum_to(power));
        let at = Arc::new(AtTemperature {
            // With the layer the quadratic form is ½ |y|².
            spectrum: if self.preconditioner { Vec::new() } else { power(1.0) },
            layer: self.preconditioner.then(|| GaussianLayer {
                scales: power(-0.5),
                inverse_scales: power(0.5),
                log_det: density.layer_log_det(),
            }),
            site: density.site,
        });
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, at.clone());
        Some(at)
    }

    /// The batch in tiles, each with the target at its temperature.
    fn tiles(&self, batch: Batch) -> Vec<Tile<T>> {
        assert_eq!(batch.dim().1, self.sites, "a batch is (batch, N)");
        tiles(batch, |temperature| self.at(temperature))
    }

    /// Losses of a batch from those of its tiles, whose gradients are added in a fixed order.
    fn loss_by_tiles(
        &self,
        parameters: ArrayView1<f64>,
        batch: Batch,
        of_tiles: &(impl Fn(&Flow<'_, T>, &[Tile<T>]) -> Part + Sync),
    ) -> Loss {
        let tiles = self.tiles(batch);
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
        (batch, tiles): (Batch, &[Tile<T>]),
        work: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> R + Sync + Send,
    ) -> Vec<(Range<usize>, R)> {
        self.with_flow(parameters, through, |flow| {
            let of_tile = |tile: &Tile<T>| {
                self.with_workspace(flow, |space| {
                    self.load(batch, tile, space);
                    (tile.samples.clone(), work(flow, space))
                })
            };
            tiles.par_iter().map(of_tile).collect()
        })
    }

    /// Samples of a tile from (batch, site) to (site, lane); lanes without a sample are zero.
    fn load(&self, batch: Batch, tile: &Tile<T>, space: &mut Workspace<T>) {
        space.at.clone_from(&tile.at);
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
        (batch, tiles): (Batch, &[Tile<T>]),
        map: impl Fn(&Flow<'_, T>, &mut Workspace<T>) -> Sums + Sync + Send,
    ) -> Image {
        let tiles = self.per_tile(flow, (batch, tiles), |flow, space| {
            let log_det = map(flow, space);
            (space.field.clone(), log_det)
        });
        Image {
            log_det: numbers(&tiles, |(_, log_det)| log_det),
            field: unload(&tiles, batch.dim(), |(field, _)| field),
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
        let tiles = self.per_tile(
            (parameters, self.all_couplings()),
            (x, &self.tiles(x)),
            |flow, space| {
                let [ln_q, ln_q_mirror] = self.invert(flow, space);
                self.symmetrized(&ln_q, &ln_q_mirror)
            },
        );
        numbers(&tiles, |ln_q| ln_q)
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw {
        let wanted = Wanted {
            ln_q_mirror: self.symmetry == Symmetry::Mixture,
            cotangent: false,
            score: false,
        };
        let tiles = self.per_tile(
            (parameters, self.all_couplings()),
            (z, &self.tiles(z)),
            |flow, space| {
                let densities = self.evaluate(flow, space, wanted);
                let ln_q = self.symmetrized(&densities.ln_q, &densities.ln_q_mirror);
                (space.image.clone(), ln_q, densities.ln_pi)
            },
        );
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
        let tiles = self.per_tile(
            (parameters, self.all_couplings()),
            (z, &self.tiles(z)),
            |flow, space| {
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
            },
        );
        Potential {
            energy: numbers(&tiles, |(energy, ..)| energy),
            gradient: unload(&tiles, z.dim(), |(_, gradient, _)| gradient),
            field: unload(&tiles, z.dim(), |(.., field)| field),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image {
        self.map_tiles((parameters, self.all_couplings()), (z, &self.tiles(z)), |flow, space| {
            let log_det = flow.forward(&mut space.field, &mut space.record);
            let Workspace { at, field, scratch, .. } = space;
            let Some(layer) = layer(at) else { return log_det };
            self.spectral.apply(&layer.scales, field, scratch);
            log_det.map(|value| value + layer.log_det)
        })
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image {
        self.map_tiles((parameters, self.all_couplings()), (x, &self.tiles(x)), |flow, space| {
            let Workspace { at, field, record, scratch, .. } = space;
            let constant = self.undo_layer(at, field, scratch);
            flow.inverse(field, record).map(|value| value - constant)
        })
    }

    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image {
        let batch = Batch::uniform(z, &f64::NAN);
        let tiles = tiles(batch, |_| None);
        self.map_tiles((parameters, couplings), (batch, &tiles), |flow, space| {
            flow.forward(&mut space.field, &mut space.record)
        })
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        let batch = Batch::uniform(y, &f64::NAN);
        let tiles = tiles(batch, |_| None);
        self.map_tiles((parameters, couplings), (batch, &tiles), |flow, space| {
            flow.inverse(&mut space.field, &mut space.record)
        })
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64> {
        let tiles = self.per_tile(
            (parameters, self.all_couplings()),
            (x, &self.tiles(x)),
            |flow, space| {
                let Workspace { at, panels, field, image, record, cotangent, scratch, .. } = space;
                self.undo_layer(at, field, scratch);
                flow.inverse(field, record);
                image.copy_from_slice(field);
                let derivative = |&site: &usize| {
                    field.copy_from_slice(image);
                    cotangent.fill(Lanes::ZERO);
                    cotangent[site] = Lanes::ONE;
                    flow.pull_back_inverse(panels, field, record, cotangent, &Lanes::ZERO, None);
                    self.undo_layer(at, cotangent, scratch);
                    cotangent.clone()
                };
                latents.iter().map(derivative).collect::<Vec<_>>()
            },
        );
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
}

/// The Gaussian layer, if there is one.
fn layer<T>(at: &Option<Arc<AtTemperature<T>>>) -> Option<&GaussianLayer<T>> {
    at.as_deref()?.layer.as_ref()
}
