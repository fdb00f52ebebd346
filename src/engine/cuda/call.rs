//! A call of a kernel: what it is given, and what it leaves.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, s};

use super::Cuda;
use super::memory::{Room, State, converted, integers, numbers};
use super::processor::{Arguments, Processor};
use super::program::{Kernel, Program};
use crate::engine::Batch;
use crate::engine::config::Precision;

/// Numbers of `Sums` of the kernels.
const SUMS: usize = 6;

/// What a call gives and wants.
#[derive(Default)]
pub(super) struct Call<'a> {
    /// Some of the couplings, without the Gaussian layer and the target; none: all, with both.
    pub(super) through: Option<Range<usize>>,
    pub(super) symmetry_weight: f64,
    pub(super) latents: &'a [usize],
    pub(super) gradient: bool,
}

/// What a kernel leaves of each sample (`Sums` of the kernels), and what the host knows of it. Shapes: (batch).
pub(super) struct Results {
    /// Σ z².
    pub(super) latent: Array1<f64>,
    /// ln|det| of the couplings, in the direction of the pass.
    pub(super) log_det: Array1<f64>,
    /// x·Kx.
    pub(super) quadratic: Array1<f64>,
    /// Σ V(x).
    pub(super) site: Array1<f64>,
    /// Σ z² and ln|det ∂z/∂y| of -x.
    pub(super) mirror_latent: Array1<f64>,
    pub(super) mirror_log_det: Array1<f64>,
    /// ln|det ∂x/∂y| of the Gaussian layer.
    pub(super) layer: Array1<f64>,
}

impl<P: Processor> Cuda<P> {
    /// Runs a kernel on a batch; what it leaves in memory besides sums is the caller's to read.
    pub(super) fn run(
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
        let (tiles, layer) = self.tiles(state, batch, program.lanes, call.through.is_none());
        let tile_count = tiles.len() / 3;
        let blocks = tile_count.clamp(1, processor.most_blocks());
        let outputs = batch.len() * self.sites * self.precision.bytes();
        let through = call.through.clone().unwrap_or(0..self.couplings);
        let (given, key, first_sample) = self.write_values(state, batch);
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
        let sum = |index: usize| sums.column(index).to_owned();
        Results {
            latent: sum(0),
            log_det: sum(1),
            quadratic: sum(2),
            site: sum(3),
            mirror_latent: sum(4),
            mirror_log_det: sum(5),
            layer,
        }
    }

    /// Where each tile begins, how many samples it has and where the spectra at its temperature are; and ln|det ∂x/∂y| of the
    /// Gaussian layer of each sample. All spectra are written.
    fn tiles(
        &self,
        state: &mut State<P>,
        batch: Batch,
        lanes: usize,
        whole: bool,
    ) -> (Vec<i32>, Array1<f64>) {
        let known = &mut state.known;
        known.make_room();
        let target = self.target.as_ref().filter(|_| whole);
        let mut layer = Array1::zeros(batch.len());
        let mut tiles = Vec::new();
        for (samples, temperature) in batch.tiles(lanes) {
            let slot = target.map_or(0, |target| known.slot(target, temperature));
            if self.preconditioner && target.is_some() {
                layer.slice_mut(s![samples.clone()]).fill(known.log_dets[slot]);
            }
            tiles.extend([samples.start, samples.len(), slot].map(|number| number as i32));
        }
        if !known.written {
            state.spectra.write(&self.processor, &converted(&known.spectra, self.precision));
            known.written = true;
        }
        (tiles, layer)
    }

    /// The address of given values; or none, with the key and the first sample of those to draw.
    fn write_values(&self, state: &mut State<P>, batch: Batch) -> (u64, u64, u64) {
        if let Some((random, first)) = batch.to_draw() {
            return (0, random.key(), first as u64);
        }
        let values = batch.values(0..batch.len());
        let bytes = converted(values.iter(), self.precision);
        (state.given.write(&self.processor, &bytes), 0, 0)
    }

    /// The program with the fewest samples in a block with which all blocks of a batch run side by side, or that with the most.
    pub(super) fn program(&self, batch: usize) -> (&Program, &P::Loaded) {
        let blocks = self.processor.multiprocessors();
        let fits = |(program, _): &&(Program, _)| batch.div_ceil(program.lanes) <= blocks;
        let (program, loaded) =
            self.programs.iter().find(fits).or(self.programs.last()).expect("there is a program");
        (program, loaded.get_or_init(|| self.processor.load(program)))
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
    pub(super) fn gradient(&self, state: &State<P>, scale: f64) -> Array1<f64> {
        let bytes = state.gradient.read(&self.processor, self.tables.weight_count * 8);
        let packed = numbers(&bytes, Precision::F64);
        self.tables.packed.iter().map(|&place| packed[place] * scale).collect()
    }

    /// Fields that a kernel has left.
    pub(super) fn fields(&self, room: &Room<P>, batch: usize) -> Array2<f64> {
        let bytes = room.read(&self.processor, batch * self.sites * self.precision.bytes());
        let values = numbers(&bytes, self.precision);
        Array2::from_shape_vec((batch, self.sites), values).expect("one value a sample and site")
    }
}
