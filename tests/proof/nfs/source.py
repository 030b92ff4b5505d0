"""A repository to clone and build: some C, some text, a history. Made anew for each proof, always the same."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

MODULES = 24
TEXTS = 150
COMMITS = 4
SEED = 7


def make(directory: Path) -> Path:
    """`make` builds `program`, which says what is in `expected`."""
    directory.mkdir()
    _git(directory, "init", "-q", "-b", "main")
    dice = random.Random(SEED)
    values = [dice.randrange(1000) for _ in range(MODULES)]
    for number, value in enumerate(values):
        (directory / f"module{number}.c").write_text(f'#include "modules.h"\nint module{number}(void) {{ return {value}; }}\n')
    names = [f"module{number}" for number in range(MODULES)]
    (directory / "modules.h").write_text("".join(f"int {name}(void);\n" for name in names))
    total = " + ".join(f"{name}()" for name in names)
    (directory / "main.c").write_text(
        f'#include <stdio.h>\n#include "modules.h"\nint main(void) {{ printf("%d\\n", {total}); return 0; }}\n'
    )
    (directory / "expected").write_text(f"{sum(values)}\n")
    objects = " ".join(f"{name}.o" for name in ["main", *names])
    (directory / "Makefile").write_text(f"program: {objects}\n\t$(CC) -o $@ $^\n{objects}: modules.h\n")
    (directory / ".gitignore").write_text("*.o\nprogram\n")
    for commit in range(COMMITS):
        for number in range(TEXTS):
            folder = directory / "text" / str(number % 10)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.txt").write_text("".join(f"{dice.random()}\n" for _ in range(dice.randrange(1, 60))))
        _git(directory, "add", ".")
        _git(directory, "commit", "-q", "-m", f"commit {commit}")
    return directory


def _git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=proof", "-c", "user.email=proof@example.org", "-c", "safe.directory=*"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True)
