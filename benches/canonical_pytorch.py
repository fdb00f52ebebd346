#!/usr/bin/env python3
"""Times of a training step of `neuralrg canonical` beside the same losses in plain PyTorch.

    .venv/bin/python benches/canonical_pytorch.py --program target/release/neuralrg

The PyTorch programs have the same couplings, momenta by autograd, batch and optimizer, in f32 on
one thread. A step of the program takes the difference of two trainings of different lengths,
divided by that of their steps. All are measured in turn; printed are medians and the ratio
PyTorch / program, with the quartiles of the ratios of the rounds. Needs a torch package that Python
can import: `scripts/setup --torch-cuda`.
"""

import argparse
import os
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

#: Lengths of the program's two trainings, and steps of PyTorch's.
STEPS = (20, 120)
ROUNDS = 5


class Case(NamedTuple):
    name: str
    coordinates: int
    couplings: int
    hidden_layers: int
    hidden_width: int
    batch: int
    #: Of the program's configuration.
    source: str
    loss: str


CASES = (
    Case("ring, variational", 2, 8, 2, 32, 512, 'kind = "ring"', "variational"),
    Case(
        "chain of 32, variational",
        *(32, 8, 1, 32, 256),
        'kind = "harmonic-chain"\nbeads = 32',
        "variational",
    ),
    Case(
        "chain of 784, likelihood",
        *(784, 8, 2, 64, 64),
        'kind = "harmonic-chain"\nbeads = 784\nsamples = 2000\nheld_out = 10',
        "likelihood",
    ),
)


class Network(nn.Sequential):
    """Hidden layers of ELUs, as those of `flow.conditioner = "elu"`."""

    def __init__(self, case: Case, inputs: int, outputs: int) -> None:
        widths = [inputs, *[case.hidden_width] * case.hidden_layers]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ELU()]
        super().__init__(*layers, nn.Linear(widths[-1], outputs))


class Coupling(nn.Module):
    """Real NVP: y = exp(s(v)) u + t(v) of one half given the other."""

    def __init__(self, case: Case, moved: torch.Tensor, frozen: torch.Tensor) -> None:
        super().__init__()
        self.moved, self.frozen = moved, frozen
        self.scale_network = Network(case, len(frozen), len(moved))
        self.shift_network = Network(case, len(frozen), len(moved))
        self.scale = nn.Parameter(torch.zeros(len(moved)))

    def forward(self, q: torch.Tensor, inverse: bool) -> torch.Tensor:
        seen = q[:, self.frozen]
        s = torch.tanh(self.scale_network(seen)) * self.scale
        t = self.shift_network(seen)
        u = q[:, self.moved]
        return q.index_copy(1, self.moved, (u - t) * torch.exp(-s) if inverse else u * s.exp() + t)


class Flow(nn.Module):
    """A point transformation with its oscillators."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        couplings = []
        for _ in range(case.couplings // 2):
            first, second = torch.randperm(case.coordinates).chunk(2)
            couplings += [Coupling(case, first, second), Coupling(case, second, first)]
        self.couplings = nn.ModuleList(couplings)
        self.ln_frequency = nn.Parameter(torch.zeros(case.coordinates))
        self.rest = nn.Parameter(torch.zeros(case.coordinates))

    def to_coordinates(self, oscillators: torch.Tensor) -> torch.Tensor:
        for coupling in self.couplings:
            oscillators = coupling(oscillators, inverse=False)
        return oscillators

    def to_oscillators(self, q: torch.Tensor) -> torch.Tensor:
        for coupling in reversed(self.couplings):
            q = coupling(q, inverse=True)
        return q

    def ln_density(self, oscillators: torch.Tensor, momenta: torch.Tensor) -> torch.Tensor:
        z = (oscillators - self.rest) * self.ln_frequency.exp()
        return self.ln_frequency.sum() - 0.5 * (z.square() + momenta.square()).sum(1)


def product(image: torch.Tensor, point: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """(d image / d point)^T v, to be differentiated once more."""
    (found,) = torch.autograd.grad((image * vectors).sum(), point, create_graph=True)
    return found


def energy(case: Case, q: torch.Tensor) -> torch.Tensor:
    if case.coordinates == 2:
        return (q.norm(dim=1) - 2.0).square() / 0.32
    return 0.5 * nn.functional.pad(q, (1, 1)).diff(dim=1).square().sum(1)


def loss(case: Case, flow: Flow) -> torch.Tensor:
    normals = torch.randn(2, case.batch, case.coordinates)
    if case.loss == "variational":
        oscillators = normals[0] * (-flow.ln_frequency).exp() + flow.rest
        q = flow.to_coordinates(oscillators)
        p = product(flow.to_oscillators(q), q, normals[1])
        ln_density = flow.ln_density(oscillators, normals[1])
        return (ln_density + energy(case, q) + 0.5 * p.square().sum(1)).mean()
    oscillators = flow.to_oscillators(normals[0])
    momenta = product(flow.to_coordinates(oscillators), oscillators, normals[1])
    return -flow.ln_density(oscillators, momenta).mean()


def step_of_pytorch(case: Case) -> float:
    flow = Flow(case)
    adam = torch.optim.Adam(flow.parameters(), lr=1e-4)
    start = 0.0
    for step in range(STEPS[1]):
        if step == STEPS[0]:
            start = time.perf_counter()
        adam.zero_grad()
        loss(case, flow).backward()
        adam.step()
    return (time.perf_counter() - start) / (STEPS[1] - STEPS[0])


def step_of_program(case: Case, program: Path) -> float:
    shorter, longer = (training(case, program, steps) for steps in STEPS)
    return (longer - shorter) / (STEPS[1] - STEPS[0])


def training(case: Case, program: Path, steps: int) -> float:
    """Seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text(
            f'[canonical]\nloss = "{case.loss}"\nevaluate = 200\nsamples = 1\nmodes = 1\n'
            f"information = 100\n[source]\n{case.source}\n[flow]\ncouplings = {case.couplings}\n"
            f"hidden_layers = {case.hidden_layers}\nhidden_width = {case.hidden_width}\n"
            f"[train]\nsteps = {steps}\nbatch = {case.batch}\nlearning_rate = 1e-4\n"
            "weight_decay = 0\n[run]\ncheckpoint_minutes = 0\n"
        )
        command = [program, "canonical", config, "-o", Path(folder, "out.h5")]
        environment = os.environ | {"RUST_LOG": "error"}
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=Path("target/release/neuralrg"))
    program = parser.parse_args().program
    torch.set_num_threads(1)
    print("| loss | PyTorch | program | PyTorch / program |\n|---|---|---|---|")
    for case in CASES:
        times = np.array(
            [(step_of_pytorch(case), step_of_program(case, program)) for _ in range(ROUNDS)]
        )
        plain, own = 1e3 * np.median(times, axis=0)
        low, middle, high = np.percentile(times[:, 0] / times[:, 1], (25, 50, 75))
        print(
            f"| {case.name}, batch {case.batch} | {plain:.1f} ms | {own:.1f} ms "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )


if __name__ == "__main__":
    main()
