//! Which device a rank computes on, and the loading of libtorch's CUDA part.

use std::error::Error as _;

use tch::{Cuda, Device};

use crate::config::DeviceChoice;
use crate::error::{Error, Result};

/// The device of the rank with this number among the ranks of its node.
///
/// # Errors
/// `cuda` is asked for, but this libtorch has no CUDA part or no GPU is visible.
pub fn select(choice: DeviceChoice, local_rank: usize) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda => {
            load_cuda().map_err(|problem| Error::NoCuda { problem })?;
            cuda_device(local_rank).ok_or_else(|| Error::NoCuda {
                problem: format!(
                    "libtorch's CUDA part is loaded, but no GPU is visible (CUDA_VISIBLE_DEVICES \
                     is {})",
                    std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or("not set".into())
                ),
            })
        }
        DeviceChoice::Auto => {
            // Loading libtorch_cuda takes seconds: worth it only where there is a driver.
            let device = driver_present().then(load_cuda).and_then(|loaded| {
                loaded.map_err(|problem| log::warn!("using the CPU: {problem}")).ok()?;
                cuda_device(local_rank)
            });
            Ok(device.unwrap_or(Device::Cpu))
        }
    }
}

/// Ranks of a node go round its visible GPUs. CUDA itself heeds CUDA_VISIBLE_DEVICES.
fn cuda_device(local_rank: usize) -> Option<Device> {
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if count > 0 && local_rank >= count {
        log::warn!("more ranks than GPUs on this node: local rank {local_rank} shares a GPU");
    }
    gpu_index(local_rank, count).map(Device::Cuda)
}

/// Index of a rank's GPU among `count` visible ones.
fn gpu_index(local_rank: usize, count: usize) -> Option<usize> {
    local_rank.checked_rem(count)
}

fn driver_present() -> bool {
    // SAFETY: the driver's library has no initializers that other code could observe.
    unsafe { libloading::Library::new("libcuda.so.1") }.is_ok()
}

/// Loads libtorch_cuda.so for the rest of the process. The linker drops it from the program's needs
/// (nothing refers to it by name), and without it torch sees no GPU on any machine.
fn load_cuda() -> std::result::Result<(), String> {
    // SAFETY: libtorch_cuda's initializers register kernels with the libtorch that is already loaded;
    // this happens before the first use of a GPU.
    match unsafe { libloading::Library::new("libtorch_cuda.so") } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!(
            "libtorch has no usable CUDA part ({}); install the full libtorch with \
             `make setup CUDA=1` or point LIBTORCH to one",
            // A bare "dlopen failed"; the loader's own words, which name the file, are its source.
            error.source().unwrap_or(&error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_node_go_round_its_gpus() {
        let indices: Vec<_> = (0..6).map(|rank| gpu_index(rank, 4)).collect();
        assert_eq!(indices, [Some(0), Some(1), Some(2), Some(3), Some(0), Some(1)]);
        assert_eq!(gpu_index(3, 1), Some(0), "one GPU a task: every rank sees its own as number 0");
        assert_eq!(gpu_index(0, 0), None);
    }

    #[test]
    fn the_cpu_is_taken_where_it_is_asked_for() {
        assert_eq!(select(DeviceChoice::Cpu, 5).unwrap(), Device::Cpu);
    }
}
