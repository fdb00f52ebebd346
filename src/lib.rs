//! Hierarchical normalizing flows for the dual Ising model, swept over temperature and depth.
//!
//! After Li and Wang, "Neural Network Renormalization Group" (arXiv:1802.02840); equations and
//! appendices are cited as in the paper. Data flows one way:
//!
//! ```text
//! config.toml ─ config ─▶ plan ─▶ sweep ─ rank ─▶ run ─────────────▶ store ─▶ collect, status
//!               values    tasks   which task      build: ising, flow    task files  sweep.h5
//!                                 on which rank   train: train, adam
//!                                                 evaluate: evaluate
//!                                                 sample: sampler, diagnostics
//!                  finished task ─ study: target, response, mutual_information, coarse ─▶ store ─▶ collect
//! ```
//!
//! | symbol | code | meaning, shape |
//! |---|---|---|
//! | L, N = L² | `linear_size`, `sites` | periodic square lattice |
//! | T, β = 1/T | `temperature`, `beta` | in units of J/k_B |
//! | x | `field` | (batch, N), x = g(z) |
//! | z | latent | (batch, N), z ~ N(0, I) |
//! | ln π(x) | `ising::Target::ln_density` | (batch), unnormalized |
//! | ln q(x) | `ln_q` | (batch), normalized |
//! | ln\|det\| | `log_det` | (batch) |

pub mod adam;
pub mod adaptation;
pub mod bridge;
pub mod checkpoint;
pub mod claims;
pub mod cli;
pub mod coarse;
pub mod collect;
pub mod config;
pub mod convergence;
pub mod course;
pub mod data;
pub mod diagnostics;
mod dimension_scale;
pub mod dual;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod exact;
pub mod export;
pub mod flow;
pub mod gaussian;
mod hdf5_image;
pub mod hmc;
pub mod host;
pub mod independence;
pub mod ising;
pub mod lattice;
pub mod learn;
pub mod mutual_information;
pub mod observe;
pub mod physical;
pub mod plan;
pub mod progress;
pub mod queue;
pub mod random;
pub mod rank;
pub mod response;
pub mod run;
pub mod sample;
pub mod sampler;
pub mod schedule;
pub mod schema;
pub mod seal;
pub mod seed;
pub mod shares;
pub mod signals;
pub mod stats;
pub mod status;
pub mod store;
pub mod study;
pub mod summary;
pub mod sweep;
pub mod target;
pub mod task_file;
mod tensor_file;
pub mod train;
pub mod trained;
pub mod wolff;

/// Version of the code, with the git commit where it was built from one.
pub const VERSION: &str = env!("NEURALRG_VERSION");
