//! Adam (Kingma and Ba, arXiv:1412.6980) with weight decay, in the gradient or decoupled (arXiv:1711.05101), on one
//! flat parameter vector, with a state that can be saved.

use ndarray::{Array1, ArrayView1, Zip, s};

use crate::files::state::{Restored, Saved, array, number, read_number};
use crate::train::config::{Decay, TrainConfig};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimizer's state.
#[derive(Debug)]
pub struct Adam {
    /// Running mean of the gradient.
    first_moment: Array1<f64>,
    /// Running mean of the squared gradient.
    second_moment: Array1<f64>,
    /// Updates applied so far.
    updates: f64,
    decay: Decay,
    weight_decay: f64,
    /// So many parameters, the first ones, decay.
    decaying: usize,
}

impl Adam {
    /// A fresh state for so many parameters, of which the first `decaying` decay.
    pub fn new(parameters: usize, decaying: usize, config: &TrainConfig) -> Self {
        Self {
            first_moment: Array1::zeros(parameters),
            second_moment: Array1::zeros(parameters),
            updates: 0.0,
            decay: config.decay,
            weight_decay: config.weight_decay,
            decaying,
        }
    }

    /// What [`Adam::restore`] needs to go on.
    pub fn state(&self) -> Saved {
        Saved::from([
            ("first_moment".into(), self.first_moment.clone().into_dyn()),
            ("second_moment".into(), self.second_moment.clone().into_dyn()),
            ("updates".into(), number(self.updates)),
        ])
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state lacks something; nothing has changed then.
    pub fn restore(&mut self, state: &Saved) -> Restored<()> {
        let count = self.first_moment.len();
        let first_moment = array(state, "first_moment", count)?;
        let second_moment = array(state, "second_moment", count)?;
        let updates = read_number(state, "updates")?;
        *self = Self { first_moment, second_moment, updates, ..*self };
        Ok(())
    }

    /// One update of `parameters` in place.
    pub fn step(
        &mut self,
        parameters: &mut Array1<f64>,
        gradient: ArrayView1<f64>,
        learning_rate: f64,
    ) {
        let decays = match self.decay {
            Decay::L2 => (self.weight_decay, 0.0),
            Decay::Decoupled => (0.0, self.weight_decay),
        };
        self.updates += 1.0;
        let correction = |beta: f64| -(self.updates * beta.ln()).exp_m1();
        let (of_first, of_second) = (correction(BETA_1), correction(BETA_2));
        let (decaying, count) = (self.decaying, parameters.len());
        for (range, (of_gradient, of_parameters)) in
            [(0..decaying, decays), (decaying..count, (0.0, 0.0))]
        {
            Zip::from(self.first_moment.slice_mut(s![range.clone()]))
                .and(self.second_moment.slice_mut(s![range.clone()]))
                .and(parameters.slice_mut(s![range.clone()]))
                .and(gradient.slice(s![range]))
                .for_each(|first, second, parameter, gradient| {
                    let gradient = gradient + *parameter * of_gradient;
                    *first = *first * BETA_1 + gradient * (1.0 - BETA_1);
                    *second = *second * BETA_2 + gradient * gradient * (1.0 - BETA_2);
                    let direction = *first / of_first / ((*second / of_second).sqrt() + EPSILON);
                    let decayed = *parameter * (1.0 - learning_rate * of_parameters);
                    *parameter = decayed - direction * learning_rate;
                });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The textbook update, written with plain numbers, with both kinds of decay.
    #[test]
    fn updates_equal_a_scalar_transcription() {
        for (decay, in_gradient, decoupled) in [(Decay::L2, 0.1, 0.0), (Decay::Decoupled, 0.0, 0.1)]
        {
            // The third one does not decay.
            let mut parameters = Array1::from(vec![1.0, -2.0, 1.0]);
            let config = TrainConfig { decay, weight_decay: 0.1, ..Default::default() };
            let mut adam = Adam::new(3, 2, &config);
            let (mut x, mut m, mut v) = ([1.0f64, -2.0, 1.0], [0.0f64; 3], [0.0f64; 3]);
            for step in 1..=20 {
                let rate = 0.1 / f64::from(step);
                let gradient = [x[0] * 2.0, x[1].cos(), x[2].sin()];
                adam.step(&mut parameters, ArrayView1::from(&gradient), rate);
                for i in 0..3 {
                    let (in_gradient, decoupled) =
                        if i < 2 { (in_gradient, decoupled) } else { (0.0, 0.0) };
                    let gradient = gradient[i] + in_gradient * x[i];
                    m[i] = 0.9 * m[i] + 0.1 * gradient;
                    v[i] = 0.999 * v[i] + 0.001 * gradient * gradient;
                    let m_hat = m[i] / (1.0 - 0.9f64.powi(step));
                    let v_hat = v[i] / (1.0 - 0.999f64.powi(step));
                    x[i] = x[i] * (1.0 - rate * decoupled) - rate * m_hat / (v_hat.sqrt() + 1e-8);
                    assert!((parameters[i] - x[i]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn restored_state_goes_on_as_the_saved_one() {
        let mut parameters = Array1::from(vec![1.0, -2.0]);
        let gradient = |step: i32| Array1::from(vec![f64::from(step), 0.3]);
        let config =
            TrainConfig { decay: Decay::Decoupled, weight_decay: 0.1, ..Default::default() };
        let mut adam = Adam::new(2, 2, &config);
        for step in 0..3 {
            adam.step(&mut parameters, gradient(step).view(), 0.1);
        }
        let (mut copy, mut other) = (parameters.clone(), Adam::new(2, 2, &config));
        other.restore(&adam.state()).unwrap();
        for step in 3..6 {
            adam.step(&mut parameters, gradient(step).view(), 0.1);
            other.step(&mut copy, gradient(step).view(), 0.1);
        }
        assert_eq!(parameters, copy);
    }
}
