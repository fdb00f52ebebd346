"""analysis/flow_torch.py: the same numbers as the program's, for every kind of flow."""

import copy
import importlib
import json
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from conftest import need

#: `[flow]` of each kind, its lattice and depth. Steps are few, but move every weight.
FLOWS = {
    "paper": ("couplings = 3\nhidden_layers = 2", 8, 3),
    "joint": (
        'networks = "joint"\nsplits = "cycle"\nsymmetry = "mixture"\ncouplings = 3\n'
        "hidden_layers = 2",
        8,
        3,
    ),
    "tree": ('arrangement = "tree"\nsymmetry = "none"\nrepeats = 2\ncouplings = 2', 4, 2),
    "tebd": (
        'arrangement = "tebd"\nnetworks = "joint"\nsplits = "cycle"\ncouplings = 2',
        4,
        1,
    ),
    "best": ('preset = "best"\ncouplings = 4', 8, 2),
    "convolution": ('preset = "best"\ncouplings = 3\nchannels = 3', 4, 2),
    "biased": (
        'arrangement = "checkerboard"\nsymmetry = "mixture"\ntransform = "bump"\nchannels = 2\n'
        "couplings = 2\nhidden_layers = 1",
        4,
        2,
    ),
    "affine": (
        'preset = "best"\ncouplings = 3\ntransform = "affine"\nneighbours = "shells"',
        4,
        1,
    ),
}

#: Largest differences of densities (nat) and fields.
TOLERANCE = {"f64": 1e-10, "f32": 1e-5}

COUNT = 40


class Exported(NamedTuple):
    """A trained flow and what the program draws of it."""

    path: Path
    flow: object
    z: object
    x: object
    sign: object
    ln_q: np.ndarray
    tolerance: float


def _torch():
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        need(False, f"Python cannot import torch ({error})")


@pytest.fixture(
    scope="module",
    params=[*((name, "f64") for name in FLOWS), ("paper", "f32"), ("best", "f32")],
    ids=lambda param: "-".join(param),
)
def exported(request, neuralrg, tmp_path_factory) -> Exported:
    torch = _torch()
    from flow_torch import Flow

    name, precision = request.param
    flow, size, depth = FLOWS[name]
    folder = tmp_path_factory.mktemp(name)
    config = folder / "config.toml"
    config.write_text(
        f'[sweep]\nname = "{name}"\nlinear_size = {size}\n'
        f"temperatures = [2.3]\ndepths = [{depth}]\n"
        f"[flow]\n{flow}\n[train]\nsteps = 40\nbatch = 32\nlearning_rate = 0.01\n"
        "averaging = 0.0\nwarmup_steps = 0\n"
        "[evaluate]\nsamples = 256\nbatch = 128\n[hmc]\nchains = 4\nwarmup = 4\ntrajectories = 8\n"
        f'[run]\ndevice = "cpu"\nprecision = "{precision}"\n'
    )
    neuralrg("run", config, "-o", folder / "sweep")
    task = folder / "sweep" / "tasks" / f"L{size}_T2.3_d{depth}_s1.h5"
    model, samples = folder / "model.safetensors", folder / "samples.h5"
    neuralrg("export", task, "-o", model)
    neuralrg("sample", task, "-n", COUNT, "-o", samples)
    with h5py.File(samples) as file:
        arrays = {key: np.asarray(item) for key, item in file.items()}
    return Exported(
        model,
        Flow.read(model).requires_grad_(False),
        torch.from_numpy(arrays["latent"]),
        torch.from_numpy(arrays["field"]),
        torch.from_numpy(arrays["sign"])[:, None, None],
        arrays["ln_q"],
        TOLERANCE[precision],
    )


def _difference(a, b) -> float:
    """Largest difference, relative where the numbers are large: f32 has 7 digits."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b))))


def test_forward_gives_the_programs_fields(exported):
    x, _ = exported.flow(exported.z)
    assert _difference(x * exported.sign, exported.x) < exported.tolerance


def test_inverse_gives_the_programs_latents(exported):
    g_z = exported.x * exported.sign
    z, log_det = exported.flow.inverse(g_z)
    # Where the map shrinks, its inverse magnifies the rounding of the fields.
    assert _difference(z, exported.z) < 20.0 * exported.tolerance
    assert _difference(-log_det, exported.flow(exported.z)[1]) < 20.0 * exported.tolerance


def test_ln_q_is_the_programs(exported):
    assert _difference(exported.flow.ln_q(exported.x), exported.ln_q) < exported.tolerance


def test_the_map_is_not_trivial(exported):
    """Else the tests above would compare nothing."""
    _, log_det = exported.flow(exported.z)
    assert log_det.std() > 1e-3
    assert all(float(weight.abs().max()) > 0.0 for weight in exported.flow.parameters())


def test_log_det_is_that_of_the_jacobian(exported):
    torch = _torch()
    flow, z = copy.deepcopy(exported.flow).double(), exported.z[:1].double()
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z)[0], z, vectorize=True)
    sites = z.numel()
    expected = torch.linalg.slogdet(jacobian.reshape(sites, sites)).logabsdet
    assert _difference(flow(z)[1][0], expected) < 10.0 * exported.tolerance


def test_samples_have_the_density_that_ln_q_gives_them(exported):
    torch = _torch()
    torch.manual_seed(1)
    x, ln_q = exported.flow.sample(10)
    assert x.shape == (10, *exported.x.shape[1:])
    assert _difference(exported.flow.ln_q(x), ln_q) < 20.0 * exported.tolerance


def test_densities_can_be_differentiated(exported):
    """Through the inverse too: against a difference quotient in a random direction."""
    torch = _torch()
    torch.manual_seed(2)
    flow = copy.deepcopy(exported.flow).double()
    x = exported.x[:3].double().requires_grad_()
    (gradient,) = torch.autograd.grad(flow.ln_q(x).sum(), x)
    direction = torch.randn_like(x)
    step = 1e-5
    with torch.no_grad():
        change = flow.ln_q(x + step * direction) - flow.ln_q(x - step * direction)
    expected = change / (2.0 * step)
    slope = (gradient * direction).sum((1, 2))
    assert _difference(slope, expected) < 1e-5


def test_format_1_is_the_same_without_the_networks_which_are_joint(exported, tmp_path):
    _torch()
    from safetensors import safe_open
    from safetensors.torch import save_file

    from flow_torch import Flow

    with safe_open(exported.path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    structure = json.loads(metadata["flow"])
    if structure.pop("networks") == "separate":
        pytest.skip("format 1 had joint networks only")
    old = {**metadata, "format": "neuralrg-flow 1", "flow": json.dumps(structure)}
    save_file(tensors, tmp_path / "old.safetensors", metadata=old)
    flow = Flow.read(tmp_path / "old.safetensors")
    assert _difference(flow.ln_q(exported.x).detach(), exported.ln_q) < exported.tolerance


def test_other_files_are_refused(tmp_path):
    _torch()
    from safetensors.numpy import save_file

    from flow_torch import Flow

    path = tmp_path / "other.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Flow.read(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="export the task again"):
        Flow.read(path)
