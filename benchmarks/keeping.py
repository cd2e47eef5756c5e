"""What it costs to keep a run: the lesson's, 30 epochs with a checkpoint after each, beside one that keeps nothing.

    python -m benchmarks.keeping

Processes take turns. Prints, as Markdown, medians of 9 of the seconds of the whole process, with the lowest and the
highest, and the median ratio of neighbours with its quartiles.
"""

import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.options import turns_given

TURNS = 9
CODE = """
import sys, jaxmlp
from pathlib import Path
from jaxmlp.training.files import read_experiment
jaxmlp.fit(read_experiment(Path("experiments/lesson.py")).experiment, workdir=sys.argv[1] or None)
"""


def seconds_of(workdir: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", CODE, workdir], check=True)
    return time.perf_counter() - started


def main() -> None:
    turns = turns_given(__doc__, TURNS)
    seconds: dict[str, list[float]] = {"keeping nothing": [], "keeping the run": []}
    for turn in range(turns + 1):
        for name, times in seconds.items():
            with tempfile.TemporaryDirectory() as place:
                taken = seconds_of(f"{place}/run" if name == "keeping the run" else "")
            if turn:  # the first reads the files from the disk
                times.append(taken)
    print("| | seconds | lowest to highest |\n| --- | --- | --- |")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} |")
    nothing, kept = seconds.values()
    low, middle, high = statistics.quantiles([b / a for a, b in zip(nothing, kept, strict=True)], n=4)
    print(f"\nKeeping it takes {middle:.3f} of the time ({low:.3f} to {high:.3f}).")


if __name__ == "__main__":
    main()
