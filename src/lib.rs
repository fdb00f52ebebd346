//! Hierarchical normalizing flows for the dual Ising model, swept over temperature and depth.
//!
//! After Li and Wang, "Neural Network Renormalization Group" (arXiv:1802.02840); equations and
//! appendices are cited as in the paper. Data flows one way:
//!
//! ```text
//! config.toml ─ config ─▶ sweep ────────────▶ task ────────────────▶ files ─▶ sweep: collect, status
//!               values    plan, queue: which  run: build, train,     task     sweep.h5
//!                         task on which rank  evaluate, sample       files
//! ```
//!
//! ARCHITECTURE.md has all rooms in their order, from the bottom up; none imports from one above it in the house.
//!
//! | symbol | code | meaning, shape |
//! |---|---|---|
//! | L, N = L² | `linear_size`, `sites` | periodic square lattice |
//! | T, β = 1/T | `temperature`, `beta` | in units of J/k_B |
//! | x | `field` | (batch, N), x = g(z) |
//! | z | latent | (batch, N), z ~ N(0, I) |
//! | ln π(x) | `targets::density::Density::ln_density` | (batch), unnormalized |
//! | ln q(x) | `ln_q` | (batch), normalized |
//! | ln\|det\| | `log_det` | (batch) |

pub(crate) mod bounds;
pub mod canonical;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod files;
pub mod flow;
pub mod host;
pub mod lattice;
pub mod random;
pub mod ranks;
pub mod sampling;
pub mod seed;
pub mod signals;
pub mod statistics;
pub mod study;
pub mod sweep;
pub mod targets;
pub mod task;
pub mod train;

/// Raised when a reader of the old task files could not read the new ones. Task files of version 2 have a checksum
/// in their user block, and chains of several samplers; those of version 3 also say there what they are of.
pub const FORMAT_VERSION: i64 = 3;
/// Version of the code, with the git commit where it was built from one.
pub const VERSION: &str = env!("NEURALRG_VERSION");
