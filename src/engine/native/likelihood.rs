//! ln q of given fields, by the inverse pass, and the gradient of its mean.

use super::density::{Sums, ln_normal};
use super::energy::pull_back_ln_q;
use super::lanes::{LANES, Lanes, Real};
use super::passes::Flow;
use super::tile::{Part, Tile, add, negate};
use super::{Native, Workspace};
use crate::engine::Batch;
use crate::flow::config::Symmetry;

impl<T: Real> Native<T> {
    /// Losses of some tiles of the fields x, (batch, N), and their share of the gradient.
    pub(super) fn likelihood_of_tiles(
        &self,
        flow: &Flow<'_, T>,
        x: Batch,
        tiles: &[Tile<T>],
    ) -> Part {
        let mut part = Part::new(flow);
        self.with_workspace(flow, |space| {
            for tile in tiles {
                self.load(x, tile, space);
                let [ln_q, ln_q_mirror] = self.invert(flow, space);
                let samples = tile.samples.len();
                let shares: [(f64, f64); LANES] = std::array::from_fn(|lane| match lane {
                    lane if lane < samples => self.shares(ln_q[lane], ln_q_mirror[lane]),
                    _ => (0.0, 0.0),
                });
                let Workspace { panels, field, record, mirror, mirror_record, cotangent, .. } =
                    space;
                let coefficient = Lanes(shares.map(|(share, _)| T::of(-share)));
                let gradient = Some(&mut part.gradient[..]);
                pull_back_ln_q(flow, panels, field, record, cotangent, &coefficient, gradient);
                if self.symmetry == Symmetry::Mixture {
                    let coefficient = Lanes(shares.map(|(_, share)| T::of(-share)));
                    let gradient = Some(&mut part.gradient[..]);
                    pull_back_ln_q(
                        flow,
                        panels,
                        mirror,
                        mirror_record,
                        cotangent,
                        &coefficient,
                        gradient,
                    );
                }
                let ln_q = self.symmetrized(&ln_q, &ln_q_mirror);
                part.values.extend(ln_q[..samples].iter().map(|ln_q| -ln_q));
            }
        });
        part
    }

    /// From x in `space.field` to its latent there, with the mixture also to that of -x in `space.mirror`;
    /// both inverse passes are recorded. Returns the flow's ln q(x) and, with the mixture, ln q(-x).
    pub(super) fn invert(&self, flow: &Flow<'_, T>, space: &mut Workspace<T>) -> [Sums; 2] {
        let Workspace { at, field, record, mirror, mirror_record, scratch, .. } = space;
        let constant = self.undo_layer(at, field, scratch);
        let mut ln_q_mirror = [0.0; LANES];
        if self.symmetry == Symmetry::Mixture {
            negate(field, mirror);
            let log_det = flow.inverse(mirror, mirror_record);
            ln_q_mirror = add(ln_normal(mirror), log_det.map(|value| value - constant));
        }
        let log_det = flow.inverse(field, record);
        [add(ln_normal(field), log_det.map(|value| value - constant)), ln_q_mirror]
    }
}
