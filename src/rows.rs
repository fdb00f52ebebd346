//! Rows of numbers on a device, to which one is added at a time.

use tch::{Device, Kind, Tensor};

/// Rows of one shape. Memory grows with their number: it is doubled when it is full.
#[derive(Debug)]
pub struct Rows {
    /// (place, …), f64; places that hold no row yet are zero.
    places: Tensor,
    count: i64,
}

impl Rows {
    /// No row yet, of those with the given shape.
    pub fn new(shape: &[i64], device: Device) -> Self {
        let shape: Vec<i64> = [&[0], shape].concat();
        Self { places: Tensor::zeros(shape, (Kind::Double, device)), count: 0 }
    }

    /// The rows of a tensor, (row, …).
    pub fn of(rows: &Tensor, device: Device) -> Self {
        let places = rows.to_device(device).to_kind(Kind::Double);
        Self { count: places.size()[0], places }
    }

    /// Adds a row, of any kind.
    pub fn push(&mut self, row: &Tensor) {
        let _guard = tch::no_grad_guard();
        let mut shape = self.places.size();
        if self.count == shape[0] {
            shape[0] = self.count.max(64);
            let more = Tensor::zeros(&shape, (Kind::Double, self.places.device()));
            self.places = Tensor::cat(&[&self.places, &more], 0);
        }
        self.places.select(0, self.count).copy_(row);
        self.count += 1;
    }

    /// Number of rows.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// All rows. Shapes: (row, …).
    pub fn all(&self) -> Tensor {
        self.places.narrow(0, 0, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_added_and_memory_is_at_most_twice_theirs() {
        let mut rows = Rows::new(&[3], Device::Cpu);
        assert_eq!(rows.all().size(), [0, 3]);
        for count in 1..=1000 {
            rows.push(&(Tensor::from_slice(&[1f32, 2.0, 3.0]) * f64::from(count)));
            assert!(rows.places.size()[0] <= (2 * rows.count()).max(64), "after {count}");
        }
        let numbers = Tensor::arange_start(1, 1001, (Kind::Double, Device::Cpu));
        let expected = numbers.outer(&Tensor::from_slice(&[1.0, 2.0, 3.0]));
        assert_eq!(rows.all(), expected);
        let mut restored = Rows::of(&rows.all(), Device::Cpu);
        restored.push(&Tensor::from_slice(&[7.0, 8.0, 9.0]));
        assert_eq!(restored.count(), 1001);
        assert_eq!(restored.all().narrow(0, 0, 1000), expected);
        assert_eq!(restored.all().double_value(&[1000, 2]), 9.0);
    }
}
