//! The text of a flow's kernels, and where a block keeps what.

use std::fmt::Write;

use super::tables::Tables;
use crate::engine::config::Precision;
use crate::flow::Architecture;
use crate::flow::config::Symmetry;
use crate::flow::coupling::{Conditioner, Coupling, Transform};
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

/// Widest hidden layer: a thread keeps two of them in its registers.
const MOST_WIDTH: usize = 64;
/// Most inputs of a network, for the same reason.
const MOST_INPUTS: usize = 48;
/// Most sites of samples that share a block: those that the finest couplings of a checkerboard update have two for each thread.
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

/// What a program is written for.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub architecture: &'a Architecture,
    pub couplings: &'a [Coupling],
    pub target: bool,
    pub precision: Precision,
    /// Bytes of shared memory that a block may have.
    pub shared_limit: usize,
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

/// Why there is no program, in words.
pub type Lack = String;

/// What these kernels lack for a flow, in words; `None`: nothing but perhaps memory.
pub fn lack(couplings: &[Coupling]) -> Option<Lack> {
    let Some(first) = couplings.first().map(|coupling| &coupling.network) else {
        return Some("flows without couplings".into());
    };
    couplings.iter().find_map(|coupling| {
        let network = &coupling.network;
        if network.convolution.is_some() {
            Some("flow.channels above 0".into())
        } else if network.hidden_width > MOST_WIDTH {
            Some(format!("flow.hidden_width = {} (at most {MOST_WIDTH})", network.hidden_width))
        } else if network.inputs > MOST_INPUTS {
            Some(format!("couplings that see {} sites (at most {MOST_INPUTS})", network.inputs))
        } else if network.updated_per_row != first.updated_per_row {
            Some("couplings of several kinds".into())
        } else {
            None
        }
    })
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

/// Where a block keeps what: in shared memory, or in memory of its own.
#[derive(Debug, Default)]
struct Rooms {
    places: Vec<(&'static str, bool, usize)>,
    shared: usize,
    own: usize,
    chunk: usize,
}

/// All places begin at multiples of so many bytes.
const ALIGNMENT: usize = 16;

impl Rooms {
    /// With the largest chunk of rows beside which the arrays that derivatives use most fit, or the field alone.
    fn new(case: &Case<'_>, tables: &Tables, lanes: usize, threads: usize) -> Result<Self, Lack> {
        let least = (threads / 8).max(lanes);
        let chunks = || {
            std::iter::successors(Some(threads), |chunk| Some(chunk / 2))
                .take_while(move |chunk| *chunk >= least)
        };
        let fits = |(chunk, arrays)| {
            let rooms = Self::with_chunk(case, tables, (lanes, threads), chunk, arrays);
            (rooms.shared <= case.shared_limit).then_some(rooms)
        };
        let with_arrays = chunks().filter(|chunk| 2 * chunk >= threads).map(|chunk| (chunk, true));
        with_arrays.chain(chunks().map(|chunk| (chunk, false))).find_map(fits).ok_or_else(|| {
            format!(
                "fields of {0} × {0} sites with networks of width {1}: a block has {2} bytes of shared memory",
                case.architecture.linear_size,
                case.couplings[0].network.hidden_width,
                case.shared_limit
            )
        })
    }

    fn with_chunk(
        case: &Case<'_>,
        tables: &Tables,
        (lanes, threads): (usize, usize),
        chunk: usize,
        arrays: bool,
    ) -> Self {
        let bytes = match case.precision {
            Precision::F32 => 4,
            Precision::F64 => 8,
        };
        let field = case.architecture.sites() * lanes * bytes;
        let mut rooms = Self { chunk, ..Self::default() };
        rooms.put("TOTALS", true, lanes * 6 * 8);
        rooms.put("SLOTS", true, threads * 8);
        rooms.put("COEFFICIENTS", true, 3 * lanes * bytes);
        rooms.put("WEIGHTS", true, 2 * tables.most_weights * bytes);
        rooms.put("PARTS", true, 16 * threads * bytes);
        rooms.put("FIELD", true, field);
        let panel = panel_units(case, tables) * (chunk + 1) * bytes;
        let at = rooms.put("PANEL", true, panel);
        let symmetry = case.architecture.config.symmetry;
        rooms.put("COTANGENT", arrays, field);
        rooms.put("SCORE", arrays, field);
        // While these are in use, the panel is not.
        let room = field.next_multiple_of(ALIGNMENT);
        if 2 * room <= panel {
            rooms.places.extend([("IMAGE", true, at), ("SCRATCH", true, at + room)]);
        } else {
            for name in ["IMAGE", "SCRATCH"] {
                rooms.put_where_it_fits(name, case.shared_limit, field);
            }
        }
        let inputs = tables.most_inputs * lanes * bytes;
        rooms.put_where_it_fits("SPREAD", case.shared_limit, inputs);
        let mirrored = matches!(symmetry, Symmetry::Mixture | Symmetry::Regularizer);
        match mirrored {
            true => rooms.put_where_it_fits("MIRROR", case.shared_limit, field),
            // Derivatives of the inverse keep the latents there.
            false => rooms.put("MIRROR", false, field),
        };
        let record = tables.records * lanes * bytes;
        rooms.put("RECORD", false, record);
        rooms.put("MIRROR_RECORD", false, if mirrored { record } else { 0 });
        rooms
    }

    /// Returns where it begins.
    fn put(&mut self, name: &'static str, shared: bool, bytes: usize) -> usize {
        let end = if shared { &mut self.shared } else { &mut self.own };
        let begin = *end;
        *end += bytes.next_multiple_of(ALIGNMENT);
        self.places.push((name, shared, begin));
        begin
    }

    fn put_where_it_fits(&mut self, name: &'static str, limit: usize, bytes: usize) -> usize {
        let shared = self.shared + bytes.next_multiple_of(ALIGNMENT) <= limit;
        self.put(name, shared, bytes)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("constexpr int CHUNK = {};", self.chunk),
            // One more than there are items spreads the units over the memory's banks.
            format!("constexpr int PANEL_STRIDE = {};", self.chunk + 1),
            format!("constexpr long long OWN_BYTES = {};", self.own),
            "struct Place { bool shared; long long offset; };".into(),
        ];
        lines.extend(self.places.iter().map(|(name, shared, offset)| {
            format!("constexpr Place {name} = {{{shared}, {offset}}};")
        }));
        lines
    }
}

/// Rows of the panel (`Shape` of the kernels) of the largest shape.
fn panel_units(case: &Case<'_>, tables: &Tables) -> usize {
    let network = &case.couplings[0].network;
    let outputs = network.updated_per_row * network.transform.parameters();
    let scales = if network.transform == Transform::Affine { network.updated_per_row } else { 0 };
    let units = tables.shapes.iter().map(|shape| {
        let hidden = network.branches * shape.layers * network.hidden_width;
        shape.inputs + 2 * hidden + outputs + scales + 1
    });
    units.max().unwrap_or(0)
}
