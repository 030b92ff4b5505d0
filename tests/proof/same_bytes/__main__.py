"""By hand: `python -m tests.proof.same_bytes --steps 5000 --seed 7`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.proof.same_bytes.run import Different, run
from tests.proof.same_bytes.world import subjects


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.proof.same_bytes", description="Judge that all faces show one tree.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as directory, subjects(Path(directory)) as subject:
        try:
            done = run(subject("judged"), options.steps, options.seed)
        except Different as different:
            sys.exit(str(different))
    print(f"seed {options.seed}: {options.steps} operations, {done} of them succeeded; all faces showed the same after each")


main()
