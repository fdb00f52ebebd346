//! The flow on GPUs: one kernel for each evaluation, in which a block keeps the fields of a tile of samples in its shared memory
//! through all couplings.
//!
//! The kernels' text (`kernels/`) is part of the program and is compiled for the sizes of a flow when they are needed. It is made of
//! phases between which the threads of a block wait for each other, so that tests run the same text on the host.
//!
//! | file | what |
//! |---|---|
//! | `tables` | couplings as tables of numbers, and the order of weights |
//! | `program` | the text for one flow, and where a block keeps what |
//! | `processor` | what runs kernels |
//! | `gpu` | a GPU, by its driver, found at run time |
//! | `compiler` | NVRTC, found at run time, and the folder of compiled kernels |
//! | `host` | the same text on the host, in tests |
//! | `kernels` | the text |

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2};

use super::{Batch, Draw, Engine, Image, Loss, Potential, fourier};
use crate::engine::config::{Estimator, Precision};
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Coupling;
use crate::flow::symmetry::ln_mean_exp;
use crate::targets::Target;
use crate::targets::density::SitePotential;

mod compiler;
mod gpu;
#[cfg(test)]
mod host;
mod processor;
mod program;
mod tables;
#[cfg(test)]
mod tests;

pub use gpu::{Gpu, Rates, count};
use processor::{Arguments, Processor};
use program::{Case, Kernel, Program, narrow};
use tables::Tables;

/// Temperatures whose spectra are kept.
const MOST_KNOWN: usize = 256;
/// Numbers of `Sums` of the kernels.
const SUMS: usize = 6;

/// The flow z → x and its densities on a processor.
#[derive(Debug)]
pub struct Cuda<P: Processor> {
    processor: P,
    /// With 1, 2, 4, … samples in a block, loaded when a batch wants them.
    programs: Vec<(Program, OnceLock<P::Loaded>)>,
    tables: Tables,
    precision: Precision,
    sites: usize,
    couplings: usize,
    preconditioner: bool,
    symmetry: Symmetry,
    target: Option<Target>,
    fixed: Fixed<P>,
    state: Mutex<State<P>>,
}

/// What is written once.
#[derive(Debug)]
struct Fixed<P: Processor> {
    couplings: P::Memory,
    shells: P::Memory,
    sites: P::Memory,
    seers: P::Memory,
    basis: P::Memory,
    transposed_basis: P::Memory,
}

/// What calls use one after the other.
#[derive(Debug)]
struct State<P: Processor> {
    known: Known,
    /// Those that `weights` holds.
    parameters: Array1<f64>,
    weights: Room<P>,
    spectra: Room<P>,
    tiles: Room<P>,
    given: Room<P>,
    latents: Room<P>,
    own: Room<P>,
    sums: Room<P>,
    field: Room<P>,
    derivative: Room<P>,
    gradient: Room<P>,
}

/// Memory that grows where more is asked for.
#[derive(Debug)]
struct Room<P: Processor> {
    memory: Option<P::Memory>,
    bytes: usize,
}

impl<P: Processor> Default for Room<P> {
    fn default() -> Self {
        Self { memory: None, bytes: 0 }
    }
}

impl<P: Processor> Room<P> {
    /// The address of at least so many bytes.
    fn of(&mut self, processor: &P, bytes: usize) -> u64 {
        if bytes > self.bytes || self.memory.is_none() {
            // The old one first: both might not fit.
            self.memory = None;
            self.memory = Some(processor.allocate(bytes.max(1)));
            self.bytes = bytes;
        }
        self.memory.as_ref().map_or(0, P::address)
    }

    fn write(&mut self, processor: &P, bytes: &[u8]) -> u64 {
        let address = self.of(processor, bytes.len());
        if let Some(memory) = &mut self.memory {
            processor.write(bytes, memory);
        }
        address
    }

    fn read(&self, processor: &P, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        let memory = self.memory.as_ref().expect("what is read was written by a kernel");
        processor.read(memory, &mut read);
        read
    }
}

/// The target at the temperatures that were asked for.
#[derive(Debug, Default)]
struct Known {
    places: HashMap<u64, usize>,
    /// κ, κ^(-1/2) and κ^(1/2) of each.
    spectra: Vec<f64>,
    /// ln|det ∂x/∂y| of the Gaussian layer at each.
    log_dets: Vec<f64>,
    /// Whether the processor has them all.
    written: bool,
}

/// What a kernel leaves.
struct Results {
    /// (batch, 6).
    sums: Array2<f64>,
    /// ln|det ∂x/∂y| of the Gaussian layer of each sample.
    layer: Array1<f64>,
}

/// What a call gives and wants.
#[derive(Default)]
struct Call<'a> {
    through: Option<Range<usize>>,
    symmetry_weight: f64,
    latents: &'a [usize],
    /// Whether the target's spectra are needed.
    densities: bool,
    gradient: bool,
}

impl<P: Processor> Cuda<P> {
    /// The flow of `couplings`, which are those of `architecture`, with its target, if there is one.
    ///
    /// # Errors
    /// What these kernels lack for it, in words.
    pub fn new(
        architecture: &Architecture,
        couplings: &[Coupling],
        target: Option<&Target>,
        precision: Precision,
        processor: P,
    ) -> Result<Self, String> {
        if let Some(lack) = program::lack(couplings) {
            return Err(lack);
        }
        let tables = Tables::new(couplings);
        let shared_limit = processor.shared_limit();
        let case =
            Case { architecture, couplings, target: target.is_some(), precision, shared_limit };
        let programs: Vec<_> = program::lanes(architecture.sites())
            .map_while(|lanes| Some((Program::new(&case, &tables, lanes).ok()?, OnceLock::new())))
            .collect();
        if programs.is_empty() {
            return Err(Program::new(&case, &tables, 1).expect_err("there is no program"));
        }
        let fixed = Fixed::new(&processor, &tables, architecture.linear_size, precision);
        Ok(Self {
            processor,
            programs,
            tables,
            precision,
            sites: architecture.sites(),
            couplings: couplings.len(),
            preconditioner: architecture.config.preconditioner,
            symmetry: architecture.config.symmetry,
            target: target.cloned(),
            fixed,
            state: Mutex::new(State::default()),
        })
    }

    fn bytes(&self) -> usize {
        bytes_of(self.precision)
    }

    /// The program with the fewest samples in a block with which all blocks of a batch run side by side, or that with the most.
    fn program(&self, batch: usize) -> (&Program, &P::Loaded) {
        let blocks = self.processor.multiprocessors();
        let fits = |(program, _): &&(Program, _)| batch.div_ceil(program.lanes) <= blocks;
        let (program, loaded) =
            self.programs.iter().find(fits).or(self.programs.last()).expect("there is a program");
        (program, loaded.get_or_init(|| self.processor.load(program)))
    }

    /// Runs a kernel on a batch; what it leaves in memory besides sums is the caller's to read.
    fn run(
        &self,
        state: &mut State<P>,
        kernel: Kernel,
        parameters: ArrayView1<f64>,
        batch: Batch,
        call: &Call<'_>,
    ) -> Results {
        assert_eq!(batch.dim().1, self.sites, "a batch is (batch, N)");
        let processor = &self.processor;
        let (program, loaded) = self.program(batch.len());
        // Not while a call takes its temperatures.
        if state.known.places.len() >= MOST_KNOWN {
            state.known = Known::default();
        }
        let mut layer = Array1::zeros(batch.len());
        let mut tiles = Vec::new();
        for (samples, temperature) in batch.tiles(program.lanes) {
            let slot = match (&self.target, call.densities) {
                (Some(target), true) => state.known.slot(target, temperature),
                _ => 0,
            };
            if self.preconditioner && self.target.is_some() && call.densities {
                layer.slice_mut(ndarray::s![samples.clone()]).fill(state.known.log_dets[slot]);
            }
            tiles.extend([samples.start, samples.len(), slot].map(|number| number as i32));
        }
        if !state.known.written {
            let spectra = converted(&state.known.spectra, self.precision);
            state.spectra.write(processor, &spectra);
            state.known.written = true;
        }
        let tile_count = tiles.len() / 3;
        let blocks = tile_count.clamp(1, processor.most_blocks());
        let outputs = batch.len() * self.sites * self.bytes();
        let through = call.through.clone().unwrap_or(0..self.couplings);
        let (given, key, first_sample) = match batch.to_draw() {
            Some((random, first)) => (0, random.key(), first as u64),
            None => {
                let values = batch.values(0..batch.len());
                (state.given.write(processor, &converted(values.iter(), self.precision)), 0, 0)
            }
        };
        let latents: Vec<i32> = call.latents.iter().map(|&site| site as i32).collect();
        let arguments = Arguments {
            couplings: P::address(&self.fixed.couplings),
            shells: P::address(&self.fixed.shells),
            sites: P::address(&self.fixed.sites),
            seers: P::address(&self.fixed.seers),
            weights: self.write_weights(state, parameters),
            basis: P::address(&self.fixed.basis),
            transposed_basis: P::address(&self.fixed.transposed_basis),
            spectra: state.spectra.of(processor, 0),
            tiles: state.tiles.write(processor, &integers(tiles)),
            tile_count: tile_count as u64,
            given,
            key,
            first_sample,
            begin: through.start as u64,
            end: through.end as u64,
            symmetry_weight: call.symmetry_weight,
            latents: state.latents.write(processor, &integers(latents)),
            latent_count: call.latents.len() as u64,
            own: state.own.of(processor, blocks * program.own_bytes),
            sums: state.sums.of(processor, batch.len() * SUMS * 8),
            field: state.field.of(processor, outputs),
            derivative: state.derivative.of(processor, outputs * call.latents.len().max(1)),
            batch: batch.len() as u64,
            gradient: match call.gradient {
                true => state.gradient.of(processor, blocks * self.tables.weight_count * 8),
                false => 0,
            },
        };
        processor.launch(loaded, kernel, blocks, &arguments);
        if call.gradient {
            let arguments = Arguments { tile_count: blocks as u64, ..arguments };
            let blocks = self.tables.weight_count.div_ceil(program.threads);
            processor.launch(loaded, Kernel::SumGradients, blocks, &arguments);
        }
        let sums = numbers(&state.sums.read(processor, batch.len() * SUMS * 8), Precision::F64);
        let sums = Array2::from_shape_vec((batch.len(), SUMS), sums).expect("six sums a sample");
        Results { sums, layer }
    }

    /// The address of the parameters in the order of the kernels, written where they are not those of the last call.
    fn write_weights(&self, state: &mut State<P>, parameters: ArrayView1<f64>) -> u64 {
        if state.parameters != parameters {
            let mut packed = vec![0.0; self.tables.weight_count];
            for (&place, &parameter) in self.tables.packed.iter().zip(parameters) {
                packed[place] = parameter;
            }
            // None, should the copy fail.
            state.parameters = Array1::zeros(0);
            state.weights.write(&self.processor, &converted(&packed, self.precision));
            state.parameters = parameters.to_owned();
        }
        state.weights.of(&self.processor, 0)
    }

    /// The sums over samples of what a kernel has left, in the order of the parameters, times `scale`.
    fn gradient(&self, state: &State<P>, scale: f64) -> Array1<f64> {
        let bytes = state.gradient.read(&self.processor, self.tables.weight_count * 8);
        let packed = numbers(&bytes, Precision::F64);
        self.tables.packed.iter().map(|&place| packed[place] * scale).collect()
    }

    /// Fields that a kernel has left.
    fn fields(&self, room: &Room<P>, batch: usize) -> Array2<f64> {
        let bytes = room.read(&self.processor, batch * self.sites * self.bytes());
        let values = numbers(&bytes, self.precision);
        Array2::from_shape_vec((batch, self.sites), values).expect("one value a sample and site")
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // A GPU that failed was a panic; what is written anew for each call does not mind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// -N/2 ln 2π.
    fn ln_norm(&self) -> f64 {
        -0.5 * self.sites as f64 * std::f64::consts::TAU.ln()
    }

    fn image(
        &self,
        kernel: Kernel,
        parameters: ArrayView1<f64>,
        batch: Batch,
        call: &Call<'_>,
        sign: f64,
    ) -> Image {
        let mut state = self.lock();
        let results = self.run(&mut state, kernel, parameters, batch, call);
        Image {
            field: self.fields(&state.field, batch.len()),
            log_det: &results.sums.column(1) + &(results.layer * sign),
        }
    }
}

/// Densities of a batch from its sums.
struct Densities {
    ln_p: Array1<f64>,
    /// ln q(x) and ln q(-x) of the flow, and that of the model.
    ln_q: Array1<f64>,
    ln_q_mirror: Array1<f64>,
    ln_q_model: Array1<f64>,
    ln_pi: Array1<f64>,
}

impl<P: Processor> Cuda<P> {
    /// Of samples whose latents were given (`sign` = -1), or of given fields (1).
    fn densities(&self, results: &Results, sign: f64) -> Densities {
        let column = |index: usize| results.sums.column(index);
        let ln_p = column(0).mapv(|square| -0.5 * square + self.ln_norm());
        let ln_q = &ln_p + &(&column(1) * sign) - &results.layer;
        let ln_q_mirror =
            column(4).mapv(|square| -0.5 * square + self.ln_norm()) + column(5) - &results.layer;
        let ln_q_model = match self.symmetry {
            Symmetry::Mixture => {
                ln_q.iter().zip(&ln_q_mirror).map(|(&a, &b)| ln_mean_exp(a, b)).collect()
            }
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q.clone(),
        };
        let ln_pi = match self.target {
            Some(_) => &column(2) * -0.5 - column(3),
            None => Array1::from_elem(results.sums.nrows(), f64::NAN),
        };
        Densities { ln_p, ln_q, ln_q_mirror, ln_q_model, ln_pi }
    }
}

impl<P: Processor> Engine for Cuda<P> {
    fn loss(
        &self,
        parameters: ArrayView1<f64>,
        z: Batch,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Loss {
        let kernel = match estimator {
            Estimator::Total => Kernel::LossTotal,
            Estimator::Path => Kernel::LossPath,
        };
        let call = Call { symmetry_weight, densities: true, gradient: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, kernel, parameters, z, &call);
        let densities = self.densities(&results, -1.0);
        let asymmetry = (self.symmetry == Symmetry::Regularizer)
            .then(|| &densities.ln_q - &densities.ln_q_mirror);
        Loss {
            values: densities.ln_q_model - densities.ln_pi,
            asymmetry,
            gradient: self.gradient(&state, 1.0 / z.len().max(1) as f64),
        }
    }

    fn likelihood_loss(&self, parameters: ArrayView1<f64>, x: Batch) -> Loss {
        let call = Call { densities: true, gradient: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::LikelihoodLoss, parameters, x, &call);
        Loss {
            values: -self.densities(&results, 1.0).ln_q_model,
            asymmetry: None,
            gradient: self.gradient(&state, 1.0 / x.len().max(1) as f64),
        }
    }

    fn ln_likelihood(&self, parameters: ArrayView1<f64>, x: Batch) -> Array1<f64> {
        let call = Call { densities: true, ..Call::default() };
        let results = self.run(&mut self.lock(), Kernel::LnLikelihood, parameters, x, &call);
        self.densities(&results, 1.0).ln_q_model
    }

    fn draw(&self, parameters: ArrayView1<f64>, z: Batch) -> Draw {
        let call = Call { densities: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::Draw, parameters, z, &call);
        let Densities { ln_q_model, ln_pi, .. } = self.densities(&results, -1.0);
        Draw { field: self.fields(&state.field, z.len()), ln_q: ln_q_model, ln_pi }
    }

    fn potential(&self, parameters: ArrayView1<f64>, z: Batch) -> Potential {
        let call = Call { densities: true, ..Call::default() };
        let mut state = self.lock();
        let results = self.run(&mut state, Kernel::Potential, parameters, z, &call);
        let Densities { ln_p, ln_q_model, ln_pi, .. } = self.densities(&results, -1.0);
        Potential {
            energy: ln_q_model - ln_p - ln_pi,
            gradient: self.fields(&state.derivative, z.len()),
            field: self.fields(&state.field, z.len()),
        }
    }

    fn forward(&self, parameters: ArrayView1<f64>, z: Batch) -> Image {
        let call = Call { densities: true, ..Call::default() };
        self.image(Kernel::Forward, parameters, z, &call, 1.0)
    }

    fn inverse(&self, parameters: ArrayView1<f64>, x: Batch) -> Image {
        let call = Call { densities: true, ..Call::default() };
        self.image(Kernel::Inverse, parameters, x, &call, -1.0)
    }

    fn forward_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        z: ArrayView2<f64>,
    ) -> Image {
        let call = Call { through: Some(couplings), ..Call::default() };
        let batch = Batch::uniform(z, &f64::NAN);
        self.image(Kernel::ForwardThrough, parameters, batch, &call, 0.0)
    }

    fn inverse_through(
        &self,
        parameters: ArrayView1<f64>,
        couplings: Range<usize>,
        y: ArrayView2<f64>,
    ) -> Image {
        let call = Call { through: Some(couplings), ..Call::default() };
        let batch = Batch::uniform(y, &f64::NAN);
        self.image(Kernel::InverseThrough, parameters, batch, &call, 0.0)
    }

    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        x: Batch,
        latents: &[usize],
    ) -> Array3<f64> {
        let call = Call { latents, densities: true, ..Call::default() };
        let mut state = self.lock();
        self.run(&mut state, Kernel::InverseDerivatives, parameters, x, &call);
        let derivatives = self.fields(&state.derivative, latents.len() * x.len());
        let shape = (latents.len(), x.len(), self.sites);
        derivatives.into_shape_with_order(shape).expect("one field a latent and sample")
    }
}

impl<P: Processor> Default for State<P> {
    fn default() -> Self {
        Self {
            known: Known::default(),
            parameters: Array1::zeros(0),
            weights: Room::default(),
            spectra: Room::default(),
            tiles: Room::default(),
            given: Room::default(),
            latents: Room::default(),
            own: Room::default(),
            sums: Room::default(),
            field: Room::default(),
            derivative: Room::default(),
            gradient: Room::default(),
        }
    }
}

impl<P: Processor> Fixed<P> {
    fn new(processor: &P, tables: &Tables, linear_size: usize, precision: Precision) -> Self {
        let memory = |bytes: Vec<u8>| {
            let mut memory = processor.allocate(bytes.len().max(1));
            processor.write(&bytes, &mut memory);
            memory
        };
        let basis = fourier::basis(linear_size);
        let sites = tables.sites.numbers.iter();
        Self {
            couplings: memory(integers(tables.couplings.iter().flatten().copied())),
            shells: memory(
                tables.shells.iter().flat_map(|shell| shell_bytes(shell, precision)).collect(),
            ),
            sites: memory(match narrow(linear_size * linear_size) {
                true => sites.flat_map(|&site| (site as u16).to_ne_bytes()).collect(),
                false => sites.flat_map(|site| site.to_ne_bytes()).collect(),
            }),
            seers: memory(integers(tables.seers.numbers.iter().map(|&seer| seer as i32))),
            transposed_basis: memory(converted(
                &fourier::transposed(&basis, linear_size),
                precision,
            )),
            basis: memory(converted(&basis, precision)),
        }
    }
}

impl Known {
    /// Where the spectra at a temperature are.
    fn slot(&mut self, target: &Target, temperature: f64) -> usize {
        if let Some(&slot) = self.places.get(&temperature.to_bits()) {
            return slot;
        }
        let density = target.density(temperature);
        let SitePotential::LnCosh = density.site;
        let linear_size = density.lattice.linear_size();
        for power in [1.0, -0.5, 0.5] {
            self.spectra.extend(fourier::multipliers(linear_size, &density.spectrum_to(power)));
        }
        self.log_dets.push(density.layer_log_det());
        let slot = self.places.len();
        self.places.insert(temperature.to_bits(), slot);
        self.written = false;
        slot
    }
}

fn bytes_of(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F64 => 8,
    }
}

/// Numbers as the processor has them.
fn converted<'a>(values: impl IntoIterator<Item = &'a f64>, precision: Precision) -> Vec<u8> {
    let values = values.into_iter();
    let count = values.size_hint().0;
    let mut bytes = vec![0; count * bytes_of(precision)];
    match precision {
        Precision::F32 => {
            let places = bytes.as_chunks_mut::<4>().0;
            places.iter_mut().zip(values).for_each(|(place, &value)| {
                *place = (value as f32).to_ne_bytes();
            });
        }
        Precision::F64 => {
            let places = bytes.as_chunks_mut::<8>().0;
            places.iter_mut().zip(values).for_each(|(place, &value)| *place = value.to_ne_bytes());
        }
    }
    bytes
}

fn numbers(bytes: &[u8], precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 => {
            let (numbers, _) = bytes.as_chunks::<4>();
            numbers.iter().map(|&bytes| f64::from(f32::from_ne_bytes(bytes))).collect()
        }
        Precision::F64 => {
            let (numbers, _) = bytes.as_chunks::<8>();
            numbers.iter().map(|&bytes| f64::from_ne_bytes(bytes)).collect()
        }
    }
}

fn integers(numbers: impl IntoIterator<Item = i32>) -> Vec<u8> {
    numbers.into_iter().flat_map(i32::to_ne_bytes).collect()
}

fn shell_bytes(&(place, size, weight): &(i32, i32, f64), precision: Precision) -> Vec<u8> {
    let mut bytes = integers([place, size]);
    bytes.extend(converted(&[weight], precision));
    bytes
}
