//! Adam (Kingma and Ba, arXiv:1412.6980) with weight decay, in the gradient or decoupled (arXiv:1711.05101), on one
//! flat parameter vector, with a state that can be saved.

use tch::{Kind, Tensor};

use crate::checkpoint::{Restored, Tensors, tensor};
use crate::config::Decay;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimizer's state. Everything stays on the parameters' device.
#[derive(Debug)]
pub struct Adam {
    /// Running mean of the gradient.
    first_moment: Tensor,
    /// Running mean of the squared gradient.
    second_moment: Tensor,
    /// Updates applied so far, on the device: (), f64.
    updates: Tensor,
    decay: Decay,
    weight_decay: f64,
}

impl Adam {
    /// A fresh state for `parameters`.
    pub fn new(parameters: &Tensor, decay: Decay, weight_decay: f64) -> Self {
        Self {
            first_moment: parameters.zeros_like(),
            second_moment: parameters.zeros_like(),
            updates: Tensor::zeros([], (Kind::Double, parameters.device())),
            decay,
            weight_decay,
        }
    }

    /// What [`Adam::restore`] needs to go on.
    pub fn state(&self) -> Tensors {
        Tensors::from([
            ("first_moment".into(), self.first_moment.shallow_clone()),
            ("second_moment".into(), self.second_moment.shallow_clone()),
            ("updates".into(), self.updates.shallow_clone()),
        ])
    }

    /// Goes on from a saved state, on the parameters' device.
    ///
    /// # Errors
    /// The state lacks something; nothing has changed then.
    pub fn restore(&mut self, state: &Tensors) -> Restored<()> {
        let (kind, device) = (self.first_moment.kind(), self.first_moment.device());
        let shape = self.first_moment.size();
        let saved =
            |name, kind, shape: &[i64]| Ok(tensor(state, name, kind, shape)?.to_device(device));
        let first_moment = saved("first_moment", kind, &shape)?;
        let second_moment = saved("second_moment", kind, &shape)?;
        let updates = saved("updates", Kind::Double, &[])?;
        *self = Self { first_moment, second_moment, updates, ..*self };
        Ok(())
    }

    /// One update of `parameters` in place, or none where `apply` (a boolean on the device, ()) is
    /// false: neither parameters nor state then change, whatever the gradient holds.
    pub fn step(
        &mut self,
        parameters: &mut Tensor,
        gradient: &Tensor,
        learning_rate: f64,
        apply: &Tensor,
    ) {
        let _guard = tch::no_grad_guard();
        let kind = parameters.kind();
        let (of_gradient, of_parameters) = match self.decay {
            Decay::L2 => (self.weight_decay, 0.0),
            Decay::Decoupled => (0.0, self.weight_decay),
        };
        let gradient = &(gradient + &*parameters * of_gradient);
        let first = &self.first_moment * BETA_1 + gradient * (1.0 - BETA_1);
        let second = &self.second_moment * BETA_2 + gradient.square() * (1.0 - BETA_2);
        let updates = &self.updates + 1.0;
        let correction = |beta: f64| ((&updates * beta.ln()).expm1() * -1.0).to_kind(kind);
        let denominator = (&second / correction(BETA_2)).sqrt() + EPSILON;
        let direction = &first / correction(BETA_1) / denominator;
        let decayed = &*parameters * (1.0 - learning_rate * of_parameters);
        let updated = decayed - direction * learning_rate;

        parameters.copy_(&updated.where_self(apply, parameters));
        self.first_moment = first.where_self(apply, &self.first_moment);
        self.second_moment = second.where_self(apply, &self.second_moment);
        self.updates = updates.where_self(apply, &self.updates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceChoice;
    use tch::Device;

    fn apply(yes: bool) -> Tensor {
        Tensor::from(i64::from(yes)).to_kind(Kind::Bool)
    }

    /// The textbook update, written with plain numbers, with both kinds of decay.
    #[test]
    fn updates_equal_a_scalar_transcription() {
        for (decay, in_gradient, decoupled) in [(Decay::L2, 0.1, 0.0), (Decay::Decoupled, 0.0, 0.1)]
        {
            let mut parameters = Tensor::from_slice(&[1.0f64, -2.0]);
            let mut adam = Adam::new(&parameters, decay, 0.1);
            let (mut x, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
            for step in 1..=20 {
                let rate = 0.1 / f64::from(step);
                let gradient = [x[0] * 2.0, x[1].cos()];
                adam.step(&mut parameters, &Tensor::from_slice(&gradient), rate, &apply(true));
                for i in 0..2 {
                    let gradient = gradient[i] + in_gradient * x[i];
                    m[i] = 0.9 * m[i] + 0.1 * gradient;
                    v[i] = 0.999 * v[i] + 0.001 * gradient * gradient;
                    let m_hat = m[i] / (1.0 - 0.9f64.powi(step));
                    let v_hat = v[i] / (1.0 - 0.999f64.powi(step));
                    x[i] = x[i] * (1.0 - rate * decoupled) - rate * m_hat / (v_hat.sqrt() + 1e-8);
                    assert!((parameters.double_value(&[i as i64]) - x[i]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_step_that_is_not_applied_changes_nothing() {
        let mut parameters = Tensor::from_slice(&[1.0f64, -2.0]);
        let mut adam = Adam::new(&parameters, Decay::Decoupled, 0.0);
        let poison = Tensor::from_slice(&[f64::NAN, f64::INFINITY]);
        adam.step(&mut parameters, &poison, 0.1, &apply(false));
        assert_eq!(parameters, Tensor::from_slice(&[1.0f64, -2.0]));
        let mut fresh = Adam::new(&parameters, Decay::Decoupled, 0.0);
        let mut copy = parameters.copy();
        let gradient = Tensor::from_slice(&[0.3f64, 0.7]);
        adam.step(&mut parameters, &gradient, 0.1, &apply(true));
        fresh.step(&mut copy, &gradient, 0.1, &apply(true));
        assert_eq!(parameters, copy);
    }

    #[test]
    fn restored_state_goes_on_as_the_saved_one() {
        let start = Tensor::from_slice(&[1.0f32, -2.0]);
        let gradient = |step: i32| Tensor::from_slice(&[step as f32, 0.3]);
        let (mut parameters, mut adam) = (start.copy(), Adam::new(&start, Decay::Decoupled, 0.1));
        for step in 0..3 {
            adam.step(&mut parameters, &gradient(step), 0.1, &apply(true));
        }
        let (mut copy, mut other) = (parameters.copy(), Adam::new(&start, Decay::Decoupled, 0.1));
        other.restore(&adam.state()).unwrap();
        for step in 3..6 {
            adam.step(&mut parameters, &gradient(step), 0.1, &apply(true));
            other.step(&mut copy, &gradient(step), 0.1, &apply(true));
        }
        assert_eq!(parameters, copy);
    }

    /// The device is a GPU where the machine has one.
    #[test]
    fn state_has_the_precision_of_the_parameters_on_the_machines_device() {
        let device = crate::device::select(DeviceChoice::Auto, 0).unwrap();
        let parameters = Tensor::zeros([3], (Kind::Float, device));
        let mut adam = Adam::new(&parameters, Decay::L2, 0.0);
        let fresh = Adam::new(&parameters.to_device(Device::Cpu), Decay::L2, 0.0).state();
        let here = |adam: &Adam| adam.state().values().all(|values| values.device() == device);
        assert!(here(&adam));
        adam.restore(&fresh).unwrap();
        assert!(here(&adam));
        let kinds = ["first_moment", "second_moment"].map(|name| adam.state()[name].kind());
        assert_eq!(kinds, [Kind::Float; 2]);
    }
}
