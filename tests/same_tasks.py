"""Compares the task files of two sweep folders: the same to the bit, but for timings.

Usage: same_tasks.py DIR DIR
"""

import sys
from pathlib import Path

import h5py
import numpy as np

#: Attributes by which HDF5 knows dimension scales and what they are of.
OF_SCALES = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"}


def contents(path):
    """Bytes of every dataset and attribute by name, but for timings and what names the machine."""
    found = {}
    with h5py.File(path) as file:

        def add(name, item):
            for key in set(item.attrs) - OF_SCALES:
                found[f"{name}@{key}"] = np.asarray(item.attrs[key]).astype(str).tolist()
            is_timing = name.startswith("timing/") or found.get(f"{name}@units") == "s"
            if isinstance(item, h5py.Dataset) and not is_timing:
                value = item[()]
                found[name] = value if isinstance(value, bytes) else value.tobytes()

        add("", file)
        file.visititems(add)
    return found


def main(first, second):
    names = sorted(path.name for path in (first / "tasks").glob("*.h5"))
    others = sorted(path.name for path in (second / "tasks").glob("*.h5"))
    assert names and names == others, f"tasks {names} and {others}"
    for name in names:
        a, b = (contents(folder / "tasks" / name) for folder in (first, second))
        assert a.keys() == b.keys(), f"{name}: {a.keys() ^ b.keys()}"
        different = [key for key in a if a[key] != b[key]]
        assert not different, f"{name}: {different} differ"
    print(f"{len(names)} task files are the same")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
