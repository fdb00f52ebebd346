//! Sums over the shells of sites that a network sees, and their cotangents.

use std::ops::Range;

use multiversion::multiversion;

use super::super::kernels::{Units, UnitsMut};
use super::super::lanes::{Lanes, Real};
use crate::flow::coupling::Shell;

/// v_kc = weight_k Σ_j x_jc for some rows, where each site has so many channels c.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn gather<T: Real>(
    shells: &[Shell],
    channels: usize,
    rows: Range<usize>,
    values: &[Lanes<T>],
    mut inputs: UnitsMut<'_, T>,
) {
    for (k, shell) in shells.iter().enumerate() {
        let weight = T::of(shell.weight);
        let stencils = shell.sites[rows.start * shell.size..].chunks_exact(shell.size);
        for (row, stencil) in stencils.take(rows.len()).enumerate() {
            let inputs = &mut inputs.row(row)[k * channels..][..channels];
            for (channel, input) in inputs.iter_mut().enumerate() {
                let mut sums = Lanes::ZERO;
                for site in stencil {
                    let value = &values[*site as usize * channels + channel];
                    for (sum, value) in sums.0.iter_mut().zip(&value.0) {
                        *sum += *value;
                    }
                }
                for (input, sum) in input.0.iter_mut().zip(sums.0) {
                    *input = weight * sum;
                }
            }
        }
    }
}

/// Adds weight_k δv_kc to the cotangents of all sites of shell k.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn scatter<T: Real>(
    shells: &[Shell],
    channels: usize,
    rows: Range<usize>,
    deltas: Units<'_, T>,
    cotangent: &mut [Lanes<T>],
) {
    for (k, shell) in shells.iter().enumerate() {
        let weight = T::of(shell.weight);
        let stencils = shell.sites[rows.start * shell.size..].chunks_exact(shell.size);
        for (row, stencil) in stencils.take(rows.len()).enumerate() {
            let deltas = &deltas.row(row)[k * channels..][..channels];
            for (channel, delta) in deltas.iter().enumerate() {
                for site in stencil {
                    let sums = &mut cotangent[*site as usize * channels + channel];
                    for (sum, delta) in sums.0.iter_mut().zip(&delta.0) {
                        *sum = weight.fused(*delta, *sum);
                    }
                }
            }
        }
    }
}
