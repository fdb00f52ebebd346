//! All couplings of a flow on one tile: `LANES` samples, laid out (site, lane).
//!
//! Passes keep the old values of the updated sites; derivatives undo the couplings one by one. They
//! recompute the networks, unless these are small enough for the cache to have kept them.

use std::ops::Range;

use super::convolution::Features;
use super::lanes::{LANES, Lanes, Real};
use super::network::Conditioned;
use super::network::layout::Layout;
use super::network::panels::{Activations, Panels};
use super::transform::{self, Affine, Bump, Cotangents, Direction, Monotone, Sites};
use crate::flow::coupling::{Conditioner, Coupling, Transform};

/// Activations that a pass may leave behind: part of what a core has of the last-level cache.
const KEPT_BYTES: usize = 8 << 20;

/// A tile's log-determinants.
pub type LogDet = [f64; LANES];

/// A flow's couplings with the parameters of one call.
#[derive(Debug)]
pub struct Flow<'a, T> {
    pub couplings: &'a [Coupling],
    pub layouts: &'a [Layout],
    pub parameters: &'a [T],
    /// Transposed weights of every coupling.
    pub packed: &'a [Vec<T>],
    /// The couplings that passes go through.
    pub through: Range<usize>,
}

/// What a pass over all couplings leaves for its derivative.
#[derive(Debug)]
pub struct Record<T> {
    /// The values that it has overwritten, in the order of the couplings.
    values: Vec<Lanes<T>>,
    /// Of every chunk, or one for all of them in turn.
    activations: Vec<Activations<T>>,
    kept: bool,
    features: Features<T>,
}

impl<T: Real> Record<T> {
    pub fn new(flow: &Flow<'_, T>) -> Self {
        let numbers: usize = flow
            .couplings
            .iter()
            .zip(flow.layouts)
            .map(|(coupling, layout)| coupling.rows * layout.activations_per_row())
            .sum();
        let kept = numbers * size_of::<Lanes<T>>() <= KEPT_BYTES;
        let parts = Flow { through: 0..flow.couplings.len(), ..*flow }.parts();
        let one = |chunk: &Chunk<'_, T>| Activations::new(chunk.network.layout, chunk.rows.len());
        Self {
            values: vec![Lanes::ZERO; flow.couplings.iter().map(|of| of.updated.len()).sum()],
            activations: match kept {
                true => parts.iter().flat_map(|part| &part.chunks).map(one).collect(),
                false => vec![Activations::any(flow.layouts)],
            },
            kept,
            features: Features::any(flow.couplings, flow.layouts),
        }
    }
}

/// One coupling.
struct Part<'a, T> {
    network: Conditioned<'a, T>,
    chunks: Vec<Chunk<'a, T>>,
}

/// Rows `rows` of a coupling, whose old values are at `record` and activations at `index`.
struct Chunk<'a, T> {
    network: Conditioned<'a, T>,
    rows: Range<usize>,
    record: Range<usize>,
    index: usize,
}

impl<'a, T: Real> Flow<'a, T> {
    /// The couplings to go through, in order.
    fn parts(&self) -> Vec<Part<'a, T>> {
        let (mut recorded, mut index) = (0, 0);
        let mut parts = Vec::new();
        for ((coupling, layout), packed) in self.couplings.iter().zip(self.layouts).zip(self.packed)
        {
            let network = Conditioned { coupling, layout, parameters: self.parameters, packed };
            let mut chunks = Vec::new();
            for first in (0..coupling.rows).step_by(layout.chunk_rows) {
                let rows = first..coupling.rows.min(first + layout.chunk_rows);
                let values = rows.len() * coupling.network.updated_per_row;
                chunks.push(Chunk { network, rows, record: recorded..recorded + values, index });
                recorded += values;
                index += 1;
            }
            parts.push(Part { network, chunks });
        }
        parts.truncate(self.through.end);
        parts.drain(..self.through.start);
        parts
    }

    /// z → y in place, with log_det of ∂y/∂z.
    pub fn forward(&self, field: &mut [Lanes<T>], record: &mut Record<T>) -> LogDet {
        let mut log_det = [0.0; LANES];
        for part in self.parts() {
            part.network.convolve(field, &mut record.features);
            for chunk in &part.chunks {
                chunk.condition(field, record);
                chunk.forward(field, record, &mut log_det);
            }
        }
        log_det
    }

    /// z → y in place; `score` goes from ∂ ln p(z)/∂z to ∂ ln q(y)/∂y at fixed parameters.
    ///
    /// That is the inverse pass, ln q = ln p(z) + log_det of ∂z/∂y, differentiated coupling by
    /// coupling while the forward pass moves on.
    pub fn forward_with_score(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut Record<T>,
        score: &mut [Lanes<T>],
    ) -> LogDet {
        let mut log_det = [0.0; LANES];
        for Part { network, chunks } in self.parts() {
            network.convolve(field, &mut record.features);
            for chunk in &chunks {
                chunk.condition(field, record);
                let direction = Direction::Inverse;
                chunk.pull_back(direction, record, panels, field, score, &Lanes::ONE, None);
                chunk.forward(field, record, &mut log_det);
            }
            network.pull_back_convolution(field, &mut record.features, panels, score, None);
        }
        log_det
    }

    /// y → z in place, with log_det of ∂z/∂y.
    pub fn inverse(&self, field: &mut [Lanes<T>], record: &mut Record<T>) -> LogDet {
        let mut log_det = [0.0; LANES];
        for part in self.parts().iter().rev() {
            part.network.convolve(field, &mut record.features);
            for chunk in &part.chunks {
                chunk.condition(field, record);
                chunk.inverse(field, record, &mut log_det);
            }
        }
        log_det
    }

    /// Undoes a recorded forward pass: `field` goes back to z, `cotangent` from that of y to that of
    /// z, and the cotangents of the parameters are added to `gradient`.
    pub fn pull_back_forward(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut Record<T>,
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        let direction = Direction::Forward;
        for Part { network, chunks } in self.parts().into_iter().rev() {
            network.convolve(field, &mut record.features);
            for chunk in &chunks {
                chunk.condition_again(field, record);
                chunk.restore(field, record);
                let gradient = gradient.as_deref_mut();
                chunk.pull_back(direction, record, panels, field, cotangent, of_log_det, gradient);
            }
            let (features, gradient) = (&mut record.features, gradient.as_deref_mut());
            network.pull_back_convolution(field, features, panels, cotangent, gradient);
        }
    }

    /// Undoes a recorded inverse pass: `field` goes back to y, `cotangent` from that of z to that of
    /// y, and the cotangents of the parameters are added to `gradient`.
    pub fn pull_back_inverse(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut Record<T>,
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        let direction = Direction::Inverse;
        for Part { network, chunks } in self.parts() {
            network.convolve(field, &mut record.features);
            for chunk in &chunks {
                chunk.condition_again(field, record);
                let gradient = gradient.as_deref_mut();
                chunk.pull_back(direction, record, panels, field, cotangent, of_log_det, gradient);
                chunk.restore(field, record);
            }
            let (features, gradient) = (&mut record.features, gradient.as_deref_mut());
            network.pull_back_convolution(field, features, panels, cotangent, gradient);
        }
    }
}

impl<T: Real> Chunk<'_, T> {
    fn updated(&self) -> &[u32] {
        let coupling = self.network.coupling;
        let per_row = coupling.network.updated_per_row;
        &coupling.updated[self.rows.start * per_row..self.rows.end * per_row]
    }

    /// Where the record has its activations.
    fn place(&self, record: &Record<T>) -> usize {
        if record.kept { self.index } else { 0 }
    }

    fn condition(&self, field: &[Lanes<T>], record: &mut Record<T>) {
        let place = self.place(record);
        let Record { activations, features, .. } = record;
        let features = &features.values;
        self.network.forward(self.rows.clone(), field, features, &mut activations[place]);
    }

    /// As `condition`, where that was already done once.
    fn condition_again(&self, field: &[Lanes<T>], record: &mut Record<T>) {
        if !record.kept {
            self.condition(field, record);
        }
    }

    fn restore(&self, field: &mut [Lanes<T>], record: &Record<T>) {
        for (site, value) in self.updated().iter().zip(&record.values[self.record.clone()]) {
            field[*site as usize] = *value;
        }
    }

    fn sites<'b, const P: usize>(
        &'b self,
        outputs: &'b [Lanes<T>],
        order: [usize; P],
    ) -> Sites<'b, T, P> {
        let Layout { scales, end, .. } = *self.network.layout;
        Sites {
            updated: self.updated(),
            per_row: self.network.coupling.network.updated_per_row,
            outputs,
            order,
            scales: &self.network.parameters[scales..end],
        }
    }

    /// The sites of an affine map, whose networks differ in the order of their outputs.
    fn affine<'b>(&'b self, outputs: &'b [Lanes<T>]) -> Sites<'b, T, 2> {
        let order = match self.network.coupling.network.conditioner {
            Conditioner::Elu => [0, 1],
            Conditioner::Odd => [1, 0],
        };
        self.sites(outputs, order)
    }

    fn bump<'b>(&'b self, outputs: &'b [Lanes<T>]) -> Sites<'b, T, 5> {
        self.sites(outputs, [0, 1, 2, 3, 4])
    }

    fn forward(&self, field: &mut [Lanes<T>], record: &mut Record<T>, log_det: &mut LogDet) {
        let outputs = &record.activations[self.place(record)].outputs;
        let record = &mut record.values[self.record.clone()];
        match self.network.coupling.network.transform {
            Transform::Affine => {
                transform::forward::<T, Affine, 2>(&self.affine(outputs), field, record, log_det);
            }
            Transform::Bump => {
                transform::forward::<T, Bump, 5>(&self.bump(outputs), field, record, log_det);
            }
        }
    }

    fn inverse(&self, field: &mut [Lanes<T>], record: &mut Record<T>, log_det: &mut LogDet) {
        let outputs = &record.activations[self.place(record)].outputs;
        let record = &mut record.values[self.record.clone()];
        match self.network.coupling.network.transform {
            Transform::Affine => {
                transform::inverse::<T, Affine, 2>(&self.affine(outputs), field, record, log_det);
            }
            Transform::Bump => {
                transform::inverse::<T, Bump, 5>(&self.bump(outputs), field, record, log_det);
            }
        }
    }

    /// Cotangents pulled back through the map and then the network; `field` holds u.
    #[allow(clippy::too_many_arguments)]
    fn pull_back(
        &self,
        direction: Direction,
        record: &Record<T>,
        panels: &mut Panels<T>,
        field: &[Lanes<T>],
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        let activations = &record.activations[self.place(record)];
        match self.network.coupling.network.transform {
            Transform::Affine => {
                let sites = self.affine(&activations.outputs);
                let gradient = gradient.as_deref_mut();
                self.pull_back_map::<Affine, 2>(
                    direction, &sites, field, panels, cotangent, of_log_det, gradient,
                );
            }
            Transform::Bump => {
                let sites = self.bump(&activations.outputs);
                let gradient = gradient.as_deref_mut();
                self.pull_back_map::<Bump, 5>(
                    direction, &sites, field, panels, cotangent, of_log_det, gradient,
                );
            }
        }
        self.network.pull_back(self.rows.clone(), activations, panels, cotangent, gradient);
    }

    #[allow(clippy::too_many_arguments)]
    fn pull_back_map<M: Monotone<T, P>, const P: usize>(
        &self,
        direction: Direction,
        sites: &Sites<'_, T, P>,
        field: &[Lanes<T>],
        panels: &mut Panels<T>,
        cotangent: &mut [Lanes<T>],
        log_det: &Lanes<T>,
        gradient: Option<&mut [f64]>,
    ) {
        let Layout { scales, end, .. } = *self.network.layout;
        let gradient = gradient.map_or(&mut [][..], |gradient| &mut gradient[scales..end]);
        let Panels { output_deltas: outputs, sums, .. } = panels;
        let scales = &mut sums[..gradient.len()];
        scales.fill(Lanes::ZERO);
        let cotangents = Cotangents { field: cotangent, log_det, outputs, scales };
        transform::pull_back::<T, M, P>(direction, sites, field, cotangents);
        for (gradient, sums) in gradient.iter_mut().zip(sums) {
            *gradient += sums.0.iter().map(|value| value.to_f64()).sum::<f64>();
        }
    }
}
