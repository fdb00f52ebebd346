//! Room for what networks compute for a chunk of rows.

use super::super::kernels::outer_product_room;
use super::super::lanes::{Lanes, Real};
use super::layout::Layout;
use crate::flow::coupling::Coupling;

/// What a network computes for one chunk of rows.
#[derive(Debug)]
pub struct Activations<T> {
    /// v.
    pub(super) inputs: Vec<Lanes<T>>,
    /// h_1, h_2, … of the first network, then of the next.
    pub(super) hidden: Vec<Vec<Lanes<T>>>,
    /// h∘h of the last hidden layer.
    pub(super) squares: Vec<Lanes<T>>,
    /// The network's outputs, rows × outputs.
    pub outputs: Vec<Lanes<T>>,
}

impl<T: Real> Activations<T> {
    /// Room for `rows` rows of a layout.
    pub fn new(layout: &Layout, rows: usize) -> Self {
        let panel = |stride: usize| vec![Lanes::ZERO; rows * stride];
        Self {
            inputs: panel(layout.input_stride()),
            hidden: layout
                .branches
                .iter()
                .flat_map(|branch| &branch.hidden)
                .map(|_| panel(layout.stride()))
                .collect(),
            squares: panel(layout.square_stride()),
            outputs: panel(layout.outputs),
        }
    }

    /// Room for a chunk of any of the layouts.
    pub fn any(layouts: &[Layout]) -> Self {
        let mut any = Self { inputs: vec![], hidden: vec![], squares: vec![], outputs: vec![] };
        for layout in layouts {
            let one = Self::new(layout, layout.chunk_rows);
            any.hidden.resize_with(any.hidden.len().max(one.hidden.len()), Vec::new);
            let hidden = any.hidden.iter_mut().zip(one.hidden);
            let rest = [
                (&mut any.inputs, one.inputs),
                (&mut any.squares, one.squares),
                (&mut any.outputs, one.outputs),
            ];
            for (panel, one) in hidden.chain(rest) {
                panel.resize(panel.len().max(one.len()), Lanes::ZERO);
            }
        }
        any
    }
}

/// Cotangents of one chunk of rows of any of the couplings.
#[derive(Debug)]
pub struct Panels<T> {
    /// Of a convolution's features at all frozen sites, sites × channels.
    pub feature_deltas: Vec<Lanes<T>>,
    /// Of the network's outputs, rows × outputs.
    pub output_deltas: Vec<Lanes<T>>,
    /// Of a hidden layer and the one below it.
    pub(super) upper: Vec<Lanes<T>>,
    pub(super) lower: Vec<Lanes<T>>,
    /// Of the inputs, summed over the networks.
    pub(super) inputs: Vec<Lanes<T>>,
    /// Room for the sums of a product of cotangents and inputs.
    pub sums: Vec<Lanes<T>>,
}

impl<T: Real> Panels<T> {
    /// Panels that suffice for all of the couplings.
    pub fn new(couplings: &[Coupling], layouts: &[Layout]) -> Self {
        let panel = |size: &dyn Fn(&Layout) -> usize| {
            let lengths = layouts.iter().map(|layout| layout.chunk_rows * size(layout));
            vec![Lanes::ZERO; lengths.max().unwrap_or(0)]
        };
        let sums = layouts.iter().map(|layout| {
            let inputs = layout.delta_stride().max(layout.stencil_stride());
            outer_product_room(inputs).max(layout.end - layout.scales)
        });
        let features = couplings.iter().map(Coupling::feature_count).max().unwrap_or(0);
        Self {
            feature_deltas: vec![Lanes::ZERO; features],
            output_deltas: panel(&|layout| layout.outputs),
            upper: panel(&Layout::delta_stride),
            lower: panel(&Layout::delta_stride),
            inputs: panel(&Layout::delta_stride),
            sums: vec![Lanes::ZERO; sums.max().unwrap_or(0)],
        }
    }
}

/// Places ones behind the units of every row.
pub fn place_ones<T: Real>(panel: &mut [Lanes<T>], stride: usize, rows: usize) {
    for row in panel.chunks_exact_mut(stride).take(rows) {
        row[stride - 1] = Lanes::ONE;
    }
}
