"""Says in a sentence why the environment cannot be made, before pip says it in a hundred lines.

Run by the Makefile with whatever ``python3`` is there, so it is plain enough for an old one.
"""

import os
import shutil
import sys

OLDEST, NEWEST, NEEDED_GB = (3, 11), (3, 13), 8  # what the pins of requirements.txt install on


def problem(version, free_bytes):
    """The first reason against going on, or None."""
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return (
            f"Python {version[0]}.{version[1]} is here, but the pinned environment needs 3.11 to 3.13. "
            "Name another one: make PYTHON=python3.11 ..."
        )
    if free_bytes < NEEDED_GB * 1e9:
        return (
            f"{free_bytes / 1e9:.1f} GB are free here, but the environment needs {NEEDED_GB} GB "
            "(torch and its CUDA libraries are 5.5 GB). "
            "Make room, or put it elsewhere: make VENV=/somewhere/with/room ..."
        )
    return None


if __name__ == "__main__":
    place = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
    while not os.path.exists(place):
        place = os.path.dirname(place)
    found = problem(sys.version_info, shutil.disk_usage(place).free)
    if found:
        sys.exit("Cannot make the environment: " + found)
