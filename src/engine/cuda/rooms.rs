//! Where a block keeps what.

use super::case::{Case, Lack};
use super::tables::Tables;
use crate::flow::config::Symmetry;
use crate::flow::coupling::Transform;

/// Where a block keeps what: in shared memory, or in memory of its own.
#[derive(Debug, Default)]
pub struct Rooms {
    places: Vec<(&'static str, bool, usize)>,
    pub shared: usize,
    pub own: usize,
    chunk: usize,
}

/// All places begin at multiples of so many bytes.
const ALIGNMENT: usize = 16;

impl Rooms {
    /// With the largest chunk of rows beside which the arrays that derivatives use most fit, or the field alone.
    pub fn new(
        case: &Case<'_>,
        tables: &Tables,
        lanes: usize,
        threads: usize,
    ) -> Result<Self, Lack> {
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
        let bytes = case.precision.bytes();
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

    pub fn lines(&self) -> Vec<String> {
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
