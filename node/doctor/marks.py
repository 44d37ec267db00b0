"""Looks for a word in every file below a folder: a program of its own, with nothing but Python's.

It must not be done in a node's process. Closing any descriptor of a file gives up all locks that
the process has on it (POSIX), and with them SQLite's on its own database: a reader would see what
is no more, and a writer could spoil the file.

    python marks.py WORD FOLDER      prints how many files were looked at, then each that holds it
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from pathlib import Path

__all__ = ["main", "marked"]

SKIPPED = "keys"
"""Not opened: no key is read by a program that need not."""


def marked(folder: Path, word: bytes) -> tuple[int, list[str]]:
    """How many files were looked at, and those that hold the word, by their path below."""
    looked_at, found = 0, []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] == SKIPPED or path.is_symlink() or not path.is_file():
            continue
        # What was removed or shortened meanwhile, or may not be read, keeps nothing from here.
        with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
            looked_at += 1
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(word) >= 0:
                    found.append(str(relative))
    return looked_at, found


def main() -> None:
    """Print what is found, a line each; names of files as Python writes text."""
    looked_at, found = marked(Path(sys.argv[2]), sys.argv[1].encode())
    sys.stdout.write("\n".join([str(looked_at), *map(repr, found)]))


if __name__ == "__main__":
    main()
