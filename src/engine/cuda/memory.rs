//! A processor's memory: what lies there once, what grows with calls, and numbers as bytes.

use ndarray::Array1;

use super::known::Known;
use super::processor::Processor;
use super::program::narrow;
use super::tables::Tables;
use crate::engine::config::Precision;
use crate::engine::fourier;

/// What is written once.
#[derive(Debug)]
pub struct Fixed<P: Processor> {
    pub couplings: P::Memory,
    pub shells: P::Memory,
    pub sites: P::Memory,
    pub seers: P::Memory,
    pub basis: P::Memory,
    pub transposed_basis: P::Memory,
}

impl<P: Processor> Fixed<P> {
    pub fn new(processor: &P, tables: &Tables, linear_size: usize, precision: Precision) -> Self {
        let memory = |bytes: Vec<u8>| {
            let mut memory = processor.allocate(bytes.len().max(1));
            processor.write(&bytes, &mut memory);
            memory
        };
        let basis = fourier::basis(linear_size);
        let sites = tables.sites.numbers.iter();
        Self {
            couplings: memory(integers(tables.couplings.iter().flatten().copied())),
            shells: memory(
                tables.shells.iter().flat_map(|shell| shell_bytes(shell, precision)).collect(),
            ),
            sites: memory(match narrow(linear_size * linear_size) {
                true => sites.flat_map(|&site| (site as u16).to_ne_bytes()).collect(),
                false => sites.flat_map(|site| site.to_ne_bytes()).collect(),
            }),
            seers: memory(integers(tables.seers.numbers.iter().map(|&seer| seer as i32))),
            transposed_basis: memory(converted(
                &fourier::transposed(&basis, linear_size),
                precision,
            )),
            basis: memory(converted(&basis, precision)),
        }
    }
}

/// What calls use one after the other.
#[derive(Debug)]
pub struct State<P: Processor> {
    pub known: Known,
    /// Those that `weights` holds.
    pub parameters: Array1<f64>,
    pub weights: Room<P>,
    pub spectra: Room<P>,
    pub tiles: Room<P>,
    pub given: Room<P>,
    pub latents: Room<P>,
    pub own: Room<P>,
    pub sums: Room<P>,
    pub field: Room<P>,
    pub derivative: Room<P>,
    pub gradient: Room<P>,
}

impl<P: Processor> Default for State<P> {
    fn default() -> Self {
        Self {
            known: Known::default(),
            parameters: Array1::zeros(0),
            weights: Room::default(),
            spectra: Room::default(),
            tiles: Room::default(),
            given: Room::default(),
            latents: Room::default(),
            own: Room::default(),
            sums: Room::default(),
            field: Room::default(),
            derivative: Room::default(),
            gradient: Room::default(),
        }
    }
}

/// Memory that grows where more is asked for.
#[derive(Debug)]
pub struct Room<P: Processor> {
    memory: Option<P::Memory>,
    bytes: usize,
}

impl<P: Processor> Default for Room<P> {
    fn default() -> Self {
        Self { memory: None, bytes: 0 }
    }
}

impl<P: Processor> Room<P> {
    /// The address of at least so many bytes.
    pub fn of(&mut self, processor: &P, bytes: usize) -> u64 {
        if bytes > self.bytes || self.memory.is_none() {
            // The old one first: both might not fit.
            self.memory = None;
            self.memory = Some(processor.allocate(bytes.max(1)));
            self.bytes = bytes;
        }
        self.memory.as_ref().map_or(0, P::address)
    }

    pub fn write(&mut self, processor: &P, bytes: &[u8]) -> u64 {
        let address = self.of(processor, bytes.len());
        if let Some(memory) = &mut self.memory {
            processor.write(bytes, memory);
        }
        address
    }

    pub fn read(&self, processor: &P, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        let memory = self.memory.as_ref().expect("what is read was written by a kernel");
        processor.read(memory, &mut read);
        read
    }
}

/// Numbers as the processor has them.
pub fn converted<'a>(values: impl IntoIterator<Item = &'a f64>, precision: Precision) -> Vec<u8> {
    let values = values.into_iter();
    let count = values.size_hint().0;
    let mut bytes = vec![0; count * precision.bytes()];
    match precision {
        Precision::F32 => {
            let places = bytes.as_chunks_mut::<4>().0;
            places.iter_mut().zip(values).for_each(|(place, &value)| {
                *place = (value as f32).to_ne_bytes();
            });
        }
        Precision::F64 => {
            let places = bytes.as_chunks_mut::<8>().0;
            places.iter_mut().zip(values).for_each(|(place, &value)| *place = value.to_ne_bytes());
        }
    }
    bytes
}

pub fn numbers(bytes: &[u8], precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 => {
            let (numbers, _) = bytes.as_chunks::<4>();
            numbers.iter().map(|&bytes| f64::from(f32::from_ne_bytes(bytes))).collect()
        }
        Precision::F64 => {
            let (numbers, _) = bytes.as_chunks::<8>();
            numbers.iter().map(|&bytes| f64::from_ne_bytes(bytes)).collect()
        }
    }
}

pub fn integers(numbers: impl IntoIterator<Item = i32>) -> Vec<u8> {
    numbers.into_iter().flat_map(i32::to_ne_bytes).collect()
}

fn shell_bytes(&(place, size, weight): &(i32, i32, f64), precision: Precision) -> Vec<u8> {
    let mut bytes = integers([place, size]);
    bytes.extend(converted(&[weight], precision));
    bytes
}
