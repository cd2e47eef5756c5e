"""Side by side with what a user would pick instead: time an epoch, time from a cold start, peak memory.

    pip install flax torch scikit-learn keras      # the peers; one that is missing is named as such
    python -m benchmarks.compare                   # an hour or two on 2 cores; --quick only shows that it runs

Every contestant trains the same network on the same MNIST by plain gradient descent (benchmarks/contestants.py), each
in a process of its own. They take turns, so that a slow minute of the machine hits all alike; the medians are reported,
with the lowest and the highest. A process may be slow from its start to its end, so that every contestant has three of
them, one after the other. With how many threads a contestant is fastest is found first, in every cell anew. Where an
epoch of 60,000 images would take too long, a turn trains on fewer, and the time is scaled up; where it is short, a turn
has several.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, Task

ROOT = Path(__file__).parents[1]
NETWORKS = ((784, 16, 16, 10), (784, 100, 10), (784, 512, 512, 10), (784, 2048, 2048, 10))
BATCHES = (10, 32, 128, 1024)
IMAGES = 60_000
COLD = {
    "lesson, 95 %": (Task((784, 16, 16, 10), 32, False, 0.7, IMAGES, 0), 0.95, 40),
    "784-512-512-10 relu, 98 %": (Task((784, 512, 512, 10), 32, True, 0.1, IMAGES, 0), 0.98, 15),
}
OWN = ("jaxmlp manual", "jaxmlp auto")
PROCESSES = 3
"""Of a contestant in a cell, one after the other."""
TRIES = 3
"""Turns with each number of threads, before the turns that count."""


def operations(sizes: tuple[int, ...]) -> int:
    """Floating-point operations of an example's matrix products: forward, D W^T but for the inputs, and A^T D."""
    products = [2 * n * m for n, m in itertools.pairwise(sizes)]
    return 3 * sum(products) - products[0]


QUICK = (
    "By --quick, which shows that everything runs: its figures are of a few milliseconds' training, and mean nothing."
)


class Worker:
    """A contestant in a process of its own, pinned to as many cores as it has threads."""

    def __init__(self, name: str, task: Task) -> None:
        cores = sorted(os.sched_getaffinity(0))[: task.threads]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(task.threads))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contestants", name, json.dumps(task._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | threads | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            text=True,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question answered.

        Raises:
            RuntimeError: where the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def machine() -> dict[str, float]:
    """What benchmarks/machine.py measures, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    limits: dict[str, float] = json.loads(done.stdout)
    return limits


def cell(names: list[str], task: Task, repeats: int, threads: list[int], least: float) -> dict[str, Any]:
    """Each contestant's turns at one network and batch size, taken in turn, each with its best number of threads.

    A turn takes `least` seconds or more.
    """
    workers, turn = {}, itertools.count(step=1000)  # the number that seeds the order of a turn's first epoch

    def warm(name: str, count: int) -> Worker:
        worker = Worker(name, task._replace(threads=count))
        worker.ask(train=next(turn), least=0)  # compiles
        return worker

    for name in names:
        tried = {count: warm(name, count) for count in threads}
        best = dict.fromkeys(threads, math.inf)
        for _, count in itertools.product(range(TRIES), threads):  # in turn, too
            best[count] = min(best[count], tried[count].ask(train=next(turn), least=least)["seconds"])
        count = min(threads, key=best.__getitem__)
        workers[name] = count, tried.pop(count)
        for worker in tried.values():
            worker.end()
    taken: dict[str, list[float]] = {name: [] for name in names}
    peak = dict.fromkeys(names, 0)
    for repeat in range(repeats):
        if repeat and repeat * PROCESSES // repeats > (repeat - 1) * PROCESSES // repeats:
            for name, (count, worker) in workers.items():
                worker.end()
                workers[name] = count, warm(name, count)
        for name, (_, worker) in workers.items():
            answer = worker.ask(train=next(turn), least=least)
            taken[name].append(answer["seconds"] * IMAGES / task.examples)
            peak[name] = answer["peak_bytes"]
    for _, worker in workers.values():
        worker.end()
    found = {name: {"seconds": taken[name], "threads": workers[name][0], "peak_bytes": peak[name]} for name in names}
    return {"sizes": task.sizes, "batch": task.batch, "examples": task.examples, "contestants": found}


def cold(
    names: list[str], task: Task, until: float, most: int, repeats: int, threads: dict[str, int]
) -> dict[str, Any]:
    """Seconds from the start of each contestant's process to `until` on the test images, everything included."""
    found: dict[str, Any] = {name: {"seconds": [], "epochs": [], "accuracy": []} for name in names}
    for _ in range(repeats):
        for name in names:
            started = time.perf_counter()
            worker = Worker(name, task._replace(threads=threads[name]))
            answer = worker.ask(until=until, most=most)
            found[name]["seconds"].append(time.perf_counter() - started)
            for key in ("epochs", "accuracy"):
                found[name][key].append(answer[key])
            worker.end()
    return {"until": until, "most": most, "contestants": found}


def examples_of(sizes: tuple[int, ...], batch: int, seconds: float, flops: float) -> int:
    """Whole batches that take about so many seconds at the machine's limit, and at least 16; at most all images."""
    batches = max(16, math.ceil(seconds * flops / operations(sizes) / batch))
    return min(IMAGES, batches * batch)


def named(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))


def median(found: dict[str, Any]) -> float:
    return statistics.median(found["seconds"])


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    names, cells, limits = results["contestants"], results["cells"], results["machine"]
    flops = max(x["flops"] for x in limits)
    lines = [
        *([QUICK, ""] if results["quick"] else []),
        f"{results['cores']} cores of {results['processor']}; {', '.join(map(' '.join, results['versions'].items()))}.",
        f"Limits measured in the same run: {flops / 1e9:.0f} GFLOP/s of matrix products in float32, "
        f"{max(x['bytes'] for x in limits) / 1e9:.1f} GB/s of memory copied.",
        *(f"Not installed: {name}." for name in results["missing"]),
        "",
        "Seconds an epoch of 60,000 images: median (lowest to highest), threads.",
        "",
        f"| network | batch | {' | '.join(names)} | of the limit |",
        f"| --- | --- | {' | '.join('---' for _ in names)} | --- |",
    ]
    for one in cells:
        found = one["contestants"]
        shown = (
            f"{median(f):.3g} ({min(f['seconds']):.3g} to {max(f['seconds']):.3g}), {f['threads']}"
            for f in (found[name] for name in names)
        )
        reached = operations(tuple(one["sizes"])) * IMAGES / min(median(found[name]) for name in OWN) / flops
        lines.append(f"| {named(one['sizes'])} | {one['batch']} | {' | '.join(shown)} | {reached:.0%} |")
    peers = [name for name in names if name not in OWN]
    lines += ["", "| network | batch | best peer | its time over ours (manual) | auto over manual |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for one in cells:
        found = one["contestants"]
        ours, auto = (median(found[name]) for name in OWN)
        best = min(peers, key=lambda name: median(found[name]))
        lines.append(
            f"| {named(one['sizes'])} | {one['batch']} | {best} | {median(found[best]) / ours:.2f} | "
            f"{auto / ours:.2f} |"
        )
    for title, one in results["cold"].items():
        goal = "the end of a short epoch" if results["quick"] else "a test accuracy"
        of = title.partition(",")[0] if results["quick"] else title
        lines += ["", f"From a cold process start to {goal}: {of}. Median seconds (lowest to highest), epochs."]
        lines += ["", "| contestant | seconds | epochs |", "| --- | --- | --- |"]
        for name, f in one["contestants"].items():
            missed = " (not reached)" if min(f["accuracy"]) < one["until"] else ""
            spread = f"{median(f):.1f} ({min(f['seconds']):.1f} to {max(f['seconds']):.1f})"
            lines.append(f"| {name} | {spread}{missed} | {statistics.median(f['epochs']):.0f} |")
    lines += ["", "Peak resident memory of the whole process, MB."]
    lines += ["", f"| network | batch | {' | '.join(names)} |", f"| --- | --- | {' | '.join('---' for _ in names)} |"]
    for one in cells:
        shown = (f"{one['contestants'][name]['peak_bytes'] / 1e6:.0f}" for name in names)
        lines.append(f"| {named(one['sizes'])} | {one['batch']} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Seconds an epoch against the batch size, a panel a network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    networks = list(dict.fromkeys(tuple(one["sizes"]) for one in results["cells"]))
    figure = Figure(figsize=(4 * len(networks), 4.5), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for panel, sizes in zip(panels, networks, strict=True):
        for name in results["contestants"]:
            here = [
                (one["batch"], median(one["contestants"][name]))
                for one in results["cells"]
                if tuple(one["sizes"]) == sizes
            ]
            width = 2.5 if name in OWN else 1
            panel.loglog(*zip(*here, strict=True), marker="o", linewidth=width, label=name)
        batches = sorted({one["batch"] for one in results["cells"]})
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # most panels span no whole power of ten
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set(title=named(sizes), xlabel="batch size")
    panels[0].set_ylabel("seconds an epoch of 60,000 images")
    lines, names = panels[0].get_legend_handles_labels()
    if results["quick"]:
        figure.suptitle(QUICK, fontsize=5)
    figure.legend(lines, names, loc="outside lower center", ncols=2 * len(networks), fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs all, and writes compare.json, compare.md and compare.png."""
    parser = argparse.ArgumentParser(description="Time jaxmlp and its peers side by side.")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: one cell, few examples")
    parser.add_argument("--repeats", type=int, default=6, help="turns of each contestant in a cell (default: 6)")
    parser.add_argument("--seconds", type=float, default=0.4, help="of a turn, at least (default: 0.4)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for the results")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    names = [name for name, (module, _) in CONTESTANTS.items() if not module or importlib.util.find_spec(module)]
    cores = len(os.sched_getaffinity(0))
    threads = [cores] if given.quick else sorted({1, cores})
    repeats, colds = (1, 1) if given.quick else (given.repeats, 3)
    grid = [(NETWORKS[0], 32)] if given.quick else list(itertools.product(NETWORKS, BATCHES))
    results: dict[str, Any] = {
        "quick": given.quick,
        "contestants": names,
        "missing": [name for name in CONTESTANTS if name not in names],
        "cores": cores,
        "processor": processor(),
        "versions": {"Python": platform.python_version()} | versions(),
        "machine": [machine()],
        "cells": [],
        "cold": {},
    }
    for sizes, batch in grid:
        flops = results["machine"][0]["flops"]
        examples = 20 * batch if given.quick else examples_of(sizes, batch, given.seconds, flops)
        task = Task(sizes, batch, relu=sizes[1] >= 512, rate=0.1, examples=examples, threads=cores)
        one = cell(names, task, repeats, threads, 0 if given.quick else given.seconds)
        results["cells"].append(one)
        ours = {name: f"{median(found):.3g}" for name, found in one["contestants"].items()}
        print(named(sizes), "batch", batch, ours, flush=True)
        results["machine"].append(machine())
        (given.out / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
    for title, (task, until, most) in COLD.items():
        if given.quick:
            task, until, most = task._replace(examples=640), 0.0, 1
        best = dict.fromkeys(names, cores)
        for one in results["cells"]:
            if (one["sizes"], one["batch"]) == (task.sizes, task.batch):
                best = {name: found["threads"] for name, found in one["contestants"].items()}
        results["cold"][title] = cold(names, task, until, most, colds, best)
    (given.out / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
    (given.out / "compare.md").write_text(markdown(results))
    draw(results, given.out / "compare.png")
    print(markdown(results))
    print(f"{given.out} holds compare.json, compare.md and compare.png")


def processor() -> str:
    """The processor's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Of every package that takes part."""
    found = {}
    for package in ("jax", "numpy", "optax", "flax", "torch", "scikit-learn", "keras"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
