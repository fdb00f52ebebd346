#!/usr/bin/env python3
"""A trajectory of alanine dipeptide, in files of the layout that the published ones have.

    alanine.py -o runs/alanine     2 trajectories of 50 ns at 300 K, 10 minutes of one core each

Langevin dynamics of OpenMM with Amber ff99SB-ILDN in implicit solvent (OBC2), a frame each
picosecond, frames aligned to one structure by least squares over all 22 atoms, weighted by their
masses: aligned by themselves, heavy atoms would lose six of their coordinates. Writes
`alanine-dipeptide-heavy-atom-positions.npz` (arr_0, arr_1 ...: frame, 30; nm) and
`alanine-dipeptide-backbone-dihedrals.npz` (frame, 2: phi and psi, rad), from which trajectories.py
makes a file for `neuralrg canonical`. Each nanosecond is saved, and the same command goes on after
the last one. Needs analysis/requirements-molecules.txt.
"""

import argparse
import fcntl
import json
import random
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from figure import run_script, written_whole
from sweep import SweepError

TEMPERATURE = 300.0
FRICTION_PER_PICOSECOND = 1.0
#: Picoseconds; hydrogens weigh 1.5 u and their bonds are rigid.
TIME_STEP = 0.004
STEPS_PER_FRAME = 250
FRAMES_PER_BLOCK = 1000
HYDROGEN_MASS = 1.5
MOST_SEED = 1_000_000_000
FORCE_FIELD = ("amber99sbildn.xml", "amber99_obc.xml")

#: Residue, atom, element; the earlier atoms that it is placed from; then bond length (nm), angle
#: and dihedral (degrees), the last one counted from phi or psi where atoms turn with them.
HEAVY_ATOMS = (
    ("ACE", "CH3", "C", (), ()),
    ("ACE", "C", "C", (0,), (0.152,)),
    ("ACE", "O", "O", (1, 0), (0.123, 120.5)),
    ("ALA", "N", "N", (1, 0, 2), (0.133, 116.0, 180.0)),
    ("ALA", "CA", "C", (3, 1, 0), (0.145, 122.0, 180.0)),
    ("ALA", "CB", "C", (4, 3, 1), (0.153, 110.0, -122.0)),
    ("ALA", "C", "C", (4, 3, 1), (0.152, 111.0, 0.0)),
    ("ALA", "O", "O", (6, 4, 3), (0.123, 120.5, 180.0)),
    ("NME", "N", "N", (6, 4, 3), (0.133, 116.0, 0.0)),
    ("NME", "C", "C", (8, 6, 4), (0.145, 122.0, 180.0)),
)
BONDS = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9))
#: Atoms of the backbone's dihedrals, in the order of `HEAVY_ATOMS`.
PHI, PSI = (1, 3, 4, 6), (3, 4, 6, 8)
#: Where trajectories begin, before the energy is minimised (rad).
START = (-2.6, 2.6)


class Plan(NamedTuple):
    """One trajectory: where its blocks lie, and how many there will be."""

    folder: Path
    trajectory: int
    blocks: int
    seed: int

    def block(self, index: int) -> Path:
        """File of a nanosecond."""
        return self.folder / f"trajectory-{self.trajectory}" / f"block-{index:04d}.npz"


def place(origin: np.ndarray, distance: float, angle: float, dihedral: float) -> np.ndarray:
    """An atom from three others (atom, axis), the nearest first; angles in radians."""
    first, second, third = origin
    axis = (first - second) / np.linalg.norm(first - second)
    normal = np.cross(second - third, axis)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, axis)
    sine = np.sin(angle)
    return first + distance * (
        -np.cos(angle) * axis + sine * np.cos(dihedral) * across + sine * np.sin(dihedral) * normal
    )


def heavy_positions(phi: float, psi: float) -> np.ndarray:
    """Heavy atoms in ordinary geometry at these angles, in radians. Shape: (atom, axis), nm."""
    turns = {(4, 3, 1): phi, (6, 4, 3): psi}
    positions: list[np.ndarray] = []
    # Where fewer than three atoms are there, any direction will do.
    anywhere = [np.array([0.0, 0.0, -0.1]), np.array([0.0, -0.1, -0.1])]
    for *_, before, geometry in HEAVY_ATOMS:
        if not before:
            positions.append(np.zeros(3))
            continue
        origin = np.array(([positions[index] for index in before] + anywhere)[:3])
        distance, *degrees = (*geometry, 90.0, 0.0)[:3]
        angle, dihedral = np.radians(degrees)
        positions.append(place(origin, distance, angle, dihedral + turns.get(before, 0.0)))
    return np.array(positions)


def dihedrals(positions: np.ndarray, atoms: tuple[int, ...]) -> np.ndarray:
    """Dihedral angles of four atoms, in (-pi, pi]. Shapes: (frame, atom, axis) to (frame)."""
    first, second, third = np.diff(positions[:, atoms], axis=1).transpose(1, 0, 2)
    left, right = np.cross(first, second), np.cross(second, third)
    sine = np.einsum("fa,fa->f", np.linalg.norm(second, axis=1, keepdims=True) * first, right)
    return np.arctan2(sine, np.einsum("fa,fa->f", left, right))


def align(positions: np.ndarray, reference: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Frames moved and turned onto a reference by weighted least squares (Kabsch 1976).

    Shapes: (frame, atom, axis), (atom, axis) and (atom) to (frame, atom, axis), centred at zero.
    """
    weights = masses / masses.sum()
    centred = positions - np.einsum("a,fai->fi", weights, positions)[:, np.newaxis]
    covariance = np.einsum("a,fai,aj->fij", weights, centred, reference - weights @ reference)
    left, _, right = np.linalg.svd(covariance)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, np.newaxis]
    return centred @ (left @ right)


class Molecule:
    """A simulation of OpenMM that hands out aligned frames."""

    def __init__(self, seed: int) -> None:
        """Build the molecule, minimise its energy and draw velocities."""
        self.simulation = build_simulation(seed)
        atoms = list(self.simulation.topology.atoms())
        self.heavy = [atom.index for atom in atoms if atom.element.symbol != "H"]
        self.masses = np.array([atom.element.mass._value for atom in atoms])
        self.reference = self.positions()

    def positions(self) -> np.ndarray:
        """Of all atoms, now. Shape: (atom, axis), nm."""
        state = self.simulation.context.getState(positions=True)
        return state.getPositions(asNumpy=True)._value

    def run_block(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (frame, 30) of the heavy atoms and dihedrals (frame, 2) of a nanosecond."""
        frames = np.empty((FRAMES_PER_BLOCK, *self.reference.shape))
        for frame in frames:
            self.simulation.step(STEPS_PER_FRAME)
            frame[...] = self.positions()
        if not np.isfinite(frames).all():
            raise SweepError("the dynamics has become unstable; begin again with another --seed")
        heavy = align(frames, self.reference, self.masses)[:, self.heavy]
        angles = np.stack([dihedrals(heavy, PHI), dihedrals(heavy, PSI)], axis=1)
        return heavy.reshape(len(heavy), -1).astype(np.float32), angles.astype(np.float32)


def openmm_version() -> str:
    """Of the installed OpenMM, whose saved states no other version reads.

    Raises:
        SweepError: it is not installed.
    """
    try:
        import openmm
    except ImportError as error:
        raise SweepError(f"{error}; pip install -r analysis/requirements-molecules.txt") from error
    return openmm.__version__


def build_simulation(seed: int) -> object:
    """A simulation that starts from the same structure whatever the seed of its velocities."""
    import openmm
    from openmm import app, unit

    topology = app.Topology()
    chain = topology.addChain()
    residues = {name: topology.addResidue(name, chain) for name in ("ACE", "ALA", "NME")}
    atoms = [
        topology.addAtom(name, app.Element.getBySymbol(element), residues[residue])
        for residue, name, element, *_ in HEAVY_ATOMS
    ]
    for one, other in BONDS:
        topology.addBond(atoms[one], atoms[other])
    field = app.ForceField(*FORCE_FIELD)
    modeller = app.Modeller(topology, heavy_positions(*START) * unit.nanometer)
    platform = openmm.Platform.getPlatformByName("Reference")
    random.seed(1)  # of the places where hydrogens begin
    modeller.addHydrogens(field, platform=platform)
    system = field.createSystem(
        modeller.topology, constraints=app.HBonds, hydrogenMass=HYDROGEN_MASS * unit.dalton
    )
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION_PER_PICOSECOND, TIME_STEP)
    integrator.setRandomNumberSeed(seed)
    # So small a molecule is as fast without threads.
    simulation = app.Simulation(modeller.topology, system, integrator, platform)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return simulation


def run_trajectory(plan: Plan) -> None:
    """Run what is left of a trajectory, each nanosecond in a file beside the simulation's state.

    Raises:
        SweepError: another process works on it, or its last nanosecond cannot be read.
    """
    plan.block(0).parent.mkdir(parents=True, exist_ok=True)
    with (plan.block(0).parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SweepError(f"{lock.name}: another alanine.py is at work here") from error
        there = (plan.block(index).exists() for index in range(plan.blocks))
        done = next((index for index, one in enumerate(there) if not one), plan.blocks)
        if done < plan.blocks:
            run_blocks(plan, done)


def run_blocks(plan: Plan, done: int) -> None:
    """Run a trajectory of which so many nanoseconds are done."""
    molecule = Molecule(plan.seed + plan.trajectory)
    context = molecule.simulation.context
    if done:
        block = read_block(plan.block(done - 1))
        molecule.reference = block["reference"]
        context.loadCheckpoint(block["state"].tobytes())
    for index in range(done, plan.blocks):
        positions, angles = molecule.run_block()
        state = np.frombuffer(context.createCheckpoint(), np.uint8)
        arrays = {"reference": molecule.reference, "state": state}
        write_npz(plan.block(index), {"positions": positions, "dihedrals": angles, **arrays})
        if (index + 1) % 10 == 0 or index + 1 == plan.blocks:
            print(f"trajectory {plan.trajectory}: {index + 1} of {plan.blocks} ns", flush=True)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a whole."""
    with written_whole(path) as partial:
        np.savez(partial, **arrays)


def read_block(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a nanosecond.

    Raises:
        SweepError: it is damaged.
    """
    try:
        with np.load(path) as block:
            return dict(block)
    except (BadZipFile, EOFError, ValueError, zlib.error) as error:
        raise SweepError(f"{path}: is damaged; remove it and the blocks behind it") from error


def join(plans: list[Plan], name: str) -> dict[str, np.ndarray]:
    """One kind of arrays, each trajectory's blocks one after the other: arr_0, arr_1 ..."""

    return {
        f"arr_{plan.trajectory}": np.concatenate(
            [read_block(plan.block(index))[name] for index in range(plan.blocks)]
        )
        for plan in plans
    }


def check_settings(folder: Path, settings: dict[str, object]) -> None:
    """Refuse to go on with a trajectory of other settings.

    Raises:
        SweepError: the folder has been begun with others.
    """
    path = folder / "settings.json"
    if not path.exists():
        with written_whole(path) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SweepError(f"{path}: is damaged ({error}); give another folder") from error
    if begun != settings:
        raise SweepError(f"{path}: was begun with {begun}, not {settings}; give another folder")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--trajectories", default=2, type=int, help="one process each (default: %(default)s)"
    )
    parser.add_argument(
        "--nanoseconds", default=50, type=int, help="of each (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", default=1, type=int, help="of the first one; others follow (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.seed > MOST_SEED:
        parser.error(f"--seed must be at most {MOST_SEED}")
    if min(arguments.trajectories, arguments.nanoseconds, arguments.seed) < 1:
        parser.error("--trajectories, --nanoseconds and --seed must be 1 or more")
    return arguments


def main() -> list[Path]:
    """Simulate, each trajectory in a process of its own, and join what they have written."""
    arguments = parse_arguments()
    folder, count = arguments.output, arguments.trajectories
    settings = {"force_field": list(FORCE_FIELD), "seed": arguments.seed}
    check_settings(folder, {**settings, "openmm": openmm_version()})
    plans = [Plan(folder, one, arguments.nanoseconds, arguments.seed) for one in range(count)]
    with ProcessPoolExecutor(count) as pool:
        for _ in pool.map(run_trajectory, plans):
            pass
    files = {
        "alanine-dipeptide-heavy-atom-positions.npz": "positions",
        "alanine-dipeptide-backbone-dihedrals.npz": "dihedrals",
    }
    for file, name in files.items():
        write_npz(folder / file, join(plans, name))
    return [folder / file for file in files]


if __name__ == "__main__":
    run_script(main)
