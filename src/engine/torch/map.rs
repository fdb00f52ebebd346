//! Evaluation of a flow's couplings with torch operations: any device, gradients by autograd.

use std::ops::Range;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::preconditioner::Preconditioner;
use crate::flow::coupling::{Conditioner, Convolution, Coupling, Network, Shell, Transform};

/// Everything of a flow but its parameters, as tensors on one device.
#[derive(Debug)]
pub struct Layout {
    couplings: Vec<Tables>,
    /// Numbers of elements and shapes of all parameters, in their order in the flat vector.
    sizes: Vec<i64>,
    shapes: Vec<[i64; 2]>,
}

/// The sites of one coupling.
#[derive(Debug)]
struct Tables {
    network: Network,
    rows: i64,
    /// (updated_per_row · rows): all rows of the first updated site, then of the second.
    updated: Tensor,
    shells: Vec<Sums>,
    /// What a convolution sees, and which of its features the rows see.
    convolution: Option<[Vec<Sums>; 2]>,
}

/// Weighted sums over the members of a shell.
#[derive(Debug)]
struct Sums {
    /// (size · rows): the first member of all rows, then the second.
    sites: Tensor,
    size: i64,
    weight: f64,
    /// So many inputs: one, or as many shells of single sites, whose sites follow each other.
    inputs: i64,
}

impl Sums {
    /// Shapes: values (sites, …) → (rows, …).
    fn of(&self, values: &Tensor) -> Tensor {
        let members = values.index_select(0, &self.sites);
        if self.size == 1 {
            return members * self.weight;
        }
        let members = members.unflatten(0, [self.size, -1]);
        members.sum_dim_intlist([0i64].as_slice(), false, None) * self.weight
    }
}

impl Layout {
    /// Copies the couplings' site tables to `device`.
    pub fn new(couplings: &[Coupling], device: Device) -> Self {
        let shapes: Vec<[i64; 2]> = couplings
            .iter()
            .flat_map(|coupling| coupling.network.parameter_shapes())
            .map(|shape| shape.map(|length| length as i64))
            .collect();
        Self {
            couplings: couplings.iter().map(|coupling| Tables::new(coupling, device)).collect(),
            sizes: shapes.iter().map(|shape| shape.iter().product()).collect(),
            shapes,
        }
    }
}

impl Tables {
    fn new(coupling: &Coupling, device: Device) -> Self {
        // (rows × columns), row-major, to all rows of each column together.
        let by_column = |sites: &[u32], columns: usize| {
            let sites: Vec<i64> = sites.iter().map(|&site| i64::from(site)).collect();
            let table = Tensor::from_slice(&sites).view([-1, columns as i64]);
            table.transpose(0, 1).contiguous().view([-1]).to_device(device)
        };
        let sums = |shells: &[Shell]| -> Vec<Sums> {
            let sums = |shell: &Shell| Sums {
                sites: by_column(&shell.sites, shell.size),
                size: shell.size as i64,
                weight: shell.weight,
                inputs: 1,
            };
            shells.iter().map(sums).collect()
        };
        let single = coupling.shells.iter().all(|shell| shell.size == 1 && shell.weight == 1.0);
        let shells = if single && !coupling.shells.is_empty() {
            let sites: Vec<u32> =
                coupling.shells.iter().flat_map(|shell| shell.sites.iter().copied()).collect();
            let inputs = coupling.shells.len() as i64;
            vec![Sums { sites: by_column(&sites, 1), size: 1, weight: 1.0, inputs }]
        } else {
            sums(&coupling.shells)
        };
        let convolution = coupling.convolution.as_ref();
        Self {
            network: coupling.network,
            rows: coupling.rows as i64,
            updated: by_column(&coupling.updated, coupling.network.updated_per_row),
            shells,
            convolution: convolution
                .map(|Convolution { stencil, seen, .. }| [stencil, seen].map(|part| sums(part))),
        }
    }

    /// Inputs of the rows' network, and the weights that follow those of the convolution.
    ///
    /// Shapes: field (sites, batch) → (inputs, rows · batch).
    fn inputs<'a>(&self, weights: &'a [Tensor], field: &Tensor) -> (Tensor, &'a [Tensor]) {
        let values = |sums: &[Sums]| -> Vec<Tensor> {
            sums.iter().map(|sum| sum.of(field).view([sum.inputs, -1])).collect()
        };
        let mut inputs = values(&self.shells);
        let Some([stencil, seen]) = &self.convolution else {
            return (Tensor::cat(&inputs, 0), weights);
        };
        let stencil = Tensor::cat(&values(stencil), 0);
        let (features, weights) = match self.network.conditioner {
            Conditioner::Elu => (weights[1].addmm(&weights[0], &stencil).elu(), &weights[2..]),
            Conditioner::Odd => (weights[0].matmul(&stencil).tanh(), &weights[1..]),
        };
        // (channels, sites · batch) to (sites, channels, batch), whose sums are (rows, channels, batch).
        let channels = features.size()[0];
        let features = features.view([channels, -1, field.size()[1]]).transpose(0, 1);
        inputs.extend(
            seen.iter().map(|sum| sum.of(&features).transpose(0, 1).reshape([channels, -1])),
        );
        (Tensor::cat(&inputs, 0), weights)
    }
}

/// The whole map between latents z and field, at given parameters.
#[derive(Debug)]
pub struct Map {
    layout: Rc<Layout>,
    /// Parameters of each coupling, in the order of [`Network::parameter_shapes`].
    weights: Vec<Vec<Tensor>>,
    preconditioner: Option<Rc<Preconditioner>>,
}

impl Map {
    /// Cuts the flat parameter vector into the couplings' weights.
    pub(super) fn new(
        layout: Rc<Layout>,
        parameters: &Tensor,
        preconditioner: Option<Rc<Preconditioner>>,
    ) -> Self {
        // One split: its gradient is one concatenation, where slices would each fill a full vector.
        let parts = parameters.split_with_sizes(&layout.sizes, 0);
        let mut weights = parts.iter().zip(&layout.shapes).map(|(part, shape)| part.view(*shape));
        let weights = layout
            .couplings
            .iter()
            .map(|tables| weights.by_ref().take(tables.network.parameter_shapes().len()).collect())
            .collect();
        Self { layout, weights, preconditioner }
    }

    /// x = g(z) with ln|det ∂x/∂z|.
    ///
    /// Shapes: z (batch, L, L) → x (batch, L, L), log_det (batch).
    pub fn forward(&self, z: &Tensor) -> (Tensor, Tensor) {
        let (field, log_det) = self.forward_through(0..self.weights.len(), z);
        match &self.preconditioner {
            Some(preconditioner) => {
                let (field, constant) = preconditioner.forward(&field);
                (field, log_det + constant)
            }
            None => (field, log_det),
        }
    }

    /// z = g⁻¹(x) with ln|det ∂z/∂x|.
    ///
    /// Shapes: x (batch, L, L) → z (batch, L, L), log_det (batch).
    pub fn inverse(&self, x: &Tensor) -> (Tensor, Tensor) {
        let Some(preconditioner) = &self.preconditioner else {
            return self.inverse_through(0..self.weights.len(), x);
        };
        let (y, constant) = preconditioner.inverse(x);
        let (z, log_det) = self.inverse_through(0..self.weights.len(), &y);
        (z, log_det + constant)
    }

    /// The part of g that a range of the couplings makes, with its log_det, without the preconditioner.
    ///
    /// Shapes: field (batch, L, L) → (batch, L, L), (batch).
    pub fn forward_through(&self, couplings: Range<usize>, field: &Tensor) -> (Tensor, Tensor) {
        let like = field;
        let (mut field, mut log_det) = sites_first(like);
        for (tables, weights) in self.through(couplings) {
            let map = MonotoneMap::new(tables, weights, &field);
            let latent = map.gather(&field);
            field = map.scatter(&field, &map.forward(&latent));
            log_det += map.log_det(&latent);
        }
        (batch_first(&field, like), log_det)
    }

    /// The inverse of [`Map::forward_through`] for the same couplings, with its own log_det.
    pub fn inverse_through(&self, couplings: Range<usize>, field: &Tensor) -> (Tensor, Tensor) {
        let like = field;
        let (mut field, mut log_det) = sites_first(like);
        for (tables, weights) in self.through(couplings).rev() {
            let map = MonotoneMap::new(tables, weights, &field);
            let latent = map.inverse(&map.gather(&field));
            log_det -= map.log_det(&latent);
            field = map.scatter(&field, &latent);
        }
        (batch_first(&field, like), log_det)
    }

    /// Sites and weights of a range of the couplings.
    fn through(
        &self,
        couplings: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&Tables, &Vec<Tensor>)> {
        let tables = &self.layout.couplings[couplings.clone()];
        tables.iter().zip(&self.weights[couplings])
    }
}

/// (batch, L, L) → (sites, batch), in which a gather of sites copies rows, and a log_det of 0.
fn sites_first(field: &Tensor) -> (Tensor, Tensor) {
    let batch = field.size()[0];
    let zero = Tensor::zeros([batch], (field.kind(), field.device()));
    (field.reshape([batch, -1]).transpose(0, 1).contiguous(), zero)
}

/// (sites, batch) → the shape of `like`, (batch, L, L).
fn batch_first(field: &Tensor, like: &Tensor) -> Tensor {
    field.transpose(0, 1).reshape(like.size())
}

/// The monotone maps of one coupling for all rows and samples, their parameters already computed from the
/// frozen sites.
struct MonotoneMap<'a> {
    tables: &'a Tables,
    /// Shapes: each (updated_per_row, rows · batch).
    parameters: Parameters,
}

enum Parameters {
    Affine { s: Tensor, t: Tensor },
    Bump { s: Tensor, t: Tensor, a: Tensor, b: Tensor, c: Tensor },
}

impl<'a> MonotoneMap<'a> {
    /// Shapes: field (sites, batch).
    fn new(tables: &'a Tables, weights: &[Tensor], field: &Tensor) -> Self {
        let columns = tables.rows * field.size()[1];
        let network = &tables.network;
        let outputs = if network.inputs == 0 {
            constant_outputs(network, weights, columns)
        } else {
            let (inputs, weights) = tables.inputs(weights, field);
            match network.conditioner {
                Conditioner::Elu => elu_networks(network, weights, &inputs),
                Conditioner::Odd => odd_network(weights, network.hidden_layers, &inputs),
            }
        };
        let sites = network.updated_per_row as i64;
        let output = |i: i64| outputs.narrow(0, i * sites, sites);
        let parameters = match (network.transform, network.conditioner) {
            (Transform::Affine, conditioner) => {
                // Odd outputs come first where the network tells them apart.
                let (s, t) = match conditioner {
                    Conditioner::Elu => (0, 1),
                    Conditioner::Odd => (1, 0),
                };
                let scale = weights.last().expect("affine couplings end with the scale");
                Parameters::Affine { s: output(s).tanh() * scale, t: output(t) }
            }
            (Transform::Bump, _) => Parameters::Bump {
                t: output(0),
                c: output(1),
                s: output(2),
                a: output(3).softplus(),
                b: output(4).softplus(),
            },
        };
        Self { tables, parameters }
    }

    /// The updated sites' values. Shapes: (sites, batch) → (updated_per_row, rows · batch).
    fn gather(&self, field: &Tensor) -> Tensor {
        let sites = self.tables.network.updated_per_row as i64;
        field.index_select(0, &self.tables.updated).view([sites, -1])
    }

    /// The field with the updated sites' new values.
    fn scatter(&self, field: &Tensor, values: &Tensor) -> Tensor {
        field.index_copy(0, &self.tables.updated, &values.view([-1, field.size()[1]]))
    }

    /// y from u.
    fn forward(&self, u: &Tensor) -> Tensor {
        match &self.parameters {
            Parameters::Affine { s, t } => u * s.exp() + t,
            Parameters::Bump { s, t, a, b, c } => u * s.exp() + t + a * (b * u + c).tanh(),
        }
    }

    /// dy/du.
    fn derivative(&self, u: &Tensor) -> Tensor {
        match &self.parameters {
            Parameters::Affine { s, .. } => s.exp(),
            Parameters::Bump { s, a, b, c, .. } => {
                s.exp() + a * b * (1.0 - (b * u + c).tanh().square())
            }
        }
    }

    /// Σ ln dy/du over all updated sites. Shapes: (batch).
    fn log_det(&self, u: &Tensor) -> Tensor {
        let logarithms = match &self.parameters {
            Parameters::Affine { s, .. } => s.shallow_clone(),
            Parameters::Bump { .. } => self.derivative(u).log(),
        };
        let sites = self.tables.updated.size()[0];
        logarithms.view([sites, -1]).sum_dim_intlist([0i64].as_slice(), false, None)
    }

    /// u from y. Differentiable in y and in the parameters, twice.
    fn inverse(&self, y: &Tensor) -> Tensor {
        match &self.parameters {
            Parameters::Affine { s, t } => (y - t) * (-s).exp(),
            Parameters::Bump { .. } => {
                let root = tch::no_grad(|| self.root(y));
                // At the root this step of Newton's changes no value, but has the first derivatives of the inverse; one from
                // where these are right has the second ones too.
                let once = &root - (self.forward(&root) - y) / self.derivative(&root).detach();
                &once - (self.forward(&once) - y) / self.derivative(&once)
            }
        }
    }

    /// Newton's method for y(u) = y, kept within a bracket: y - t is within a of e^s u.
    fn root(&self, y: &Tensor) -> Tensor {
        let Parameters::Bump { s, t, a, .. } = &self.parameters else {
            unreachable!("an affine map has its inverse in closed form")
        };
        let shrink = (-s).exp();
        let (mut low, mut high) = ((y - t - a) * &shrink, (y - t + a) * &shrink);
        let mut u = (y - t) * &shrink;
        let tolerance = if y.kind() == Kind::Double { 1e-14 } else { 1e-7 };
        for iteration in 1..=100 {
            let excess = self.forward(&u) - y;
            let above = excess.gt(0.0);
            high = u.where_self(&above, &high);
            low = low.where_self(&above, &u);
            let newton = &u - excess / self.derivative(&u);
            let inside = newton.ge_tensor(&low).logical_and(&newton.le_tensor(&high));
            let next = newton.where_self(&inside, &((&low + &high) * 0.5));
            let change = (&next - &u).abs() - next.abs() * tolerance;
            u = next;
            // Looking costs a wait for the device; NaN never compares as still moving.
            if iteration % 4 == 0 && change.gt(tolerance).any().int64_value(&[]) == 0 {
                break;
            }
        }
        u
    }
}

/// All networks of a coupling. Shapes: inputs (shells, columns) → (outputs, columns).
fn elu_networks(network: &Network, weights: &[Tensor], inputs: &Tensor) -> Tensor {
    let branches = weights.chunks_exact(2 * network.hidden_layers + 2);
    let outputs: Vec<Tensor> = branches.map(|weights| elu_network(weights, inputs)).collect();
    Tensor::cat(&outputs, 0)
}

/// Shapes: inputs (shells, columns) → (outputs, columns).
fn elu_network(weights: &[Tensor], inputs: &Tensor) -> Tensor {
    let mut hidden = inputs.shallow_clone();
    for (i, layer) in weights.chunks_exact(2).enumerate() {
        if i > 0 {
            hidden = hidden.elu();
        }
        hidden = layer[1].addmm(&layer[0], &hidden);
    }
    hidden
}

/// Odd outputs, then even ones. Shapes: inputs (shells, columns) → (outputs, columns).
fn odd_network(weights: &[Tensor], hidden_layers: usize, inputs: &Tensor) -> Tensor {
    let mut hidden = inputs.shallow_clone();
    for layer in &weights[..hidden_layers] {
        hidden = layer.matmul(&hidden).tanh();
    }
    let [odd, skip, even, bias] = [0, 1, 2, 3].map(|i| &weights[hidden_layers + i]);
    let shifts = odd.matmul(&hidden) + skip.matmul(inputs);
    Tensor::cat(&[shifts, bias.addmm(even, &hidden.square())], 0)
}

/// Outputs of a coupling that sees nothing: no shifts, and the even outputs' biases.
fn constant_outputs(network: &Network, weights: &[Tensor], columns: i64) -> Tensor {
    let odd = network.transform.outputs().0 * network.updated_per_row;
    let even = weights[0].expand([-1, columns], false);
    let shifts = Tensor::zeros([odd as i64, columns], (even.kind(), even.device()));
    Tensor::cat(&[shifts, even], 0)
}
