//! A flow's couplings as tables of numbers, and the order of their weights, for kernels (`kernels/block.cuh`,
//! `kernels/network.cuh`).

use std::collections::{BTreeMap, HashMap};

use crate::flow::coupling::{Conditioner, Coupling, Network};

/// Weights that are read together; rows of packed ones are whole groups.
const GROUP: usize = 4;

/// Sizes that couplings of a flow may differ in; the kernels have code for each. Couplings that see fewer sites than others have
/// inputs of zero in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub inputs: usize,
    pub layers: usize,
}

/// All that kernels look up.
#[derive(Debug, Default)]
pub struct Tables {
    pub shapes: Vec<Shape>,
    /// Ten numbers each: `Coupling` of the kernels.
    pub couplings: Vec<[i32; 10]>,
    /// Place, sites of each row, weight.
    pub shells: Vec<(i32, i32, f64)>,
    pub sites: Pool,
    pub seers: Pool,
    /// Where each parameter lies among the packed ones.
    pub packed: Vec<usize>,
    /// Packed ones, with those that fill the groups.
    pub weight_count: usize,
    /// Of one coupling.
    pub most_weights: usize,
    /// Values that a pass overwrites.
    pub records: usize,
    /// Inputs of all rows of one coupling.
    pub most_inputs: usize,
}

/// Lists one after the other, each of them once.
#[derive(Debug, Default)]
pub struct Pool {
    pub numbers: Vec<u32>,
    places: HashMap<Vec<u32>, usize>,
}

impl Pool {
    /// Where a list begins.
    fn place(&mut self, list: Vec<u32>) -> i32 {
        let numbers = &mut self.numbers;
        let place = *self.places.entry(list).or_insert_with_key(|list| {
            numbers.extend(list);
            numbers.len() - list.len()
        });
        i32::try_from(place).expect("tables are far below 2³¹ numbers")
    }
}

fn number(value: usize) -> i32 {
    i32::try_from(value).expect("counts of a flow are far below 2³¹")
}

/// (rows × columns) → (columns × rows).
fn by_columns(values: &[u32], columns: usize) -> Vec<u32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns)).copied().collect()
}

impl Tables {
    pub fn new(couplings: &[Coupling]) -> Self {
        let mut tables = Self::default();
        let inputs = couplings.iter().map(|coupling| coupling.network.inputs).max().unwrap_or(0);
        for coupling in couplings {
            tables.add(coupling, inputs);
        }
        tables
    }

    /// A coupling, with places for so many inputs, if it has any.
    fn add(&mut self, coupling: &Coupling, inputs: usize) {
        let network = &coupling.network;
        let blind = network.inputs == 0;
        let shape = match blind {
            true => Shape { inputs: 0, layers: 0 },
            false => Shape { inputs, layers: network.hidden_layers },
        };
        let weights = self.weight_count;
        self.add_weights(network, shape.inputs);
        let shells = self.shells.len();
        for shell in &coupling.shells {
            let place = self.sites.place(by_columns(&shell.sites, shell.size));
            self.shells.push((place, number(shell.size), shell.weight));
        }
        self.shells.resize(shells + shape.inputs, (0, 0, 0.0));
        let (seen, seers) = seers(coupling);
        let updated = self.sites.place(by_columns(&coupling.updated, network.updated_per_row));
        let (seen_count, seen) = (seen.len(), self.sites.place(seen));
        let (shape, seers) = (self.index_of(shape), self.seers.place(seers));
        self.couplings.push([
            number(shape),
            number(coupling.rows),
            number(weights),
            number(self.weight_count - weights),
            updated,
            number(self.records),
            number(shells),
            seen,
            number(seen_count),
            seers,
        ]);
        self.records += coupling.updated.len();
        self.most_weights = self.most_weights.max(self.weight_count - weights);
        self.most_inputs = self.most_inputs.max(coupling.rows * self.shapes[shape].inputs);
    }

    fn index_of(&mut self, shape: Shape) -> usize {
        let known = self.shapes.iter().position(|other| *other == shape);
        known.unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        })
    }

    /// Each matrix transposed, so that the weights of one input lie together; those that multiply the sites seen have rows for so
    /// many inputs.
    fn add_weights(&mut self, network: &Network, inputs_with_place: usize) {
        for (index, [outputs, inputs]) in network.parameter_shapes().into_iter().enumerate() {
            let stride = outputs.next_multiple_of(GROUP);
            let place = |weight: usize| weight % inputs * stride + weight / inputs;
            self.packed
                .extend((0..outputs * inputs).map(|weight| self.weight_count + place(weight)));
            let rows = if multiplies_sites(network, index) { inputs_with_place } else { inputs };
            self.weight_count += rows * stride;
        }
    }
}

/// Whether it is a network's inputs that a matrix multiplies, by its number among the parameters.
fn multiplies_sites(network: &Network, index: usize) -> bool {
    let layers = network.hidden_layers;
    match network.conditioner {
        // Weights and biases of the layers and of the outputs.
        Conditioner::Elu => {
            let of_branch = 2 * (layers + 1);
            index < of_branch * network.branches && index.is_multiple_of(of_branch)
        }
        Conditioner::Odd => network.inputs > 0 && (index == 0 || index == layers + 1),
    }
}

/// The sites that a coupling's rows see; and for each of them where the list of who sees it begins, at last where the list of the
/// last one ends, then these lists: shell × rows + row.
fn seers(coupling: &Coupling) -> (Vec<u32>, Vec<u32>) {
    let mut by_site: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (k, shell) in coupling.shells.iter().enumerate() {
        for (place, &site) in shell.sites.iter().enumerate() {
            let input = k * coupling.rows + place / shell.size;
            by_site.entry(site).or_default().push(input as u32);
        }
    }
    let mut starts = vec![0];
    let mut lists: Vec<u32> = Vec::new();
    for list in by_site.values() {
        lists.extend(list);
        starts.push(lists.len() as u32);
    }
    starts.extend(lists);
    (by_site.into_keys().collect(), starts)
}
