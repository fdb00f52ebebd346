//! Which device a rank computes on.

use crate::engine::config::DeviceChoice;
use crate::error::{Error, Result};

/// Where an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// A visible GPU, by its number.
    Cuda(usize),
}

/// The device of the rank with this number among the ranks of its node.
///
/// # Errors
/// `cuda` is asked for, but no engine of this program can use a GPU or none is visible.
pub fn select(choice: DeviceChoice, local_rank: usize) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda => {
            let count = gpus().map_err(|problem| Error::NoCuda { problem })?;
            cuda_device(local_rank, count).ok_or_else(|| Error::NoCuda {
                problem: format!(
                    "libtorch's CUDA part is loaded, but no GPU is visible (CUDA_VISIBLE_DEVICES \
                     is {})",
                    std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or("not set".into())
                ),
            })
        }
        DeviceChoice::Auto => {
            // Loading libtorch_cuda takes seconds: worth it only where there is a driver.
            let device = driver_present().then(gpus).and_then(|gpus| {
                let count = gpus.map_err(|problem| log::warn!("using the CPU: {problem}")).ok()?;
                cuda_device(local_rank, count)
            });
            Ok(device.unwrap_or(Device::Cpu))
        }
    }
}

/// Number of GPUs that an engine of this program can use; why there is none, in words.
#[cfg(feature = "torch")]
fn gpus() -> std::result::Result<usize, String> {
    use super::torch::gpus;

    gpus::load_cuda().map(|()| gpus::count())
}

#[cfg(not(feature = "torch"))]
fn gpus() -> std::result::Result<usize, String> {
    Err("this program was built without torch, which its GPU part needs; build it with \
         `cargo build --release`"
        .into())
}

/// Ranks of a node go round its visible GPUs.
fn cuda_device(local_rank: usize, count: usize) -> Option<Device> {
    if count > 0 && local_rank >= count {
        log::warn!("more ranks than GPUs on this node: local rank {local_rank} shares a GPU");
    }
    local_rank.checked_rem(count).map(Device::Cuda)
}

fn driver_present() -> bool {
    // SAFETY: the driver's library has no initializers that other code could observe.
    unsafe { libloading::Library::new("libcuda.so.1") }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_node_go_round_its_gpus() {
        let devices: Vec<_> = (0..6).map(|rank| cuda_device(rank, 4)).collect();
        assert_eq!(devices, [0, 1, 2, 3, 0, 1].map(|index| Some(Device::Cuda(index))));
        let alone = Some(Device::Cuda(0));
        assert_eq!(cuda_device(3, 1), alone, "one GPU a task: every rank sees its own as number 0");
        assert_eq!(cuda_device(0, 0), None);
    }

    #[test]
    fn the_cpu_is_taken_where_it_is_asked_for() {
        assert_eq!(select(DeviceChoice::Cpu, 5).unwrap(), Device::Cpu);
    }
}
