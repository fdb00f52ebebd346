"""Sets the engines' times beside each other and beside plain PyTorch's, after `cargo bench` and
`pytorch_reference.py` of the same run.

Reads criterion's estimates (target/criterion) and the JSON of `pytorch_reference.py`; prints
seconds per step, ratios, and the engine's share of the measured f32 matrix-multiply rate (useful
operations only: forward and twice that for the gradient).
"""

import argparse
import json
from pathlib import Path


def engine_seconds(criterion: Path, group: str) -> dict[tuple[str, str, int], float]:
    """Median seconds by (engine, flow, linear size) of one benchmark group."""
    found = {}
    for path in sorted(criterion.glob(f"{group}/*/*/new/estimates.json")):
        engine, flow = path.parts[-4].split("_", 1)
        size = int(path.parts[-3])
        found[engine, flow, size] = json.loads(path.read_text())["median"]["point_estimate"] * 1e-9
    return found


def print_engines(criterion: Path) -> None:
    """Native beside torch, for everything that was measured."""
    print(f"{'':14} {'flow':9} {'L':>3} {'native s':>10} {'torch s':>10} {'ratio':>6}")
    for group in ("train_step", "leapfrog_step", "draw"):
        seconds = engine_seconds(criterion, group)
        for (engine, flow, size), native in seconds.items():
            torch = seconds.get(("torch", flow, size))
            if engine == "native" and torch is not None:
                ratio = torch / native
                print(f"{group:14} {flow:9} {size:3} {native:10.4f} {torch:10.4f} {ratio:6.1f}")


def print_reference(criterion: Path, reference: dict) -> None:
    """Training steps of the paper's flow beside plain PyTorch's."""
    seconds = engine_seconds(criterion, "train_step")
    rate = reference["matmul_flops_per_second"]
    threads = reference["threads"]
    print(f"\nf32 matrix multiplication: {rate / 1e9:.0f} GFLOP/s on {threads} threads")
    print(f"{'PyTorch':8} {'flow':9} {'L':>3} {'s':>8} {'native s':>9} {'ratio':>6} {'share':>6}")
    for case in reference["cases"]:
        width, size = case["hidden_width"], case["linear_size"]
        joint = "joint" if case["networks"] == "joint" else "paper"
        flow = joint if width == 10 else f"{joint}-{width}"
        native = seconds.get(("native", flow, size))
        if native is None:
            continue
        plain = case["seconds_per_step"]
        share = case["useful_flops_per_step"] / native / rate
        print(
            f"{case['mode']:8} {flow:9} {size:3} {plain:8.3f} {native:9.4f} "
            f"{plain / native:6.1f} {share:6.1%}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("reference", type=Path, help="JSON that pytorch_reference.py printed")
    parser.add_argument(
        "--criterion", type=Path, default=Path("target/criterion"), help="criterion's folder"
    )
    arguments = parser.parse_args()
    print_engines(arguments.criterion)
    print_reference(arguments.criterion, json.loads(arguments.reference.read_text()))


if __name__ == "__main__":
    main()
