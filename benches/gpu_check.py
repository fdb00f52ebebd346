"""All checks of the engine for GPUs, on a machine with a GPU: at most eight minutes.

`make gpu-check` packs a folder with the program, the measuring program `gpu` (benches/gpu.rs), the
shared libraries that both need and this script, and runs it there. The folder may be carried to
another machine: it needs a driver, CUDA (or NVRTC alone) and Python, nothing of this project.

    python3 target/gpu-check/gpu_check.py [-o FOLDER]

1. `gpu check`: all evaluations against the native engine, in f32 and f64, and twice the same bits;
   several flows at once, since most of it is compiling kernels.
2. A small sweep from a configuration to its verdicts, with latent HMC.
3. A task that is killed goes on to the same bits as one that is not.
4. `gpu times`: a training step, a leapfrog step and a draw, beside the cores of the machine.
5. Where CUDA has its compute-sanitizer: races in shared memory and accesses out of bounds.
6. Where Python has torch: the same flow and loss in PyTorch at L = 16, eager and compiled.

The report goes to stdout and to report.md in FOLDER; the exit status is 0 if 1 to 3 and 5 pass.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Seconds for all.
LIMIT = 470
DEADLINE = time.monotonic() + LIMIT
#: Seconds that each part may take.
LIMITS = {
    "check": 150,
    "sweep": 60,
    "kill": 60,
    "times": 200,
    "sanitizer": 60,
    "eager": 40,
    "compiled": 300,
}
#: Flows and lattices that are compared.
CHECKED = [
    *(("best", size) for size in (4, 8, 16, 32, 64, 128)),
    *(("paper", size) for size in (4, 16, 64, 128)),
    *(("mixture", size) for size in (4, 16)),
]
CRITICAL_TEMPERATURE = 2.269185314213022

SWEEP = """
[sweep]
name = "gpu"
linear_size = {size}
depths = [{depth}]
temperatures = {temperatures}
[flow]
preset = "best"
[train]
steps = {steps}
batch = 256
[evaluate]
samples = 8192
[hmc]
chains = 256
warmup = 100
trajectories = 200
[run]
engine = "cuda"
checkpoint_minutes = {checkpoint_minutes}
"""


class Report:
    """Lines on stdout and in a file, and what has failed."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / "report.md").open("w", encoding="utf-8")
        self.failed: list[str] = []

    def say(self, text: str) -> None:
        print(text, flush=True)
        print(text, file=self.file, flush=True)

    def check(self, name: str, passed: bool, rest: str = "") -> None:
        self.say(f"{'passed' if passed else 'FAILED'}: {name}{rest}")
        if not passed:
            self.failed.append(name)


def library_folders() -> list[str]:
    """Ours first, then where CUDA or Python's packages have NVRTC."""
    roots = [
        *Path("/usr/local").glob("cuda*/lib64"),
        *Path("/usr/local").glob("cuda*/targets/*/lib"),
    ]
    roots.append(Path("/usr/lib/x86_64-linux-gnu"))
    for path in sys.path:
        roots.extend(Path(path or ".").glob("nvidia/*/lib"))
    found = (str(root) for root in roots if any(root.glob("libnvrtc.so*")))
    return [str(HERE / "lib"), *found]


def environment(folder: Path) -> dict[str, str]:
    path = ":".join([*library_folders(), os.environ.get("LD_LIBRARY_PATH", "")]).strip(":")
    return {**os.environ, "LD_LIBRARY_PATH": path, "XDG_CACHE_HOME": str(folder / "cache")}


def left(limit: float) -> float:
    """So many seconds, or those that are left for all."""
    return max(1.0, min(limit, DEADLINE - time.monotonic()))


def start(command: list[str], folder: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    """A command in a process group of its own."""
    return subprocess.Popen(
        command,
        env=environment(folder) if env is None else env,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end(job: subprocess.Popen, limit: float) -> tuple[int, str]:
    """Exit status and all that a command says; 124, and the end of its group, where it is late."""
    try:
        said, _ = job.communicate(timeout=left(limit))
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        said, _ = job.communicate()
        return 124, said.decode(errors="replace") + "\n(it took too long)"
    return job.returncode, said.decode(errors="replace")


def run(
    command: list[str], limit: float, folder: Path, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """The same of a command from its start."""
    return end(start(command, folder, env), limit)


def program(name: str) -> str:
    return str(HERE / "bin" / name)


def write_sweep(path: Path, **values: object) -> Path:
    path.write_text(SWEEP.format(**values), encoding="utf-8")
    return path


def tasks(sweep: Path) -> list[Path]:
    return sorted((sweep / "tasks").glob("*.h5"))


def check_agreement(report: Report, folder: Path) -> None:
    jobs = [start([program("gpu"), "check", flow, str(size)], folder) for flow, size in CHECKED]
    for (flow, size), job in zip(CHECKED, jobs, strict=True):
        status, said = end(job, LIMITS["check"])
        report.check(f"{flow}, L = {size}, against the native engine", status == 0)
        report.say("\n".join(f"    {line}" for line in said.strip().splitlines()))


def check_sweep(report: Report, folder: Path) -> None:
    config = write_sweep(
        folder / "sweep.toml",
        size=8,
        depth=3,
        temperatures=[2.0, 2.269185314213022, 2.7],
        steps=1500,
        checkpoint_minutes=10,
    )
    begin = time.monotonic()
    command = [program("neuralrg"), "run", str(config), "-o", str(folder / "sweep")]
    status, said = run(command, LIMITS["sweep"], folder)
    seconds = time.monotonic() - begin
    report.check("a small sweep", status == 0, f", {seconds:.1f} s for three tasks")
    _, table = run([program("neuralrg"), "status", str(folder / "sweep")], 20, folder)
    report.say(f"\n```\n{table if status == 0 else said[-3000:]}\n```\n")


def exported(task: Path, folder: Path) -> tuple[dict, bytes]:
    """The header of a task's flow, whose keys have no order, and its weights."""
    output = folder / f"{task.parent.parent.name}.safetensors"
    status, said = run([program("neuralrg"), "export", str(task), "-o", str(output)], 30, folder)
    if status != 0:
        raise RuntimeError(said)
    with output.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), file.read()


def check_resume(report: Report, folder: Path) -> None:
    """Leaves the task's exported flow in whole.safetensors."""
    config = write_sweep(
        folder / "kill.toml",
        size=16,
        depth=4,
        temperatures=[CRITICAL_TEMPERATURE],
        steps=3000,
        checkpoint_minutes=0.01,
    )
    whole, broken = folder / "whole", folder / "broken"
    command = [program("neuralrg"), "run", str(config), "-o"]
    status, said = run([*command, str(whole)], LIMITS["kill"], folder)
    if status != 0:
        report.check("a task of L = 16", False, f"\n```\n{said[-3000:]}\n```")
        return
    flow = exported(tasks(whole)[0], folder)
    kills = 0
    while kills < 2:
        job = start([*command, str(broken)], folder)
        before = newest(broken / "checkpoints")
        limit = time.monotonic() + left(LIMITS["kill"])
        while job.poll() is None and newest(broken / "checkpoints") == before:
            time.sleep(0.02)
            if time.monotonic() > limit:
                break
        finished = job.poll() is not None
        if not finished:
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        if finished:
            break
        kills += 1
    status, said = run([*command, str(broken)], LIMITS["kill"], folder)
    same = status == 0 and exported(tasks(broken)[0], folder) == flow
    report.check(f"killed {kills} times, the same bits", same and kills > 0)
    if not same:
        report.say(f"\n```\n{said[-3000:]}\n```\n")


def newest(checkpoints: Path) -> int:
    """Time of the latest write, in nanoseconds."""
    times = [0]
    for path in checkpoints.glob("**/*"):
        # Files are renamed meanwhile.
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


# --- PyTorch: this script calls itself, so that a time limit ends what hangs. ---


def read_safetensors(path: Path) -> tuple[dict, dict]:
    """Metadata and tensors, without the package safetensors, which the machine may lack."""
    import torch

    types = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32}
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        piece = bytearray(data[begin:end])
        numbers = torch.frombuffer(piece, dtype=types[entry["dtype"]]) if piece else torch.empty(0)
        tensors[name] = numbers.reshape(entry["shape"])
    return metadata, tensors


def time_pytorch(path: Path, compiled: bool) -> None:
    """Prints the seconds of a training step of the flow: reverse KL, backward, Adam, batch 512."""
    import types

    import torch

    # The reader of exported flows names safetensors; its classes do without.
    stand_in = types.ModuleType("safetensors")
    stand_in.SafetensorError, stand_in.safe_open = ValueError, None
    sys.modules.setdefault("safetensors", stand_in)
    sys.path.insert(0, str(HERE))
    from flow_torch import Flow, ln_prior

    metadata, tensors = read_safetensors(path)
    structure = json.loads(metadata["flow"])
    flow = Flow(structure, tensors).float().to("cuda")
    size, batch = structure["linear_size"], 512
    beta = 1.0 / structure["temperature"]
    k = 2.0 * torch.pi * torch.fft.fftfreq(size, device="cuda")
    neighbours = 2.0 * (torch.cos(k)[:, None] + torch.cos(k)[None, :])
    kappa = 1.0 / (beta * neighbours + 4.0 * beta + 0.1)

    def loss(z: "torch.Tensor") -> "torch.Tensor":
        x, log_det = flow(z)
        power = torch.fft.fft2(x).abs().square() * kappa
        quadratic = 0.5 * power.sum((1, 2)) / size**2
        ln_cosh = (x.abs() + torch.nn.functional.softplus(-2.0 * x.abs())).sum((1, 2))
        return (ln_prior(z) - log_det + quadratic - ln_cosh).mean()

    step_loss = torch.compile(loss) if compiled else loss
    adam = torch.optim.Adam(flow.parameters(), lr=1e-6)
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        start = time.perf_counter()
        adam.zero_grad(set_to_none=True)
        step_loss(torch.randn(batch, size, size, device="cuda")).backward()
        adam.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(f"SECONDS {statistics.median(seconds[3:])}")


def compare_with_pytorch(report: Report, folder: Path) -> None:
    flow = folder / "whole.safetensors"
    # Its own libraries, not ours.
    env = dict(os.environ)
    have = [sys.executable, "-c", "import torch; assert torch.cuda.is_available()"]
    status, said = run(have, 60, folder, env)
    if status != 0 or not flow.exists():
        last = said.strip().splitlines()[-1:] or ["no flow was trained"]
        report.say(f"PyTorch: not compared ({last[0]})")
        return
    for name in ("eager", "compiled"):
        command = [sys.executable, __file__, "--pytorch", name, "--flow", str(flow)]
        status, said = run(command, LIMITS[name], folder, env)
        found = [line for line in said.splitlines() if line.startswith("SECONDS ")]
        if status == 0 and found:
            milliseconds = 1e3 * float(found[-1].split()[1])
            report.say(f"PyTorch, {name}: {milliseconds:.2f} ms a step (`best`, L = 16, batch 512)")
        else:
            report.say(f"PyTorch, {name}: no time ({said.strip().splitlines()[-1:]})")


def measure(report: Report, folder: Path) -> None:
    status, said = run([program("gpu"), "times"], LIMITS["times"], folder)
    report.say(f"\n{said.strip()}\n")
    if status != 0:
        report.say("(the table is not whole)")


def sanitize(report: Report, folder: Path) -> None:
    found = [*Path("/usr/local").glob("cuda*/bin/compute-sanitizer")]
    which = shutil.which("compute-sanitizer") or (found and str(found[-1]))
    if not which:
        report.say("compute-sanitizer: not on this machine")
        return
    for tool in ("racecheck", "memcheck"):
        command = [which, "--tool", tool, program("gpu"), "check", "mixture", "4"]
        _, said = run(command, LIMITS["sanitizer"], folder)
        summary = [line for line in said.splitlines() if "SUMMARY" in line]
        if summary:
            report.check(f"compute-sanitizer, {tool}", ": 0 " in summary[-1], f", {summary[-1]}")
        else:
            report.say(f"compute-sanitizer, {tool}: no summary ({said.strip()[-300:]})")


def check_all(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sweep", "whole", "broken"):
        shutil.rmtree(folder / name, ignore_errors=True)
    report = Report(folder)
    begin = time.monotonic()
    for part in PARTS:
        # What goes wrong in one part must not take the others with it.
        try:
            part(report, folder)
        except Exception:
            report.check(part.__name__, False, f"\n```\n{traceback.format_exc()}\n```")
    report.say(f"\n{time.monotonic() - begin:.0f} s")
    if report.failed:
        report.say(f"gpu-check: FAILED: {'; '.join(report.failed)}")
        return 1
    report.say("gpu-check: all passed")
    return 0


PARTS = (check_agreement, check_sweep, check_resume, measure, sanitize, compare_with_pytorch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=HERE / "out", metavar="FOLDER")
    parser.add_argument("--pytorch", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    parser.add_argument("--flow", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pytorch:
        time_pytorch(arguments.flow, arguments.pytorch == "compiled")
        return 0
    return check_all(arguments.output.resolve())


if __name__ == "__main__":
    sys.exit(main())
