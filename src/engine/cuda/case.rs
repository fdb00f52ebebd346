//! What kernels are written for, and for what there are none.

use crate::engine::config::Precision;
use crate::flow::Architecture;
use crate::flow::coupling::Coupling;

/// Widest hidden layer: a thread keeps two of them in its registers.
const MOST_WIDTH: usize = 64;
/// Most inputs of a network, for the same reason.
const MOST_INPUTS: usize = 48;

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
