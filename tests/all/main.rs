//! All tests of the program and its physics, one module for what one file is about; in one test program, so that they are
//! compiled and linked once and fill all cores.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that panics has failed")]

mod architecture;
mod bad_input;
mod calibration;
mod canonical;
mod checkpoints;
mod cli;
mod common;
mod convergence;
mod documentation;
mod documented_files;
mod engines;
mod enumeration;
mod exact;
mod faults;
mod flows;
mod free_energy;
mod gpu;
mod growth;
mod hmc;
mod identity;
mod jobs;
mod learning;
mod mpi;
mod native;
mod reference;
mod replicas;
mod resume;
mod study;
mod surroundings;
mod teams;
mod trained;
mod warm_start;
