//! The multiscale arrangement of Real NVP blocks (MERA, Fig. 1), evaluated with torch.
//!
//! Latents lie on the lattice too: those of level l sit at the sites that are multiples of 2^l but not
//! both coordinates of 2^(l+1); the sites that are multiples of 2^depth hold the coarse prior.

use tch::Tensor;

use super::realnvp::{Block, RealNvp, parameter_shapes, parameter_sizes};
use super::{Architecture, Role};

/// The two layers that act on the (L/2^l)² field.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) disentangler: RealNvp,
    decimator: RealNvp,
}

/// The whole map between latents z and field x.
#[derive(Debug)]
pub struct Hierarchy {
    /// From fine (level 0) to coarse.
    pub(super) levels: Vec<Level>,
}

impl Hierarchy {
    /// Cuts the flat parameter vector into the layers' weights.
    pub fn new(architecture: &Architecture, parameters: &Tensor) -> Self {
        assert_eq!(parameters.size(), [architecture.parameter_count()], "length of the vector");
        let shapes = parameter_shapes(architecture);
        let layers = architecture.layers();
        let sizes = parameter_sizes(architecture).repeat(layers.len() * architecture.couplings);
        // One split: its gradient is one concatenation, where slices would each fill a full vector.
        let parts = parameters.split_with_sizes(sizes, 0);
        let mut weights = parts
            .iter()
            .zip(shapes.iter().cycle())
            .map(|(part, shape)| part.view(shape.as_slice()));
        let mut blocks =
            layers.iter().map(|layer| (layer.role, RealNvp::new(architecture, &mut weights)));
        let mut next = |expected: Role| {
            let (role, block) = blocks.next().expect("layers come in pairs");
            assert_eq!(role, expected, "each level is a disentangler, then a decimator");
            block
        };
        let levels = (0..architecture.depth)
            .map(|_| Level {
                disentangler: next(Role::Disentangler),
                decimator: next(Role::Decimator),
            })
            .collect();
        Self { levels }
    }

    /// x = g(z) with ln|det ∂x/∂z|.
    ///
    /// Shapes: z (batch, L, L) → x (batch, L, L), log_det (batch).
    pub fn forward(&self, z: &Tensor) -> (Tensor, Tensor) {
        let mut coarse = z.shallow_clone();
        let mut fresh = Vec::new();
        for _ in &self.levels {
            let [first, rest @ ..] = sublattices(&coarse);
            coarse = first;
            fresh.push(rest);
        }
        let mut log_det = None;
        for (level, rest) in self.levels.iter().zip(fresh).rev() {
            let [a, b, c] = rest;
            let (field, level_log_det) = level.forward([coarse, a, b, c]);
            coarse = field;
            log_det = add(log_det, level_log_det);
        }
        (coarse, log_det.expect("a hierarchy has levels"))
    }

    /// z = g⁻¹(x) with ln|det ∂z/∂x|.
    ///
    /// Shapes: x (batch, L, L) → z (batch, L, L), log_det (batch).
    pub fn inverse(&self, x: &Tensor) -> (Tensor, Tensor) {
        let mut coarse = x.shallow_clone();
        let mut fresh = Vec::new();
        let mut log_det = None;
        for level in &self.levels {
            let ([first, rest @ ..], level_log_det) = level.inverse(&coarse);
            coarse = first;
            fresh.push(rest);
            log_det = add(log_det, level_log_det);
        }
        for rest in fresh.into_iter().rev() {
            let [a, b, c] = rest;
            coarse = interleave(&[coarse, a, b, c]);
        }
        (coarse, log_det.expect("a hierarchy has levels"))
    }
}

impl Level {
    /// Decimator, then disentangler: four half-size fields to one field.
    ///
    /// Shapes: four times (batch, n/2, n/2) → (batch, n, n), log_det (batch).
    pub(super) fn forward(&self, fields: [Tensor; 4]) -> (Tensor, Tensor) {
        let (fields, decimated) = on_blocks(fields, |block| self.decimator.forward(block));
        let (fields, entangled) =
            on_blocks(shift(fields), |block| self.disentangler.forward(block));
        (interleave(&unshift(fields)), decimated + entangled)
    }

    /// Disentangler, then decimator: one field to four half-size fields, the first to be passed up.
    pub(super) fn inverse(&self, field: &Tensor) -> ([Tensor; 4], Tensor) {
        let fields = shift(sublattices(field));
        let (fields, disentangled) = on_blocks(fields, |block| self.disentangler.inverse(block));
        let (fields, decimated) = on_blocks(unshift(fields), |block| self.decimator.inverse(block));
        (fields, disentangled + decimated)
    }
}

/// Applies a block map to all blocks of all samples; sums the log-scales of each sample.
fn on_blocks(fields: [Tensor; 4], map: impl Fn(Block) -> (Block, Tensor)) -> ([Tensor; 4], Tensor) {
    let shape = fields[0].size();
    let (block, log_scales) = map(fields.map(|field| field.reshape([-1])));
    let log_det =
        log_scales.view([2, shape[0], -1]).sum_dim_intlist([0i64, 2].as_slice(), false, None);
    (block.map(|site| site.view(shape.as_slice())), log_det)
}

/// The sublattices (0,0), (0,1), (1,0), (1,1) of a field. Shapes: (batch, n, n) → 4 × (batch, n/2, n/2).
pub(super) fn sublattices(field: &Tensor) -> [Tensor; 4] {
    let (batch, half) = (field.size()[0], field.size()[1] / 2);
    let parts = field.reshape([batch, half, 2, half, 2]).permute([2, 4, 0, 1, 3]).contiguous();
    let parts = parts.view([4, batch, half, half]).unbind(0);
    parts.try_into().expect("unbinding four sublattices gives four")
}

/// The inverse of [`sublattices`].
pub(super) fn interleave(fields: &[Tensor; 4]) -> Tensor {
    let (batch, half) = (fields[0].size()[0], fields[0].size()[1]);
    let stacked = Tensor::stack(fields, 0).view([2, 2, batch, half, half]);
    stacked.permute([2, 3, 0, 4, 1]).reshape([batch, 2 * half, 2 * half])
}

/// Regroups sites into blocks shifted by (1, 1): the odd-odd site of each block comes first, then the
/// sites that periodically follow it. Only whole sublattices are rolled.
fn shift([even_even, even_odd, odd_even, odd_odd]: [Tensor; 4]) -> [Tensor; 4] {
    [odd_odd, odd_even.roll([-1], [2]), even_odd.roll([-1], [1]), even_even.roll([-1, -1], [1, 2])]
}

/// The inverse of [`shift`].
fn unshift([odd_odd, odd_even, even_odd, even_even]: [Tensor; 4]) -> [Tensor; 4] {
    [even_even.roll([1, 1], [1, 2]), even_odd.roll([1], [1]), odd_even.roll([1], [2]), odd_odd]
}

fn add(sum: Option<Tensor>, term: Tensor) -> Option<Tensor> {
    Some(sum.map_or_else(|| term.shallow_clone(), |sum| sum + &term))
}
