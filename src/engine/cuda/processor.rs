//! What runs kernels: a GPU, or in tests the host.

use std::fmt::Debug;

use super::program::{Kernel, Program};

/// What kernels get: `Arguments` of `kernels/block.cuh`. Addresses are of the processor's memory.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Arguments {
    pub couplings: u64,
    pub shells: u64,
    pub sites: u64,
    pub seers: u64,
    pub weights: u64,
    pub basis: u64,
    pub transposed_basis: u64,
    pub spectra: u64,
    pub tiles: u64,
    pub tile_count: u64,
    /// 0: none.
    pub given: u64,
    pub key: u64,
    pub first_sample: u64,
    pub begin: u64,
    pub end: u64,
    pub symmetry_weight: f64,
    pub latents: u64,
    pub latent_count: u64,
    pub own: u64,
    pub sums: u64,
    pub field: u64,
    pub derivative: u64,
    pub batch: u64,
    pub gradient: u64,
}

/// A device with its own memory. Its failures are panics with a message in words, as those of tensor libraries.
pub trait Processor: Debug + Send + Sync {
    /// A piece of its memory, aligned to 16 bytes and freed when dropped.
    type Memory: Debug + Send;
    /// A program that it can run.
    type Loaded: Debug + Send + Sync;

    /// Bytes of shared memory that a block may have.
    fn shared_limit(&self) -> usize;
    /// Blocks that run side by side.
    fn multiprocessors(&self) -> usize;
    /// Most blocks of a launch, each of which has a gradient of its own.
    fn most_blocks(&self) -> usize;
    fn allocate(&self, bytes: usize) -> Self::Memory;
    fn address(memory: &Self::Memory) -> u64;
    /// Copies to the beginning of a piece of memory.
    fn write(&self, bytes: &[u8], memory: &mut Self::Memory);
    /// Copies from its beginning, after all that was launched.
    fn read(&self, memory: &Self::Memory, bytes: &mut [u8]);
    fn load(&self, program: &Program) -> Self::Loaded;
    /// Runs a kernel on so many blocks.
    fn launch(&self, loaded: &Self::Loaded, kernel: Kernel, blocks: usize, arguments: &Arguments);
}
