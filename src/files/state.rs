//! States of the stages of a task as named arrays, which checkpoints hold.

use std::collections::BTreeMap;

use ndarray::{Array, ArrayD, Dimension, IntoDimension, IxDyn};

/// A state as arrays with names.
pub type Saved = BTreeMap<String, ArrayD<f64>>;

/// A number as a state keeps it: ().
pub fn number(value: f64) -> ArrayD<f64> {
    ArrayD::from_elem(IxDyn(&[]), value)
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub(crate) String);

/// What was made of a saved state, if it can be used.
pub type Restored<T> = Result<T, Unusable>;

/// A length that may be any.
pub const ANY: usize = usize::MAX;

/// The number of this name in a state.
///
/// # Errors
/// There is none.
pub fn read_number(state: &Saved, name: &str) -> Restored<f64> {
    Ok(array(state, name, [])?.into_scalar())
}

/// The array of this name in a state, which must be of this shape, in which [`ANY`] stands for any length.
///
/// # Errors
/// There is none, or it is another one.
pub fn array<S: IntoDimension>(
    state: &Saved,
    name: &str,
    shape: S,
) -> Restored<Array<f64, S::Dim>> {
    let array = state.get(name).ok_or_else(|| Unusable(format!("it has no array {name}")))?;
    let shape = shape.into_dimension();
    let (found, wanted) = (array.shape(), shape.slice().to_vec());
    let fits = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|(length, wanted)| *wanted == ANY || length == wanted);
    if fits {
        return Ok(array.clone().into_dimensionality().expect("it has as many axes"));
    }
    let wanted: Vec<String> = wanted
        .iter()
        .map(|&length| if length == ANY { "any".into() } else { length.to_string() })
        .collect();
    Err(Unusable(format!("its array {name} has the shape {found:?}, not [{}]", wanted.join(", "))))
}

/// A state as part of a larger one: `part/` before every name.
pub fn under(part: &str, state: Saved) -> Saved {
    state.into_iter().map(|(name, array)| (format!("{part}/{name}"), array)).collect()
}

/// What [`under`] has put into a larger state.
pub fn within(part: &str, state: &Saved) -> Saved {
    let prefix = format!("{part}/");
    let inside = |(name, array): (&String, &ArrayD<f64>)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), array.clone()))
    };
    state.iter().filter_map(inside).collect()
}
