//! The temperatures of replicas: a first ladder, and one whose neighbours exchange equally often.

use crate::sampling::config::{Count, MOST_REPLICAS};
use crate::targets::Target;

/// Pairs of rungs, as a multiple of the sum of all rejections: twice it gives most round trips in the long run (Syed et al.,
/// J. R. Stat. Soc. B 84, 321 (2022), Section 4).
const PAIRS_OF_BARRIER: f64 = 2.0;
/// A temperature this near to the top needs no ladder.
const NEAR_TOP: f64 = 0.98;

/// So many pairs, rounded up, as far as a ladder goes.
fn most_pairs(pairs: f64) -> usize {
    (pairs.ceil() as usize).clamp(1, MOST_REPLICAS - 1)
}

/// T of the first ladder, evenly spaced in ln T up to the temperature at which the target mixes; T alone where it does.
pub(super) fn first_temperatures(target: &Target, temperature: f64, count: Count) -> Vec<f64> {
    let top = target.mixing_temperature().unwrap_or(temperature);
    if temperature > NEAR_TOP * top {
        return vec![temperature];
    }
    let distance = (top / temperature).ln();
    let pairs = match count {
        Count::Fixed(count) => count as usize - 1,
        // Neighbours at distances of 1/L exchange now and then, which is enough to learn better ones.
        Count::Auto => most_pairs(target.lattice.linear_size() as f64 * distance),
    };
    let rung = |place| temperature * (distance * place as f64 / pairs as f64).exp();
    (0..=pairs).map(rung).collect()
}

/// A ladder between the same ends whose pairs reject equally often, the rejections between neighbours taken as evenly spread in
/// ln T; where the number of replicas is open, of as many as that takes.
pub(super) fn next_temperatures(temperatures: &[f64], rejected: &[f64], count: Count) -> Vec<f64> {
    let pairs = match count {
        Count::Fixed(count) => count as usize - 1,
        Count::Auto => most_pairs(PAIRS_OF_BARRIER * rejected.iter().sum::<f64>()),
    };
    equalized(temperatures, rejected, pairs)
}

fn equalized(temperatures: &[f64], rejected: &[f64], pairs: usize) -> Vec<f64> {
    // A pair that never rejects still has some length.
    let lengths: Vec<f64> = rejected.iter().map(|rejection| rejection.max(1e-3)).collect();
    let total: f64 = lengths.iter().sum();
    let (mut segment, mut behind) = (0, 0.0);
    let mut found = vec![temperatures[0]];
    for place in 1..pairs {
        let wanted = total * place as f64 / pairs as f64;
        while segment + 1 < lengths.len() && behind + lengths[segment] < wanted {
            behind += lengths[segment];
            segment += 1;
        }
        let share = ((wanted - behind) / lengths[segment]).min(1.0);
        let [lower, upper] = [temperatures[segment], temperatures[segment + 1]];
        found.push(lower * (share * (upper / lower).ln()).exp());
    }
    found.push(temperatures[temperatures.len() - 1]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rejections_keep_the_ladder_and_others_move_it_where_they_are_many() {
        let ladder = [1.0, 2.0, 4.0, 8.0];
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            let near = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 1e-9;
            assert!(found.iter().zip(expected).all(near), "{found:?}");
        };
        close(&equalized(&ladder, &[0.4; 3], 3), &ladder);
        close(
            &equalized(&ladder, &[0.4; 3], 6),
            &[1.0, 2f64.sqrt(), 2.0, 8f64.sqrt(), 4.0, 32f64.sqrt(), 8.0],
        );
        // Half of all rejections between 1 and 2.
        close(&equalized(&ladder, &[0.6, 0.3, 0.3], 2), &[1.0, 2.0, 8.0]);
        close(&equalized(&ladder, &[0.2, 0.2, 0.4], 1), &[1.0, 8.0]);
    }

    #[test]
    fn the_first_ladder_reaches_from_the_temperature_to_where_the_target_mixes() {
        let target = Target::ising_dual(16);
        let ladder = first_temperatures(&target, 2.0, Count::Auto);
        assert_eq!((ladder.len(), ladder[0]), (6, 2.0));
        assert!((ladder[5] / target.mixing_temperature().unwrap() - 1.0).abs() < 1e-12);
        assert!(ladder.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(first_temperatures(&target, 2.0, Count::Fixed(3)).len(), 3);
        assert_eq!(first_temperatures(&target, 2.7, Count::Fixed(3)), [2.7]);
    }
}
