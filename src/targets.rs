//! What flows are trained towards and chains sample: the continuous dual of the Ising model, its exact values and its
//! observables.

pub mod dual;
pub mod exact;
pub mod gaussian;
pub mod ising;
pub mod observe;
pub mod wolff;
