//! States of the chains of latent HMC that are kept: samples of the target with their latents.

use ndarray::{Array3, Array4, Axis, s};

use crate::sampling::config::HmcConfig;

/// Samples x of the target and latents z that they stand for.
///
/// A sample of latent HMC is a pair (x, z) in which, with the mixture, z is distributed as by the posterior sign of x: its
/// chains have the density p(z) π(g(z))/q_sym(g(z)), and that of x = g(z) is then 2 π(x) q(x)/[q(x) + q(-x)].
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSamples {
    /// (chain, draw, N): x, with the mixture's signs drawn: the fields that were measured.
    pub fields: Array3<f64>,
    /// (chain, draw, N): z.
    pub latents: Array3<f64>,
}

impl TargetSamples {
    /// Of states as they were kept. Shapes: (draw, x and z, chain, N).
    pub(super) fn of_states(states: &Array4<f64>) -> Self {
        let [fields, latents] = [0, 1].map(|of_pair| {
            let draws = states.index_axis(Axis(1), of_pair);
            draws.permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
        });
        Self { fields, latents }
    }

    /// States of each chain.
    pub fn draws(&self) -> usize {
        self.fields.dim().1
    }

    /// So many states of each chain, as far apart as there is room for, the last one among them.
    ///
    /// # Panics
    /// There are fewer.
    #[must_use]
    pub fn thinned(&self, draws: usize) -> Self {
        let every = self.draws() / draws;
        assert!(every > 0, "{draws} of {} states of a chain", self.draws());
        let first = self.draws() - 1 - (draws - 1) * every;
        let thin = |all: &Array3<f64>| all.slice(s![.., first..;every, ..]).to_owned();
        Self { fields: thin(&self.fields), latents: thin(&self.latents) }
    }
}

impl HmcConfig {
    /// States that each chain keeps, of which all together are at least `keep_states`.
    fn kept_draws(&self) -> i64 {
        self.keep_states.unsigned_abs().div_ceil(self.chains.unsigned_abs()) as i64
    }

    /// Trajectories from one kept state of a chain to the next.
    pub fn kept_spacing(&self) -> i64 {
        self.trajectories / self.kept_draws().max(1)
    }

    /// Whether chains of a configuration with fewer trajectories have kept all states that these keep of them.
    pub fn keeps_states_of(&self, shorter: &Self) -> bool {
        let (spacing, before) = (self.kept_spacing(), shorter.kept_spacing());
        let last = shorter.trajectories / spacing * spacing;
        self.keep_states == 0
            || before > 0 && spacing % before == 0 && last <= shorter.kept_draws() * before
    }

    /// Whether the states after this measured trajectory, the first of which is 1, are kept.
    pub(super) fn keeps(&self, measured: i64) -> bool {
        let (draws, spacing) = (self.kept_draws(), self.kept_spacing());
        draws > 0 && measured % spacing == 0 && measured / spacing <= draws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_kept_evenly_and_as_many_as_are_asked_for() {
        for (keep_states, spacing, draws) in
            [(0, 10, 0), (1, 10, 1), (8, 5, 2), (9, 3, 3), (40, 1, 10)]
        {
            let config =
                HmcConfig { chains: 4, trajectories: 10, keep_states, ..Default::default() };
            let kept: Vec<i64> = (1..=10).filter(|&measured| config.keeps(measured)).collect();
            let expected: Vec<i64> = (1..=draws).map(|draw| draw * spacing).collect();
            assert_eq!(kept, expected, "{keep_states}");
            assert_eq!(config.kept_spacing(), spacing);
        }
    }

    #[test]
    fn longer_chains_keep_states_of_shorter_ones_where_all_are_there() {
        let config = |trajectories, keep_states| HmcConfig {
            chains: 1,
            trajectories,
            keep_states,
            ..Default::default()
        };
        let kept = |config: &HmcConfig, of: i64| -> Vec<i64> {
            (1..=of).filter(|&measured| config.keeps(measured)).collect()
        };
        let mut fit = 0;
        for trajectories in 8..40 {
            for more in trajectories + 1..80 {
                for keep_states in [0, 1, 3, 8] {
                    let shorter = config(trajectories, keep_states);
                    let longer = config(more, keep_states);
                    let there = kept(&shorter, trajectories);
                    let every = (longer.kept_spacing() / shorter.kept_spacing()) as usize;
                    let thinned: Vec<i64> =
                        there.iter().copied().skip(every - 1).step_by(every).collect();
                    let expected = kept(&longer, trajectories);
                    assert!(!longer.keeps_states_of(&shorter) || thinned == expected);
                    fit += usize::from(longer.keeps_states_of(&shorter));
                }
            }
        }
        assert!(fit > 1000, "{fit}");
        assert!(config(200, 10).keeps_states_of(&config(100, 10)));
        assert!(!config(150, 10).keeps_states_of(&config(100, 10)));
        assert!(!config(38, 10).keeps_states_of(&config(19, 10)));
    }

    #[test]
    fn thinned_states_are_far_apart_and_end_with_the_last() {
        let states = Array4::from_shape_fn((7, 2, 3, 1), |(draw, of_pair, chain, _)| {
            (100 * of_pair + 10 * chain + draw) as f64
        });
        let all = TargetSamples::of_states(&states);
        assert_eq!(all.fields.dim(), (3, 7, 1));
        let thinned = all.thinned(3);
        assert_eq!(thinned.fields.slice(s![1, .., 0]).to_vec(), [12.0, 14.0, 16.0]);
        assert_eq!(thinned.latents.slice(s![2, .., 0]).to_vec(), [122.0, 124.0, 126.0]);
        assert_eq!(all.thinned(7), all);
    }
}
