//! A batch in shares: each member of a team evaluates its samples, after which all members have all.

use std::ops::Range;

use ndarray::{Array, ArrayD, ArrayView, Axis, Dimension, Slice};

use crate::ranks::Team;

/// What a member makes of its share of a batch.
#[derive(Debug)]
pub enum Part {
    /// One row for each of its samples.
    Rows(ArrayD<f64>),
    /// A mean over its samples.
    Mean(ArrayD<f64>),
}

/// A batch over the members of a team.
#[derive(Debug)]
pub struct Shares<'a> {
    team: &'a Team,
    batch: usize,
    /// This member's samples; none where there are more members than samples.
    own: Range<usize>,
}

impl<'a> Shares<'a> {
    /// Shares of `batch` samples.
    pub fn new(team: &'a Team, batch: usize) -> Self {
        Self { team, batch, own: team.share(batch) }
    }

    /// This member's rows of an array that has one for each sample of the batch.
    pub fn own<'b, D: Dimension>(&self, rows: ArrayView<'b, f64, D>) -> ArrayView<'b, f64, D> {
        let mut rows = rows;
        rows.slice_axis_inplace(Axis(0), Slice::from(self.own.clone()));
        rows
    }

    /// Which of the samples are this member's.
    pub fn range(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Number of this member's samples.
    pub fn count(&self) -> usize {
        self.own.len()
    }

    /// Rows of the whole batch, and means over it, the same bits on all members. One exchange.
    pub fn join<const N: usize>(&self, parts: [Part; N]) -> [ArrayD<f64>; N] {
        if self.team.size() == 1 {
            return parts.map(|(Part::Rows(whole) | Part::Mean(whole))| whole);
        }
        let summands = parts.map(|part| match part {
            Part::Rows(rows) => self.between_zeros(&rows),
            // A member without samples has no mean.
            Part::Mean(mean) if self.own.is_empty() => ArrayD::zeros(mean.raw_dim()),
            Part::Mean(mean) => mean * (self.count() as f64 / self.batch as f64),
        });
        let flat = summands.iter().flatten().copied().collect();
        let mut sums = self.team.sum(flat).into_iter();
        summands.map(|mut place| {
            place
                .iter_mut()
                .for_each(|value| *value = sums.next().expect("one sum for each number"));
            place
        })
    }

    /// This member's rows where they are in the batch, zeros in the place of the others'.
    fn between_zeros(&self, rows: &ArrayD<f64>) -> ArrayD<f64> {
        let mut shape = rows.raw_dim();
        shape[0] = self.batch;
        let mut whole = ArrayD::zeros(shape);
        whole.slice_axis_mut(Axis(0), Slice::from(self.own.clone())).assign(rows);
        whole
    }
}

/// An array that has as many axes as its type says.
pub(crate) fn of_shape<D: Dimension>(array: ArrayD<f64>) -> Array<f64, D> {
    array.into_dimensionality().expect("an exchange changes no shape")
}
