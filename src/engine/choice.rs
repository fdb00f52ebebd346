//! Which engine evaluates a flow.

use std::sync::Once;

use super::config::{EngineChoice, Precision, RunConfig};
use super::cuda::{Cuda, Gpu};
use super::device::{Device, torch_gpus};
use super::symplectic::SymplecticEngine;
use super::{Engine, native};
use crate::error::{Error, GPU_FAILED, Result};
use crate::flow::Flow;
use crate::flow::symplectic::SymplecticFlow;
use crate::targets::Target;
use crate::targets::surface::Surface;

/// The engine of a symplectic flow: torch, since no other one differentiates momenta.
///
/// # Errors
/// This program was built without.
pub(super) fn symplectic_engine(
    flow: &SymplecticFlow,
    surface: Option<Surface>,
    run: &RunConfig,
    device: Device,
) -> Result<Box<dyn SymplecticEngine>> {
    symplectic(flow, surface, run, device).ok_or(Error::NoSymplecticEngine)
}

/// Whether this program has the engine of symplectic flows.
///
/// # Errors
/// It was built without.
pub fn check_symplectic_built() -> Result<()> {
    if cfg!(feature = "torch") { Ok(()) } else { Err(Error::NoSymplecticEngine) }
}

/// Whether this program has the engine that a configuration asks for.
///
/// # Errors
/// It was built without.
pub fn check_built(choice: EngineChoice) -> Result<()> {
    match choice {
        EngineChoice::Torch if cfg!(not(feature = "torch")) => Err(Error::NoTorch),
        EngineChoice::Auto | EngineChoice::Native | EngineChoice::Torch | EngineChoice::Cuda => {
            Ok(())
        }
    }
}

/// The engine of a configuration on a device. Where the one for GPUs lacks something, the next one that can takes its place, with
/// one warning; without torch the native one does.
pub(super) fn engine(
    flow: &Flow,
    target: Option<&Target>,
    run: &RunConfig,
    device: Device,
) -> Box<dyn Engine> {
    match (run.engine, device) {
        (EngineChoice::Auto | EngineChoice::Cuda, Device::Cuda(number)) => {
            cuda(flow, target, run.precision, number).unwrap_or_else(|lack| {
                let instead = torch_gpus().ok().and_then(|_| torch(flow, target, run, device));
                let name = if instead.is_some() { "torch" } else { "native" };
                static WARNING: Once = Once::new();
                WARNING.call_once(|| {
                    log::warn!(
                        "the engine for GPUs lacks {lack}; engine \"{name}\" takes its place"
                    );
                });
                instead.unwrap_or_else(|| native(flow, target, run))
            })
        }
        (EngineChoice::Torch, _) => {
            torch(flow, target, run, device).unwrap_or_else(|| native(flow, target, run))
        }
        (EngineChoice::Auto | EngineChoice::Cuda, Device::Cpu) | (EngineChoice::Native, _) => {
            native(flow, target, run)
        }
    }
}

fn native(flow: &Flow, target: Option<&Target>, run: &RunConfig) -> Box<dyn Engine> {
    native::in_precision(run.precision, &flow.architecture, flow.couplings(), target, run.threads)
}

fn cuda(
    flow: &Flow,
    target: Option<&Target>,
    precision: Precision,
    number: usize,
) -> std::result::Result<Box<dyn Engine>, String> {
    // It was counted: what is wrong now would be wrong for a task that goes on from its checkpoint too.
    let gpu = Gpu::open(number).unwrap_or_else(|problem| panic!("{GPU_FAILED}: {problem}"));
    let cuda = Cuda::new(&flow.architecture, flow.couplings(), target, precision, gpu)?;
    Ok(Box::new(cuda))
}

#[cfg(feature = "torch")]
fn torch(
    flow: &Flow,
    target: Option<&Target>,
    run: &RunConfig,
    device: Device,
) -> Option<Box<dyn Engine>> {
    let torch = super::torch::Torch::new(flow, target, run.precision, device, run.threads);
    Some(Box::new(torch))
}

#[cfg(not(feature = "torch"))]
fn torch(_: &Flow, _: Option<&Target>, _: &RunConfig, _: Device) -> Option<Box<dyn Engine>> {
    None
}

#[cfg(feature = "torch")]
fn symplectic(
    flow: &SymplecticFlow,
    surface: Option<Surface>,
    run: &RunConfig,
    device: Device,
) -> Option<Box<dyn SymplecticEngine>> {
    use super::torch::symplectic::TorchSymplectic;
    Some(Box::new(TorchSymplectic::new(flow, surface, run.precision, device, run.threads)))
}

#[cfg(not(feature = "torch"))]
fn symplectic(
    _: &SymplecticFlow,
    _: Option<Surface>,
    _: &RunConfig,
    _: Device,
) -> Option<Box<dyn SymplecticEngine>> {
    None
}
