//! Files: written as a whole or not at all, with checksums, units and meanings.

use std::collections::BTreeMap;

pub mod atomic;
pub(crate) mod content;
pub(crate) mod dimension_scale;
mod hdf5_image;
pub mod schema;
pub mod seal;
pub mod state;
pub(crate) mod tensor_file;

/// Numbers by the name that the schema gives them.
pub type Numbers = BTreeMap<String, f64>;
