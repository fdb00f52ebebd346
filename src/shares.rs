//! A batch in shares: each member of a team evaluates its samples, after which all members have all.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::host::to_array;
use crate::rank::Team;

/// What a member makes of its share of a batch.
#[derive(Debug)]
pub enum Part {
    /// One row for each of its samples.
    Rows(Tensor),
    /// A mean over its samples.
    Mean(Tensor),
}

/// A batch over the members of a team.
#[derive(Debug)]
pub struct Shares<'a> {
    team: &'a Team,
    batch: i64,
    /// This member's samples; none where there are more members than samples.
    own: Range<i64>,
}

impl<'a> Shares<'a> {
    /// Shares of `batch` samples.
    pub fn new(team: &'a Team, batch: i64) -> Self {
        Self { team, batch, own: team.share(batch) }
    }

    /// The rows to evaluate here, of a tensor that has one for each sample of the batch: this member's. One
    /// without samples takes another one's, for nothing, since torch cannot evaluate an empty batch.
    pub fn own(&self, rows: &Tensor) -> Tensor {
        rows.narrow(0, self.own.start, self.count().max(1))
    }

    /// Number of this member's samples.
    fn count(&self) -> i64 {
        self.own.end - self.own.start
    }

    /// Rows of the whole batch, and means over it, the same bits on all members, of the kinds and on the device
    /// of the parts. One exchange of f64 numbers, over the host.
    pub fn join<const N: usize>(&self, parts: [Part; N]) -> [Tensor; N] {
        if self.team.size() == 1 {
            return parts.map(|(Part::Rows(whole) | Part::Mean(whole))| whole);
        }
        let summands = parts.map(|part| match part {
            Part::Rows(rows) => self.between_zeros(&rows),
            Part::Mean(mean) => mean * (self.count() as f64 / self.batch as f64),
        });
        let flat = summands.each_ref().map(|summand| summand.to_kind(Kind::Double).view([-1]));
        let sums = self.team.sum(to_array::<ndarray::Ix1>(&Tensor::cat(&flat, 0)).to_vec());
        let lengths = flat.each_ref().map(|summand| summand.size()[0]);
        let mut sums = Tensor::from_slice(&sums).split_with_sizes(lengths, 0).into_iter();
        summands.map(|like| {
            let sum = sums.next().expect("one sum for each part");
            sum.to_kind(like.kind()).to_device(like.device()).view_as(&like)
        })
    }

    /// This member's rows where they are in the batch, zeros in the place of the others'.
    fn between_zeros(&self, rows: &Tensor) -> Tensor {
        let mut shape = rows.size();
        shape[0] = self.batch;
        let whole = Tensor::zeros(shape, (rows.kind(), rows.device()));
        let count = self.count();
        whole.narrow(0, self.own.start, count).copy_(&rows.narrow(0, 0, count));
        whole
    }
}
