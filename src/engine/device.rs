//! Which device a rank computes on.

use super::cuda;
use crate::engine::config::{DeviceChoice, EngineChoice};
use crate::error::{Error, Result};

/// Where an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// A visible GPU, by its number.
    Cuda(usize),
}

/// The device of the rank with this number among the ranks of its node, for an engine.
///
/// # Errors
/// `cuda` is asked for, but the engine cannot use a GPU or none is visible.
pub fn select(engine: EngineChoice, choice: DeviceChoice, local_rank: usize) -> Result<Device> {
    let device = || gpus(engine).map(|count| cuda_device(local_rank, count));
    match choice {
        DeviceChoice::Cuda => device().map_err(|problem| Error::NoCuda { problem }),
        DeviceChoice::Auto if cuda::driver_present() => Ok(device().unwrap_or_else(|problem| {
            log::warn!("using the CPU: {problem}");
            Device::Cpu
        })),
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
    }
}

/// Number of GPUs that an engine can use, at least 1; why there is none, in words.
fn gpus(engine: EngineChoice) -> std::result::Result<usize, String> {
    match engine {
        EngineChoice::Native => Err("the native engine computes on CPUs".into()),
        EngineChoice::Cuda => cuda::count(),
        EngineChoice::Torch => torch_gpus(),
        EngineChoice::Auto => cuda::count().or_else(|problem| torch_gpus().map_err(|_| problem)),
    }
}

#[cfg(feature = "torch")]
pub(super) fn torch_gpus() -> std::result::Result<usize, String> {
    super::torch::gpus::count()
}

#[cfg(not(feature = "torch"))]
pub(super) fn torch_gpus() -> std::result::Result<usize, String> {
    Err("this program was built without torch; build it with `cargo build --release`".into())
}

/// Ranks of a node go round its visible GPUs.
fn cuda_device(local_rank: usize, count: usize) -> Device {
    if local_rank >= count {
        log::warn!("more ranks than GPUs on this node: local rank {local_rank} shares a GPU");
    }
    Device::Cuda(local_rank % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_node_go_round_its_gpus() {
        let devices: Vec<_> = (0..6).map(|rank| cuda_device(rank, 4)).collect();
        assert_eq!(devices, [0, 1, 2, 3, 0, 1].map(Device::Cuda));
        let alone = Device::Cuda(0);
        assert_eq!(cuda_device(3, 1), alone, "one GPU a task: every rank sees its own as number 0");
    }

    #[test]
    fn the_cpu_is_taken_where_it_is_asked_for() {
        assert_eq!(select(EngineChoice::Auto, DeviceChoice::Cpu, 5).unwrap(), Device::Cpu);
    }
}
