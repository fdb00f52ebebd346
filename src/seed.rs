//! Random numbers as a function of (seed, task, stage, step), never of rank, thread or wall time.
//!
//! Each step has a key of its own, so that neither the number of ranks nor the order of the tasks changes a
//! result, and a step can be repeated without those before it.

use crate::random::Random;

/// The part of a task that draws random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Initialize = 0,
    Train = 1,
    Evaluate = 2,
    /// One of each sampler; step -1 draws where its chains start.
    LatentHmc = 3,
    PhysicalHmc = 4,
    FourierHmc = 5,
    Independence = 6,
    /// Observables during the training; even steps are those of latent HMC, odd ones those of its control.
    Measure = 7,
    /// Latents that studies of a finished task draw.
    Study = 10,
    /// Samples that a user draws of a trained flow.
    Sample = 11,
    /// Order of the data in an epoch of a training, which takes the place of the step.
    Shuffle = 12,
    /// Fields around the spins of cluster Monte Carlo.
    Reference = 13,
}

/// All random streams of one task.
#[derive(Debug, Clone)]
pub struct TaskSeed {
    key: [u8; 32],
}

impl TaskSeed {
    /// The streams of a task.
    pub fn new(linear_size: usize, temperature: f64, depth: usize, seed: u64) -> Self {
        let numbers = [linear_size as u64, temperature.to_bits(), depth as u64, seed];
        Self::of("neuralrg 2026 task seed", &numbers)
    }

    /// The streams of cluster Monte Carlo of one lattice and temperature.
    pub fn of_reference(linear_size: usize, temperature: f64, seed: u64) -> Self {
        let numbers = [linear_size as u64, temperature.to_bits(), seed];
        Self::of("neuralrg 2026 reference seed", &numbers)
    }

    /// Streams of the same task that another seed tells apart from its own.
    pub fn derived(&self, seed: u64) -> Self {
        Self { key: *blake3::keyed_hash(&self.key, &seed.to_le_bytes()).as_bytes() }
    }

    /// The streams of a flow that learns pictures, which have no temperature.
    pub fn of_pictures(linear_size: usize, depth: usize, seed: u64) -> Self {
        Self::of("neuralrg 2026 pictures seed", &[linear_size as u64, depth as u64, seed])
    }

    /// The streams of a symplectic flow of so many coordinates.
    pub fn of_coordinates(coordinates: usize, seed: u64) -> Self {
        Self::of("neuralrg 2026 coordinates seed", &[coordinates as u64, seed])
    }

    fn of(context: &str, numbers: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        Self { key: *hasher.finalize().as_bytes() }
    }

    /// The random numbers of one step of one stage.
    pub fn at(&self, stage: Stage, step: i64) -> Random {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[stage as u8]);
        hasher.update(&step.to_le_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Random::new(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Task;

    fn task(temperature: f64, depth: usize, seed: u64) -> Task {
        Task { linear_size: 8, temperature, depth, seed }
    }

    #[test]
    fn streams_differ_in_every_argument() {
        let mut seen = Vec::new();
        for (temperature, depth, seed) in [(2.0, 1, 1), (2.1, 1, 1), (2.0, 2, 1), (2.0, 1, 2)] {
            let own = task(temperature, depth, seed).streams();
            for seeds in [own.derived(1), own.derived(2), own] {
                for stage in [Stage::Initialize, Stage::Train, Stage::Evaluate, Stage::LatentHmc] {
                    for step in 0..100 {
                        seen.push(seeds.at(stage, step));
                    }
                }
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn the_same_arguments_give_the_same_numbers() {
        let (a, b) = (task(2.0, 1, 1).streams(), task(2.0, 1, 1).streams());
        assert_eq!(a.at(Stage::Train, 17), b.at(Stage::Train, 17));
    }
}
