//! Monte Carlo of the target with a trained flow, and without one: chains, evaluations, observables on the way.

pub mod adaptation;
pub mod config;
pub mod course;
pub mod diagnostics;
pub mod estimates;
pub mod evaluate;
pub mod hmc;
pub mod independence;
pub mod kernel;
pub mod physical;
pub mod replicas;
pub mod sampler;
pub mod states;
