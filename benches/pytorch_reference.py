"""Seconds of one training step of the paper's flow in plain PyTorch: the yardstick of the engine.

The flow is MERA of full depth with a Real NVP of shared weights for each layer (Li and Wang,
arXiv:1802.02840), its target the continuous dual of the Ising model at the critical temperature. A
step is: sample z, reverse Kullback-Leibler loss plus the KL symmetry regularizer, backward, Adam;
all in f32. s and t have a network each (`--networks separate`, as in the paper) or share one.

People-readable lines go to stderr, one JSON object to stdout. Needs a torch package that Python
can import, which the CPU set-up of scripts/setup does not have: `scripts/setup --torch-cuda`, or
any other environment with torch.

Everywhere the batch is the last axis, so that rearranging sites moves whole rows of samples, and
the networks' features are the first: in eager mode on CPUs, layers (features, rows) of width 10
take half the time of (rows, features), and those of width 64 the same.
"""

import argparse
import ctypes
import json
import math
import statistics
import sys
import time
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

COUPLINGS = 10
HIDDEN_LAYERS = 3
CRITICAL_BETA = math.log(1.0 + math.sqrt(2.0)) / 2.0
LOWEST_EIGENVALUE = 0.1
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-3
SYMMETRY_WEIGHT = 1.0

MATMUL_SIZE = 4096
MATMUL_REPEATS = 5
WARM_UP_STEPS = 3
FEWEST_STEPS = 5
CHECK_TOLERANCE = 1e-10


class Shape(NamedTuple):
    """Size of a coupling's networks."""

    hidden_width: int
    networks: str

    def widths(self) -> list[int]:
        """Numbers of features of each network: 2 → h → h → h → 2, or 4 of a joint one."""
        return [2, *[self.hidden_width] * HIDDEN_LAYERS, 4 // self.count()]

    def count(self) -> int:
        """Networks of a coupling."""
        return 2 if self.networks == "separate" else 1


def random_splits() -> list[tuple[list[int], list[int]]]:
    """Frozen and updated sites of the couplings of a Real NVP: a random half, its complement."""
    splits = []
    for _ in range(COUPLINGS // 2):
        frozen, updated = torch.randperm(4).view(2, 2).sort().values.tolist()
        splits += [(frozen, updated), (updated, frozen)]
    return splits


class Coupling(nn.Module):
    """Affine coupling x_u = z_u e^s + t, with s and t functions of the two frozen sites."""

    def __init__(self, split: tuple[list[int], list[int]], shape: Shape) -> None:
        super().__init__()
        self.frozen, self.updated = split
        self.networks = nn.ModuleList(
            nn.ModuleList(
                nn.Linear(inputs, outputs) for inputs, outputs in pairwise(shape.widths())
            )
            for _ in range(shape.count())
        )
        self.scale = nn.Parameter(torch.zeros(2, 1))

    def scale_and_shift(self, sites: list[Tensor]) -> tuple[Tensor, Tensor]:
        """s = scale · tanh(raw) and t. Shapes: four times (rows) → s, t (2, rows)."""
        inputs = torch.stack([sites[i] for i in self.frozen])
        outputs = [outputs_of(network, inputs) for network in self.networks]
        raw, shift = outputs if len(outputs) == 2 else outputs[0].chunk(2)
        return self.scale * torch.tanh(raw), shift

    def replace(self, sites: list[Tensor], values: Tensor) -> list[Tensor]:
        """The sites with new values of the updated ones. Shapes: four times (rows), (2, rows)."""
        new = dict(zip(self.updated, values.unbind(), strict=True))
        return [new.get(i, site) for i, site in enumerate(sites)]

    def forward(self, sites: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """From z to x, with s. Shapes: four times (rows) → four times (rows), (2, rows)."""
        s, t = self.scale_and_shift(sites)
        updated = torch.stack([sites[i] for i in self.updated])
        return self.replace(sites, updated * torch.exp(s) + t), s

    def inverse(self, sites: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """From x to z, with -s. Shapes: as those of `forward`."""
        s, t = self.scale_and_shift(sites)
        updated = torch.stack([sites[i] for i in self.updated])
        return self.replace(sites, (updated - t) * torch.exp(-s)), -s


def outputs_of(network: nn.ModuleList, hidden: Tensor) -> Tensor:
    """Linear layers with ELU between them. Shapes: (2, rows) → (outputs, rows)."""
    for i, layer in enumerate(network):
        if i > 0:
            hidden = F.elu(hidden, inplace=True)
        hidden = torch.addmm(layer.bias.unsqueeze(1), layer.weight, hidden)
    return hidden


class RealNVP(nn.Module):
    """A stack of couplings that acts on all 2x2 blocks of a field with the same weights."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(split, shape) for split in random_splits())

    def forward(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """From z to x, with ln|det ∂x/∂z|. Shapes: (n, n, batch) → (n, n, batch), (batch)."""
        sites = block_sites(field)
        log_scales = []
        for coupling in self.couplings:
            sites, s = coupling(sites)
            log_scales.append(s)
        return join_blocks(sites, field), sum_by_sample(log_scales, field)

    def inverse(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """From x to z, with ln|det ∂z/∂x|. Shapes: (n, n, batch) → (n, n, batch), (batch)."""
        sites = block_sites(field)
        log_scales = []
        for coupling in reversed(self.couplings):
            sites, s = coupling.inverse(sites)
            log_scales.append(s)
        return join_blocks(sites, field), sum_by_sample(log_scales, field)


def sublattices(field: Tensor) -> Tensor:
    """Sites (0,0), (0,1), (1,0), (1,1) of all blocks.

    Shapes: (n, n, batch) → (4, n/2, n/2, batch).
    """
    size, _, batch = field.shape
    half = size // 2
    return field.reshape(half, 2, half, 2, batch).permute(1, 3, 0, 2, 4).reshape(4, half, half, -1)


def interleave(parts: Tensor) -> Tensor:
    """The inverse of `sublattices`. Shapes: (4, n/2, n/2, batch) → (n, n, batch)."""
    _, half, _, batch = parts.shape
    parts = parts.reshape(2, 2, half, half, batch).permute(2, 0, 3, 1, 4)
    return parts.reshape(2 * half, 2 * half, batch)


def block_sites(field: Tensor) -> list[Tensor]:
    """One row for each block of each sample. Shapes: (n, n, batch) → 4 times (n²/4 · batch)."""
    return list(sublattices(field).flatten(1).unbind())


def join_blocks(sites: list[Tensor], like: Tensor) -> Tensor:
    """The inverse of `block_sites`. Shapes: 4 times (n²/4 · batch) → as `like`, (n, n, batch)."""
    half = like.shape[0] // 2
    return interleave(torch.stack(sites).reshape(4, half, half, -1))


def sum_by_sample(log_scales: list[Tensor], field: Tensor) -> Tensor:
    """Sum over couplings, sites and blocks. Shapes: each (2, n²/4 · batch) → (batch)."""
    return reduce(torch.add, log_scales).reshape(-1, field.shape[-1]).sum(0)


class Level(nn.Module):
    """The two layers that act on the sites that are multiples of 2^l: an (n, n) field."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.disentangler = RealNVP(shape)
        self.decimator = RealNVP(shape)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Decimator, then disentangler. Shapes: (n, n, batch) → (n, n, batch), (batch)."""
        field, decimated = self.decimator(z)
        field, entangled = self.disentangler(field.roll((-1, -1), (0, 1)))
        return field.roll((1, 1), (0, 1)), decimated + entangled

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Disentangler, then decimator. Shapes: (n, n, batch) → (n, n, batch), (batch)."""
        field, disentangled = self.disentangler.inverse(x.roll((-1, -1), (0, 1)))
        field, decimated = self.decimator.inverse(field.roll((1, 1), (0, 1)))
        return field, disentangled + decimated


class Mera(nn.Module):
    """The flow x = g(z) on a periodic lattice of L² sites, of depth log2 L.

    Latents lie on the lattice too: those of level l at the multiples of 2^l that are not multiples
    of 2^(l+1) in both coordinates.
    """

    def __init__(self, linear_size: int, shape: Shape) -> None:
        super().__init__()
        depth = linear_size.bit_length() - 1
        self.levels = nn.ModuleList(Level(shape) for _ in range(depth))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and ln|det ∂x/∂z|. Shapes: (L, L, batch) → (L, L, batch), (batch)."""
        fresh = []
        coarse = z
        for _ in self.levels:
            parts = sublattices(coarse)
            coarse = parts[0]
            fresh.append(parts[1:])
        log_det = torch.zeros_like(z[0, 0])
        for level, rest in zip(reversed(self.levels), reversed(fresh), strict=True):
            field = interleave(torch.cat([coarse.unsqueeze(0), rest]))
            coarse, level_log_det = level(field)
            log_det = log_det + level_log_det
        return coarse, log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = g⁻¹(x) and ln|det ∂z/∂x|. Shapes: (L, L, batch) → (L, L, batch), (batch)."""
        fresh = []
        coarse = x
        log_det = torch.zeros_like(x[0, 0])
        for level in self.levels:
            field, level_log_det = level.inverse(coarse)
            log_det = log_det + level_log_det
            parts = sublattices(field)
            coarse = parts[0]
            fresh.append(parts[1:])
        for rest in reversed(fresh):
            coarse = interleave(torch.cat([coarse.unsqueeze(0), rest]))
        return coarse, log_det


class IsingDual(nn.Module):
    """The target: continuous dual of the Ising model on a periodic lattice of L² sites."""

    def __init__(self, linear_size: int, beta: float) -> None:
        super().__init__()
        half = linear_size // 2 + 1
        cosines = torch.cos(2.0 * math.pi / linear_size * torch.arange(linear_size).double())
        offset = 4.0 * beta + LOWEST_EIGENVALUE
        eigenvalues = 2.0 * beta * (cosines[:, None] + cosines[:half]) + offset
        # Columns other than k_y = 0 and π stand for their mirror images too.
        images = torch.full([half], 2.0, dtype=torch.double)
        images[[0, -1]] = 1.0
        weights = images / (linear_size**2 * eigenvalues)
        # (L, L/2 + 1, 1): weight of |x_k|² in the half plane that a real FFT returns.
        self.register_buffer("weights", weights.unsqueeze(-1).to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """ln π(x) = -½ xᵀ(K + offset)⁻¹x + Σ ln cosh x_i. Shapes: (L, L, batch) → (batch)."""
        modes = torch.view_as_real(torch.fft.rfft2(x, dim=(0, 1)))
        quadratic = (modes.square().sum(-1) * self.weights).sum((0, 1))
        magnitude = x.abs()
        ln_cosh = magnitude + F.softplus(-2.0 * magnitude) - math.log(2.0)
        return ln_cosh.sum((0, 1)) - 0.5 * quadratic


def ln_prior(z: Tensor) -> Tensor:
    """ln p(z) of N(0, I). Shapes: (L, L, batch) → (batch)."""
    sites = z.shape[0] * z.shape[1]
    return -0.5 * z.square().sum((0, 1)) - 0.5 * sites * math.log(2.0 * math.pi)


class ReverseKL(nn.Module):
    """The loss, mean of ln q(x) - ln π(x) + λ [ln q(x) - ln q(-x)] over x = g(z)."""

    def __init__(self, linear_size: int, shape: Shape) -> None:
        super().__init__()
        self.flow = Mera(linear_size, shape)
        self.target = IsingDual(linear_size, CRITICAL_BETA)

    def forward(self, z: Tensor) -> Tensor:
        """Shapes: z (L, L, batch) → ()."""
        x, log_det = self.flow(z)
        ln_q = ln_prior(z) - log_det
        mirror_z, mirror_log_det = self.flow.inverse(-x)
        ln_q_mirror = ln_prior(mirror_z) + mirror_log_det
        asymmetry = ln_q - ln_q_mirror
        return (ln_q - self.target(x) + SYMMETRY_WEIGHT * asymmetry).mean()


class Case(NamedTuple):
    """What one measurement is of."""

    mode: str
    linear_size: int
    hidden_width: int
    networks: str
    batch: int

    def shape(self) -> Shape:
        """Of its networks."""
        return Shape(self.hidden_width, self.networks)


def useful_flops_per_step(case: Case) -> int:
    """Multiplications and additions of all networks in one step.

    3 passes (forward, and 2 for backward) · 2 · multiplications · 2 (map and inverse map).
    """
    shape = case.shape()
    products = shape.count() * sum(inputs * outputs for inputs, outputs in pairwise(shape.widths()))
    depth = case.linear_size.bit_length() - 1
    blocks = sum((case.linear_size >> level) ** 2 // 4 for level in range(depth))
    return 3 * 2 * products * 2 * COUPLINGS * blocks * case.batch * 2


def describe(case: Case) -> str:
    """The case's name in messages."""
    networks = f"{case.networks} networks of width {case.hidden_width}"
    return f"{case.mode}, L = {case.linear_size}, {networks}, batch {case.batch}"


def compile_layers(module: nn.Module) -> None:
    """Compiles each Real NVP for each of its field sizes, at the first step.

    One graph of the whole loss makes steps of L = 4 no faster, and that of L = 16 did not compile
    within an hour (on two busy cores, where these take ten minutes). One for each coupling
    compiles fast, but its calls cost more than it saves.
    """
    torch.compiler.reset()
    for layer in module.modules():
        if isinstance(layer, RealNVP):
            layer.compile(fullgraph=True, dynamic=False)
            layer.inverse = torch.compile(layer.inverse, fullgraph=True, dynamic=False)


def seconds_of_steps(case: Case, budget: float) -> list[float]:
    """Of each training step, for `budget` seconds after warm-up and compilation."""
    torch.manual_seed(1)
    loss_of = ReverseKL(case.linear_size, case.shape())
    optimizer = torch.optim.Adam(
        loss_of.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    if case.mode == "compile":
        compile_layers(loss_of)

    def step() -> float:
        start = time.perf_counter()
        z = torch.randn(case.linear_size, case.linear_size, case.batch)
        optimizer.zero_grad()
        loss_of(z).backward()
        optimizer.step()
        return time.perf_counter() - start

    print(f"{describe(case)}: first step {step():.3g} s", file=sys.stderr)
    for _ in range(WARM_UP_STEPS):
        step()
    seconds = []
    end = time.perf_counter() + budget
    while len(seconds) < FEWEST_STEPS or time.perf_counter() < end:
        seconds.append(step())
    return seconds


def matmul_flops_per_second() -> float:
    """The best rate of several products of large square f32 matrices."""
    a, b = torch.randn(2, MATMUL_SIZE, MATMUL_SIZE)
    product = torch.empty_like(a)
    seconds = []
    for _ in range(MATMUL_REPEATS):
        start = time.perf_counter()
        torch.matmul(a, b, out=product)
        seconds.append(time.perf_counter() - start)
    return 2 * MATMUL_SIZE**3 / min(seconds)


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next tensors, as the Rust program does.

    Otherwise much of a step goes into getting the same pages from the kernel again. Other C
    libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)
        mallopt(top_pad, 64 << 20)


def check(networks: str) -> bool:
    """Whether inverse and log_det are right in f64 at L = 4, with scales that are not 0."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.double)
    size, batch = 4, 3
    flow = Mera(size, Shape(10, networks)).requires_grad_(False)
    for name, parameter in flow.named_parameters():
        if name.endswith("scale"):
            parameter.normal_(std=0.3)
    z = torch.randn(size, size, batch)
    x, log_det = flow(z)
    back, inverse_log_det = flow.inverse(x)

    def flat_map(sample: Tensor) -> Tensor:
        return flow(sample.reshape(size, size, 1))[0].flatten()

    samples = z.reshape(-1, batch).unbind(1)
    jacobians = torch.stack([torch.func.jacrev(flat_map)(sample) for sample in samples])
    differences = {
        "inverse undoes forward": back - z,
        "log_det of forward": log_det - torch.linalg.slogdet(jacobians).logabsdet,
        "log_det of inverse": inverse_log_det + log_det,
    }
    worst = {name: difference.abs().max().item() for name, difference in differences.items()}
    for name, value in worst.items():
        print(f"{name}: off by {value:.1e}", file=sys.stderr)
    return all(value < CHECK_TOLERANCE for value in worst.values())


def benchmark(arguments: argparse.Namespace) -> dict:
    """The report of all cases; those whose compilation fails are told of and left out."""
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rate = matmul_flops_per_second()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"matmul {rate / 1e9:.1f} GFLOP/s",
        file=sys.stderr,
    )
    cases = []
    for mode in arguments.modes:
        for hidden_width in arguments.hidden_width:
            size, networks = arguments.linear_size, arguments.networks
            case = Case(mode, size, hidden_width, networks, arguments.batch)
            try:
                seconds = seconds_of_steps(case, arguments.seconds)
            except Exception as error:
                if mode != "compile":
                    raise
                print(f"{describe(case)}: left out, torch.compile failed: {error}", file=sys.stderr)
                continue
            median = statistics.median(seconds)
            flops = useful_flops_per_step(case)
            share = flops / median / rate
            print(
                f"{describe(case)}: {median:.4g} s/step (median of {len(seconds)}), "
                f"{100 * share:.1f} % of the matmul rate",
                file=sys.stderr,
            )
            cases.append(
                case._asdict()
                | {
                    "seconds_per_step": median,
                    "steps": len(seconds),
                    "useful_flops_per_step": flops,
                    "share_of_matmul_rate": share,
                }
            )
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_flops_per_second": rate,
        "cases": cases,
    }


def linear_size(text: str) -> int:
    """An argument that is a power of two, 2 or more."""
    size = int(text)
    if size < 2 or size & (size - 1):
        raise argparse.ArgumentTypeError(f"{text} is not a power of two of 2 or more")
    return size


def positive(text: str) -> int:
    """An argument that is 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measures one training step of the paper's flow in plain PyTorch on the CPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--linear-size",
        type=linear_size,
        default=16,
        metavar="L",
        help="L of the lattice of L² sites",
    )
    parser.add_argument(
        "--hidden-width",
        type=positive,
        nargs="+",
        default=[10, 64],
        metavar="H",
        help="neurons of each of the networks' three hidden layers; one case for each",
    )
    parser.add_argument(
        "--networks",
        choices=["separate", "joint"],
        default="separate",
        help="one each for s and t, or one for both",
    )
    parser.add_argument("--batch", type=positive, default=512, help="samples of one step")
    parser.add_argument(
        "--threads",
        type=positive,
        default=torch.get_num_threads(),
        metavar="N",
        help="threads of torch; by default all cores",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time of the measurement of each case"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=["eager", "compile"],
        default=["eager", "compile"],
        help="plain operations, torch.compile, or both",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure nothing; check inverse and log_det in f64 at L = 4, exit status 1 if wrong",
    )
    return parser.parse_args()


def main() -> int:
    """Checks or measures."""
    arguments = parse_arguments()
    if arguments.check:
        return 0 if check(arguments.networks) else 1
    print(json.dumps(benchmark(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
