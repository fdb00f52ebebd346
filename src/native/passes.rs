//! All couplings of a flow on one tile: `LANES` samples, laid out (site, lane).
//!
//! Passes keep only the old values of the updated sites; derivatives undo the couplings one by one
//! and recompute their networks.

use std::ops::Range;

use super::lanes::{LANES, Lanes, Real};
use super::network::{Conditioned, Layout, Panels};
use super::transform::{self, Affine, Bump, Cotangents, Direction, Monotone, Sites};
use crate::flow::coupling::{Conditioner, Coupling, Transform};

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
}

/// The values that a pass over all couplings has overwritten, in the order of the couplings.
pub type Record<T> = Vec<Lanes<T>>;

/// Rows `rows` of a coupling, whose old values lie in `record`.
struct Chunk<'a, T> {
    network: Conditioned<'a, T>,
    rows: Range<usize>,
    record: Range<usize>,
}

impl<'a, T: Real> Flow<'a, T> {
    /// Number of values that a pass overwrites.
    pub fn record_length(&self) -> usize {
        self.couplings.iter().map(|coupling| coupling.updated.len()).sum()
    }

    /// Chunks of rows of all couplings, in order.
    fn chunks(&self) -> Vec<Chunk<'a, T>> {
        let mut chunks = Vec::new();
        let mut recorded = 0;
        for ((coupling, layout), packed) in self.couplings.iter().zip(self.layouts).zip(self.packed)
        {
            let network = Conditioned { coupling, layout, parameters: self.parameters, packed };
            for first in (0..coupling.rows).step_by(layout.chunk_rows) {
                let rows = first..coupling.rows.min(first + layout.chunk_rows);
                let values = rows.len() * coupling.network.updated_per_row;
                chunks.push(Chunk { network, rows, record: recorded..recorded + values });
                recorded += values;
            }
        }
        chunks
    }

    /// z → y in place, with log_det of ∂y/∂z.
    pub fn forward(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut [Lanes<T>],
    ) -> LogDet {
        let mut log_det = [0.0; LANES];
        for chunk in self.chunks() {
            chunk.condition(field, panels);
            chunk.forward(panels, field, record, &mut log_det);
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
        record: &mut [Lanes<T>],
        score: &mut [Lanes<T>],
    ) -> LogDet {
        let mut log_det = [0.0; LANES];
        for chunk in self.chunks() {
            chunk.condition(field, panels);
            chunk.pull_back(Direction::Inverse, panels, field, score, &Lanes::ONE, None);
            chunk.forward(panels, field, record, &mut log_det);
        }
        log_det
    }

    /// y → z in place, with log_det of ∂z/∂y.
    pub fn inverse(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut [Lanes<T>],
    ) -> LogDet {
        let mut log_det = [0.0; LANES];
        for chunk in self.chunks().iter().rev() {
            chunk.condition(field, panels);
            chunk.inverse(panels, field, record, &mut log_det);
        }
        log_det
    }

    /// Undoes a recorded forward pass: `field` goes back to z, `cotangent` from that of y to that of
    /// z, and the cotangents of the parameters are added to `gradient`.
    pub fn pull_back_forward(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &[Lanes<T>],
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        for chunk in self.chunks().iter().rev() {
            chunk.condition(field, panels);
            chunk.restore(field, record);
            let gradient = gradient.as_deref_mut();
            chunk.pull_back(Direction::Forward, panels, field, cotangent, of_log_det, gradient);
        }
    }

    /// Undoes a recorded inverse pass: `field` goes back to y, `cotangent` from that of z to that of
    /// y, and the cotangents of the parameters are added to `gradient`.
    pub fn pull_back_inverse(
        &self,
        panels: &mut Panels<T>,
        field: &mut [Lanes<T>],
        record: &[Lanes<T>],
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        for chunk in self.chunks() {
            chunk.condition(field, panels);
            let gradient = gradient.as_deref_mut();
            chunk.pull_back(Direction::Inverse, panels, field, cotangent, of_log_det, gradient);
            chunk.restore(field, record);
        }
    }
}

impl<T: Real> Chunk<'_, T> {
    fn updated(&self) -> &[u32] {
        let coupling = self.network.coupling;
        let per_row = coupling.network.updated_per_row;
        &coupling.updated[self.rows.start * per_row..self.rows.end * per_row]
    }

    fn condition(&self, field: &[Lanes<T>], panels: &mut Panels<T>) {
        self.network.forward(self.rows.start, self.rows.len(), field, panels);
    }

    fn restore(&self, field: &mut [Lanes<T>], record: &[Lanes<T>]) {
        for (site, value) in self.updated().iter().zip(&record[self.record.clone()]) {
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

    fn forward(
        &self,
        panels: &Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut [Lanes<T>],
        log_det: &mut LogDet,
    ) {
        let record = &mut record[self.record.clone()];
        let outputs = &panels.outputs;
        match self.network.coupling.network.transform {
            Transform::Affine => {
                transform::forward::<T, Affine, 2>(&self.affine(outputs), field, record, log_det)
            }
            Transform::Bump => {
                transform::forward::<T, Bump, 5>(&self.bump(outputs), field, record, log_det);
            }
        }
    }

    fn inverse(
        &self,
        panels: &Panels<T>,
        field: &mut [Lanes<T>],
        record: &mut [Lanes<T>],
        log_det: &mut LogDet,
    ) {
        let record = &mut record[self.record.clone()];
        let outputs = &panels.outputs;
        match self.network.coupling.network.transform {
            Transform::Affine => {
                transform::inverse::<T, Affine, 2>(&self.affine(outputs), field, record, log_det)
            }
            Transform::Bump => {
                transform::inverse::<T, Bump, 5>(&self.bump(outputs), field, record, log_det);
            }
        }
    }

    /// Cotangents pulled back through the map and then the network; `field` holds u.
    fn pull_back(
        &self,
        direction: Direction,
        panels: &mut Panels<T>,
        field: &[Lanes<T>],
        cotangent: &mut [Lanes<T>],
        of_log_det: &Lanes<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        match self.network.coupling.network.transform {
            Transform::Affine => {
                let sites = self.affine(&panels.outputs);
                let deltas = &mut panels.output_deltas;
                let gradient = gradient.as_deref_mut();
                self.pull_back_map::<Affine, 2>(
                    direction, &sites, field, deltas, cotangent, of_log_det, gradient,
                );
            }
            Transform::Bump => {
                let sites = self.bump(&panels.outputs);
                let deltas = &mut panels.output_deltas;
                let gradient = gradient.as_deref_mut();
                self.pull_back_map::<Bump, 5>(
                    direction, &sites, field, deltas, cotangent, of_log_det, gradient,
                );
            }
        }
        let (first, rows) = (self.rows.start, self.rows.len());
        self.network.pull_back(first, rows, panels, cotangent, gradient);
    }

    #[allow(clippy::too_many_arguments)]
    fn pull_back_map<M: Monotone<T, P>, const P: usize>(
        &self,
        direction: Direction,
        sites: &Sites<'_, T, P>,
        field: &[Lanes<T>],
        outputs: &mut [Lanes<T>],
        cotangent: &mut [Lanes<T>],
        log_det: &Lanes<T>,
        gradient: Option<&mut [f64]>,
    ) {
        let Layout { scales, end, .. } = *self.network.layout;
        let scales = gradient.map_or(&mut [][..], |gradient| &mut gradient[scales..end]);
        let cotangents = Cotangents { field: cotangent, log_det, outputs, scales };
        transform::pull_back::<T, M, P>(direction, sites, field, cotangents);
    }
}
