//! Samples of the target with their latents: the chains of latent HMC, thinned.

use ndarray::{Array2, Array3, Axis, stack};

use crate::engine::Model;
use crate::error::Result;
use crate::flow::symmetry::with_signs;
use crate::sampling::config::{HmcConfig, Sampler, Start};
use crate::sampling::kernel::Kernel;
use crate::sampling::sampler;
use crate::seed::{Stage, TaskSeed};

/// Samples x of the target and latents z that they stand for.
///
/// A sample of latent HMC is a pair (x, z) in which, with the mixture, z is distributed as by the posterior sign of x: its
/// chains have the density p(z) π(g(z))/q_sym(g(z)), and that of x = g(z) is then 2 π(x) q(x)/[q(x) + q(-x)].
#[derive(Debug)]
pub struct TargetSamples {
    /// (chain, draw, N): x, with the mixture's signs drawn.
    pub fields: Array3<f64>,
    /// (chain, draw, N): z.
    pub latents: Array3<f64>,
}

/// Runs the chains of the task's latent HMC again, whose random numbers are those of the task, and keeps a state of
/// every `spacing` trajectories after the warm-up until there are `samples` of all chains together, or a few more.
pub fn sample(
    model: &Model,
    (config, seed): (&HmcConfig, &TaskSeed),
    spacing: i64,
    samples: usize,
) -> Result<TargetSamples> {
    let draws = samples.div_ceil(config.chains as usize) as i64;
    let config = HmcConfig { trajectories: spacing * draws, ..config.clone() };
    let kernel = Kernel::new(Sampler::Latent, model, &config);
    let (mut fields, mut latents) = (Vec::<Array2<f64>>::new(), Vec::<Array2<f64>>::new());
    let start = (&config, Start::Hot);
    sampler::sample(Sampler::Latent, &kernel, start, seed, None, |chains| {
        let measured = chains.done - config.warmup;
        if measured > 0 && measured % spacing == 0 {
            let field = chains.field.clone();
            let field = field.unwrap_or_else(|| model.draw(chains.position.view()).field);
            let random = seed.at(Stage::Signs, chains.done);
            fields.push(with_signs(field, model.symmetry(), &random, 0));
            latents.push(chains.position.clone());
        }
        Ok(())
    })?;
    let together = |draws: &[Array2<f64>]| {
        let views: Vec<_> = draws.iter().map(Array2::view).collect();
        let stacked = stack(Axis(1), &views).expect("all draws have the shape of the chains");
        stacked.as_standard_layout().into_owned()
    };
    Ok(TargetSamples { fields: together(&fields), latents: together(&latents) })
}
