"""A trained flow in PyTorch, from the file that `neuralrg export` writes.

    flow = Flow.read("model.safetensors")  # an nn.Module: .double(), .to("cuda"), .parameters()
    x, ln_q = flow.sample(1000)  # ln q(x); with the Z2 mixture that of ½[q(x) + q(-x)]
    z, log_det = flow.inverse(x)  # ln|det ∂z/∂x| of the map without mixture
    flow.ln_q(x)

This file stands alone: it needs torch and safetensors, and nothing else of this project. All of it
can be differentiated, so that a flow can be trained further.

Inside, fields are (sites, batch): a gather of sites then copies whole rows.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

#: The present format and those before it.
FORMATS = ("neuralrg-flow 2", "neuralrg-flow 1")

NEWTON_STEPS = 100


class Monotone(NamedTuple):
    """The map y = e^s u + t + a tanh(b u + c) of each updated site; without a, b, c affine.

    Shapes: all (updated_per_row, rows · batch), as u and y.
    """

    s: Tensor
    t: Tensor
    a: Tensor | None = None
    b: Tensor | None = None
    c: Tensor | None = None

    def forward(self, u: Tensor) -> Tensor:
        """y of u."""
        y = u * self.s.exp() + self.t
        return y if self.a is None else y + self.a * torch.tanh(self.b * u + self.c)

    def derivative(self, u: Tensor) -> Tensor:
        """dy/du > 0."""
        if self.a is None:
            return self.s.exp()
        return self.s.exp() + self.a * self.b * (1.0 - torch.tanh(self.b * u + self.c) ** 2)

    def inverse(self, y: Tensor) -> Tensor:
        """u of y."""
        if self.a is None:
            return (y - self.t) * torch.exp(-self.s)
        with torch.no_grad():
            root = self._root(y)
        # At the root this step changes no value, but has the derivatives of the inverse.
        return root - (self.forward(root) - y) / self.derivative(root).detach()

    def _root(self, y: Tensor) -> Tensor:
        """Newton's method within a bracket: y - t is within a of e^s u."""
        shrink = torch.exp(-self.s)
        low, high = (y - self.t - self.a) * shrink, (y - self.t + self.a) * shrink
        u = (y - self.t) * shrink
        # What rounding leaves of a difference between y and a sum of such terms.
        rounding = 4.0 * torch.finfo(y.dtype).eps * (y.abs() + self.t.abs() + self.a)
        for _ in range(NEWTON_STEPS):
            excess = self.forward(u) - y
            if torch.all(excess.abs() <= rounding):
                break
            low, high = torch.where(excess > 0.0, low, u), torch.where(excess > 0.0, u, high)
            newton = u - excess / self.derivative(u)
            inside = (newton >= low) & (newton <= high)
            u = torch.where(inside, newton, 0.5 * (low + high))
        return u


class Sum(nn.Module):
    """One input of a network: for each row the weighted sum over a few sites."""

    def __init__(self, sites: Tensor, weight: float) -> None:
        super().__init__()
        self.register_buffer("sites", sites.long())
        self.weight = weight

    def forward(self, values: Tensor) -> Tensor:
        """Shapes: (sites, …) → (rows, …)."""
        return self.weight * values[self.sites].sum(1)


class Coupling(nn.Module):
    """Moves the updated sites of each row by monotone maps, given sums over frozen sites."""

    def __init__(self, structure: dict, index: int, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.is_odd = structure["conditioner"] == "odd"
        self.is_bump = structure["transform"] == "bump"
        # Format 1 knew joint networks only.
        self.is_separate = structure.get("networks") == "separate"
        self.hidden_layers = structure["hidden_layers"]
        prefix = f"couplings.{index}"
        # All rows of the first updated site, then of the second.
        self.register_buffer("updated", tensors[f"{prefix}.updated"].long().T.contiguous())
        self.shells, self.stencil, self.seen = (
            nn.ModuleList(
                Sum(tensors[f"{prefix}.{kind}.{i}"], weight)
                for i, weight in enumerate(structure["couplings"][index][kind])
            )
            for kind in ("shells", "stencil", "seen")
        )
        self.weights = nn.ParameterList(_numbered(tensors, f"{prefix}.weights"))

    def forward(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """From z to x, with ln|det|. Shapes: (sites, batch) → (sites, batch), (batch)."""
        monotone = self.monotone(field)
        u = self._gather(field)
        return self._scatter(field, monotone.forward(u)), self._log_det(monotone, u, field)

    def inverse(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """From x to z, with ln|det|. Shapes: (sites, batch) → (sites, batch), (batch)."""
        monotone = self.monotone(field)
        u = monotone.inverse(self._gather(field))
        return self._scatter(field, u), -self._log_det(monotone, u, field)

    def monotone(self, field: Tensor) -> Monotone:
        """The maps that the network makes of the frozen sites. Shapes: field (sites, batch)."""
        sites = len(self.updated)
        outputs = self._network(field).split(sites)
        if self.is_bump:
            t, c, s, a, b = outputs
            return Monotone(s, t, F.softplus(a), F.softplus(b), c)
        # Odd networks give their odd outputs first.
        raw, t = outputs[::-1] if self.is_odd else outputs
        return Monotone(self.weights[-1] * torch.tanh(raw), t)

    def _network(self, field: Tensor) -> Tensor:
        """Shapes: (sites, batch) → (outputs · updated_per_row, rows · batch)."""
        weights = list(self.weights)
        if not self.shells:
            return self._constants(field)
        inputs = [shell(field).flatten() for shell in self.shells]
        if self.stencil:
            inputs += self._features(field, weights)
        inputs = torch.cat([part.reshape(-1, inputs[0].numel()) for part in inputs])
        if not self.is_odd:
            networks = (5 if self.is_bump else 2) if self.is_separate else 1
            return torch.cat([self._elu_network(weights, inputs) for _ in range(networks)])
        hidden = inputs
        for _ in range(self.hidden_layers):
            hidden = self._layer(weights, hidden)
        odd, skip, even, bias = weights[:4]
        return torch.cat([odd @ hidden + skip @ inputs, torch.addmm(bias, even, hidden**2)])

    def _elu_network(self, weights: list[Tensor], hidden: Tensor) -> Tensor:
        """The outputs of one network, whose weights it takes off the list."""
        for _ in range(self.hidden_layers):
            hidden = self._layer(weights, hidden)
        weight, bias = weights.pop(0), weights.pop(0)
        return torch.addmm(bias, weight, hidden)

    def _layer(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        """A hidden layer, whose weights it takes off the list."""
        if self.is_odd:
            return torch.tanh(weights.pop(0) @ inputs)
        weight, bias = weights.pop(0), weights.pop(0)
        return F.elu(torch.addmm(bias, weight, inputs))

    def _features(self, field: Tensor, weights: list[Tensor]) -> Iterator[Tensor]:
        """What rows see of a convolution over frozen sites: each (channels, rows · batch)."""
        stencil = torch.stack([part(field).flatten() for part in self.stencil])
        features = self._layer(weights, stencil)
        features = features.reshape(len(features), -1, field.shape[1]).transpose(0, 1)
        for part in self.seen:
            yield part(features).transpose(0, 1).flatten(1)

    def _constants(self, field: Tensor) -> Tensor:
        """Outputs of an odd network that sees nothing: no shifts, and the even outputs' biases."""
        even = self.weights[0].expand(-1, self.updated.shape[1] * field.shape[1])
        odd = torch.zeros_like(even[: (2 if self.is_bump else 1) * len(self.updated)])
        return torch.cat([odd, even])

    def _gather(self, field: Tensor) -> Tensor:
        return field[self.updated].flatten(1)

    def _scatter(self, field: Tensor, values: Tensor) -> Tensor:
        return field.index_copy(0, self.updated.flatten(), values.reshape(-1, field.shape[1]))

    def _log_det(self, monotone: Monotone, u: Tensor, field: Tensor) -> Tensor:
        logarithms = monotone.s if monotone.a is None else monotone.derivative(u).log()
        return logarithms.reshape(-1, field.shape[1]).sum(0)


class Flow(nn.Module):
    """The flow x = g(z) of one trained task."""

    def __init__(self, structure: dict, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.linear_size: int = structure["linear_size"]
        self.temperature: float = structure["temperature"]
        self.is_mixture: bool = structure["symmetry"] == "mixture"
        self.couplings = nn.ModuleList(
            Coupling(structure, i, tensors) for i in range(len(structure["couplings"]))
        )
        # (L, L/2 + 1): the half plane that a real FFT returns.
        scales = tensors.get("preconditioner")
        self.preconditioner_log_det = 0.0 if scales is None else float(scales.log().sum())
        half = None if scales is None else scales[:, : self.linear_size // 2 + 1].contiguous()
        self.register_buffer("preconditioner", half)

    @classmethod
    def read(cls, path: str | Path, dtype: torch.dtype | None = None) -> "Flow":
        """The flow of an exported file, in the precision of its training or in `dtype`.

        Raises:
            ValueError: the file is not what `neuralrg export` writes.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file ({error})") from error
        if metadata.get("format") not in FORMATS:
            raise ValueError(
                f"{path}: its format is {metadata.get('format')!r}, this reader knows {FORMATS}; "
                "export the task again with the neuralrg that this file came with"
            )
        flow = cls(json.loads(metadata["flow"]), tensors)
        return flow.to(next(flow.parameters()).dtype if dtype is None else dtype)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and ln|det ∂x/∂z|. Shapes: (batch, L, L) → (batch, L, L), (batch)."""
        field, log_det = z.flatten(1).T, self.preconditioner_log_det
        for coupling in self.couplings:
            field, part = coupling(field)
            log_det = log_det + part
        return self._filter(field.T.reshape(z.shape), 1.0), log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = g⁻¹(x) and ln|det ∂z/∂x|. Shapes: (batch, L, L) → (batch, L, L), (batch)."""
        field, log_det = self._filter(x, -1.0).flatten(1).T, -self.preconditioner_log_det
        for coupling in reversed(self.couplings):
            field, part = coupling.inverse(field)
            log_det = log_det + part
        return field.T.reshape(x.shape), log_det

    def ln_q(self, x: Tensor) -> Tensor:
        """ln q(x), with the Z2 mixture ln ½[q(x) + q(-x)]. Shapes: (batch, L, L) → (batch)."""
        return self._mix(self._ln_density(x), x)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Independent samples from torch's generator, with ln q. Shapes: (count, L, L), (count)."""
        size, like = self.linear_size, next(self.parameters())
        z = torch.randn(count, size, size, dtype=like.dtype, device=like.device)
        x, log_det = self(z)
        ln_q = self._mix(ln_prior(z) - log_det, x)
        if self.is_mixture:
            x = torch.where(torch.rand_like(x[:, :1, :1]) < 0.5, x, -x)
        return x, ln_q

    def _mix(self, ln_q: Tensor, x: Tensor) -> Tensor:
        """From ln q of the map that of the model."""
        if not self.is_mixture:
            return ln_q
        return torch.logaddexp(ln_q, self._ln_density(-x)) - math.log(2.0)

    def _ln_density(self, x: Tensor) -> Tensor:
        z, log_det = self.inverse(x)
        return ln_prior(z) + log_det

    def _filter(self, field: Tensor, exponent: float) -> Tensor:
        """The Gaussian layer, diagonal in Fourier space, or its inverse. Shapes: (batch, L, L)."""
        if self.preconditioner is None:
            return field
        modes = torch.fft.rfft2(field) * self.preconditioner**exponent
        return torch.fft.irfft2(modes, s=field.shape[1:])


def ln_prior(z: Tensor) -> Tensor:
    """ln p(z) of N(0, I). Shapes: (batch, L, L) → (batch)."""
    sites = z.shape[1] * z.shape[2]
    return -0.5 * z.square().sum((1, 2)) - 0.5 * sites * math.log(2.0 * math.pi)


def _numbered(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    """Tensors `prefix.0`, `prefix.1`, …"""
    numbers = sorted(
        int(name[len(prefix) + 1 :]) for name in tensors if name.startswith(f"{prefix}.")
    )
    return [tensors[f"{prefix}.{number}"] for number in numbers]
