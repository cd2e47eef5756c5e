"""What starting costs: the import, and the command's first and second start with JAX's compilation cache.

    python -m benchmarks.start

Processes take turns; prints, as Markdown, medians with the lowest and the highest. A start is the whole of the command
`jaxmlp train experiments/lesson.py --train.epochs 1`.
"""

import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

from benchmarks.options import turns_given
from benchmarks.trained import EXPERIMENTS, PACKAGE, train

TURNS = 9


def seconds_of(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    turns = turns_given(__doc__, TURNS)
    compileall.compile_dir(PACKAGE, quiet=1)  # as pip does, whether or not Python may write bytecode here
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # of who has one
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(turns + 1):
        for code in ("import jax", "import jax, jaxmlp"):
            taken = seconds_of(code)
            if turn:  # the first reads the files from the disk
                seconds[code].append(taken)
    lesson = EXPERIMENTS / "lesson.py"
    for _ in range(turns):
        seconds["a start without a cache"].append(train(lesson, {"train.epochs": 1}).seconds)
        with tempfile.TemporaryDirectory() as cache:
            os.environ |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            for start in ("the first start with a cache", "the second"):
                seconds[start].append(train(lesson, {"train.epochs": 1}).seconds)
            del os.environ["JAX_COMPILATION_CACHE_DIR"]
    print("| | seconds | lowest to highest |\n| --- | --- | --- |")
    for what, times in seconds.items():
        print(f"| {what} | {statistics.median(times):.3f} | {min(times):.3f} to {max(times):.3f} |")


if __name__ == "__main__":
    main()
