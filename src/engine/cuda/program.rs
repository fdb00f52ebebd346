//! The text of a flow's kernels.

use std::fmt::Write;

use super::case::{Case, Lack};
use super::rooms::Rooms;
use super::tables::Tables;
use crate::engine::config::Precision;
use crate::flow::config::Symmetry;
use crate::flow::coupling::{Conditioner, Transform};
use crate::random::Use;

/// The kernels' text, in this order; how phases run comes before.
const TEXTS: [&str; 5] = [
    include_str!("kernels/block.cuh"),
    include_str!("kernels/arithmetic.cuh"),
    include_str!("kernels/random.cuh"),
    include_str!("kernels/transform.cuh"),
    include_str!("kernels/network.cuh"),
];
/// What comes after the shapes of the flow.
const TEXTS_OF_SHAPES: [&str; 5] = [
    include_str!("kernels/gradient.cuh"),
    include_str!("kernels/passes.cuh"),
    include_str!("kernels/spectral.cuh"),
    include_str!("kernels/energy.cuh"),
    include_str!("kernels/kernels.cuh"),
];

/// Most sites of samples that share a block: the finest couplings of a checkerboard update half of them, two a thread.
const SHARED_SITES: usize = 1024;
const MOST_LANES: usize = 8;
/// Of a block. With more of them there are too few registers for the networks of preset `best`.
const THREADS: usize = 256;

/// A kernel, by what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    LossTotal,
    LossPath,
    LikelihoodLoss,
    LnLikelihood,
    Draw,
    Potential,
    Forward,
    Inverse,
    ForwardThrough,
    InverseThrough,
    InverseDerivatives,
    SumGradients,
}

impl Kernel {
    pub const ALL: [Self; 12] = [
        Self::LossTotal,
        Self::LossPath,
        Self::LikelihoodLoss,
        Self::LnLikelihood,
        Self::Draw,
        Self::Potential,
        Self::Forward,
        Self::Inverse,
        Self::ForwardThrough,
        Self::InverseThrough,
        Self::InverseDerivatives,
        Self::SumGradients,
    ];

    /// Its name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::LossTotal => "loss_total",
            Self::LossPath => "loss_path",
            Self::LikelihoodLoss => "likelihood_loss",
            Self::LnLikelihood => "ln_likelihood",
            Self::Draw => "draw",
            Self::Potential => "potential",
            Self::Forward => "forward",
            Self::Inverse => "inverse",
            Self::ForwardThrough => "forward_through",
            Self::InverseThrough => "inverse_through",
            Self::InverseDerivatives => "inverse_derivatives",
            Self::SumGradients => "sum_gradients",
        }
    }
}

/// The text with what a launch needs to know of it.
#[derive(Debug, Clone)]
pub struct Program {
    /// What the text knows of the flow.
    constants: String,
    /// Without the kernels' entries.
    text: String,
    pub lanes: usize,
    pub threads: usize,
    pub shared_bytes: usize,
    /// Memory of each block.
    pub own_bytes: usize,
}

impl Program {
    /// With so many samples in a block.
    ///
    /// # Errors
    /// What a block needs at least is more than the shared memory holds.
    pub fn new(case: &Case<'_>, tables: &Tables, lanes: usize) -> Result<Self, Lack> {
        let threads = THREADS;
        let rooms = Rooms::new(case, tables, lanes, threads)?;
        let mut lines = constants(case, tables, lanes, threads);
        lines.extend(rooms.lines());
        Ok(Self {
            constants: lines.join("\n"),
            text: TEXTS.join("\n") + &shapes(case, tables) + &TEXTS_OF_SHAPES.join("\n"),
            lanes,
            threads,
            shared_bytes: rooms.shared,
            own_bytes: rooms.own,
        })
    }

    /// All that a compiler needs for some of the kernels, given how phases run.
    pub fn source(&self, phases: &str, kernels: &[Kernel]) -> String {
        let mut source = format!("{}\n\n{phases}\n{}\n", self.constants, self.text);
        for kernel in kernels {
            writeln!(source, "KERNEL({})", kernel.name())
                .expect("strings take all that is written");
        }
        source
    }
}

/// How many samples a block may have: 1, 2, 4, … as far as their sites and threads go.
pub fn lanes(sites: usize) -> impl Iterator<Item = usize> {
    let most = (SHARED_SITES / sites).clamp(1, MOST_LANES);
    (0..).map(|power| 1 << power).take_while(move |&lanes| lanes <= most)
}

/// All that the text knows of the flow, one definition a line.
fn constants(case: &Case<'_>, tables: &Tables, lanes: usize, threads: usize) -> Vec<String> {
    let network = &case.couplings[0].network;
    let per_row = network.updated_per_row;
    let (odd, even) = network.transform.outputs();
    let affine = network.transform == Transform::Affine;
    let config = &case.architecture.config;
    let sites = case.architecture.sites();
    let (real, tolerance) = match case.precision {
        Precision::F32 => ("float", "1e-6f"),
        Precision::F64 => ("double", "1e-13"),
    };
    let number = |name: &str, value: usize| format!("constexpr int {name} = {value};");
    let flag = |name: &str, value: bool| format!("constexpr bool {name} = {value};");
    vec![
        format!("typedef {real} real;"),
        format!("typedef unsigned {} Site;", if narrow(sites) { "short" } else { "int" }),
        number("LINEAR_SIZE", case.architecture.linear_size),
        number("SITES", sites),
        number("LANES", lanes),
        number("THREADS", threads),
        number("WIDTH", network.hidden_width),
        number("BRANCHES", network.branches),
        number("PER_ROW", per_row),
        number("PARAMETERS", odd + even),
        number("OUTPUTS", per_row * (odd + even)),
        number("ODD_OUTPUTS", per_row * odd),
        number("EVEN_OUTPUTS", per_row * even),
        number("SCALES", if affine { per_row } else { 0 }),
        number("MOST_WEIGHTS", tables.most_weights),
        number("WEIGHT_COUNT", tables.weight_count),
        number("ITERATIONS", 200),
        format!("constexpr real TOLERANCE = {tolerance};"),
        format!("constexpr unsigned USE_LATENTS = {};", Use::Latents as u32),
        flag("SINGLE", tables.shells.iter().all(|&(_, size, _)| size <= 1)),
        flag("ODD", network.conditioner == Conditioner::Odd),
        flag("LAYER", config.preconditioner),
        flag("TARGET", case.target),
        "enum Symmetry { NONE, MIXTURE, REGULARIZER };".into(),
        format!("constexpr Symmetry SYMMETRY = {};", symmetry(config.symmetry)),
    ]
}

/// Whether the number of a site has 16 bits.
pub fn narrow(sites: usize) -> bool {
    sites <= 1 << 16
}

fn symmetry(symmetry: Symmetry) -> &'static str {
    match symmetry {
        Symmetry::None | Symmetry::Construction => "NONE",
        Symmetry::Mixture => "MIXTURE",
        Symmetry::Regularizer => "REGULARIZER",
    }
}

/// The map of the flow, and the code for each shape.
fn shapes(case: &Case<'_>, tables: &Tables) -> String {
    let map = match case.couplings[0].network.transform {
        Transform::Affine => "Affine",
        Transform::Bump => "Bump",
    };
    let cases: String = tables
        .shapes
        .iter()
        .enumerate()
        .map(|(index, shape)| {
            let of = format!("Shape<{}, {}>", shape.inputs, shape.layers);
            format!("        case {index}: return work({of}());\n")
        })
        .collect();
    format!(
        "\nusing Map = {map};\n\n// Calls `work` with the shape of a coupling.\ntemplate <class Work>\n\
         DEVICE void with_shape(int shape, const Work& work) {{\n    switch (shape) {{\n{cases}    }}\n}}\n\n"
    )
}
