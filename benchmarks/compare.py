"""Side by side with what a user would pick instead: time an epoch, time from a cold start, peak memory.

    pip install flax torch scikit-learn keras      # the peers; one that is missing, or fails, is named as such
    python -m benchmarks.compare                   # an hour or two on 2 cores
    python -m benchmarks.compare --networks 784-16-16-10 --batches 32 --out runs/lesson-32    # some minutes
    python -m benchmarks.compare --quick           # only shows that it runs

Every contestant trains the same network on the same MNIST by plain gradient descent (benchmarks/contestants.py), each
in a process of its own. They take turns, so that a slow minute of the machine hits all alike; the medians are reported,
with the lowest and the highest. A process may be slow from its start to its end, so that every contestant has three of
them, one after the other. With how many threads a contestant is fastest is found first, in every cell anew. Where an
epoch of 60,000 images would take too long, a turn trains on fewer, and the time is scaled up; where it is short, a turn
has several. Starts from a cold process are timed with the whole grid alone.
"""

import argparse
import compileall
import contextlib
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
import tempfile
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, Task
from benchmarks.options import mnist_sizes, options, positive, seconds

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


class ContestantError(Exception):
    """A contestant whose process has ended."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class Worker:
    """A contestant in a process of its own, pinned to as many cores as it has threads.

    It finds nothing that another process has compiled: no cache of JAX's, and for PyTorch an empty one.
    """

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it is closed at the worker's end
        self.compiled = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # PyTorch's compilers may write still
        caches = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TORCHINDUCTOR_CACHE_DIR": self.compiled.name}
        cores = sorted(os.sched_getaffinity(0))[: task.threads]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(task.threads))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contestants", name, json.dumps(task._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=ROOT,
            env=os.environ | threads | caches | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            text=True,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question answered.

        Raises:
            ContestantError: where the process has ended, with the last line of what it said.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            status, _ = self.process.wait(), self.errors.seek(0)
            said = [line.strip() for line in self.errors if line.strip()]
            raise ContestantError(self.name, said[-1] if said else f"ended with status {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # of a question that it hasn't read
            self.process.communicate()
        self.errors.close()
        self.compiled.cleanup()


def machine() -> dict[str, float]:
    """What benchmarks/machine.py measures, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    limits: dict[str, float] = json.loads(done.stdout)
    return limits


def cell(names: list[str], task: Task, repeats: int, threads: list[int], least: float) -> dict[str, Any]:
    """Each contestant's turns at one network and batch size, each with its best number of threads.

    They take turns, there and back. A turn takes `least` seconds or more.

    Raises:
        ContestantError: where one can't train.
    """
    turn = itertools.count(step=1000)  # the number that seeds the order of a turn's first epoch
    started: list[Worker] = []
    workers: dict[str, tuple[int, Worker]] = {}
    taken: dict[str, list[float]] = {name: [] for name in names}
    peak = dict.fromkeys(names, 0)

    def warm(name: str, count: int) -> Worker:
        worker = Worker(name, task._replace(threads=count))
        started.append(worker)
        worker.ask(train=next(turn), least=0)  # compiles
        return worker

    try:
        for name in names:
            tried = {count: warm(name, count) for count in threads}
            best = dict.fromkeys(threads, math.inf)
            for _, count in itertools.product(range(TRIES), threads):  # in turn, too
                best[count] = min(best[count], tried[count].ask(train=next(turn), least=least)["seconds"])
            count = min(threads, key=best.__getitem__)
            workers[name] = count, tried.pop(count)
            for worker in tried.values():
                worker.end()
        for repeat in range(repeats):
            if repeat and repeat * PROCESSES // repeats > (repeat - 1) * PROCESSES // repeats:
                for name, (count, worker) in workers.items():
                    worker.end()
                    workers[name] = count, warm(name, count)
            for name in names if repeat % 2 == 0 else reversed(names):
                answer = workers[name][1].ask(train=next(turn), least=least)
                taken[name].append(answer["seconds"] * IMAGES / task.examples)
                peak[name] = answer["peak_bytes"]
    finally:
        for worker in started:
            worker.end()
    found = {name: {"seconds": taken[name], "threads": workers[name][0], "peak_bytes": peak[name]} for name in names}
    return {"sizes": task.sizes, "batch": task.batch, "examples": task.examples, "contestants": found}


def cold(
    names: list[str], task: Task, until: float, most: int, repeats: int, threads: dict[str, int]
) -> dict[str, Any]:
    """Seconds from the start of each contestant's process to `until` on the test images, everything included.

    Raises:
        ContestantError: where one can't train.
    """
    found: dict[str, Any] = {name: {"seconds": [], "epochs": [], "accuracy": []} for name in names}
    for _ in range(repeats):
        for name in names:
            started = time.perf_counter()
            worker = Worker(name, task._replace(threads=threads[name]))
            try:
                answer = worker.ask(until=until, most=most)
                found[name]["seconds"].append(time.perf_counter() - started)
            finally:
                worker.end()
            for key in ("epochs", "accuracy"):
                found[name][key].append(answer[key])
    return {"until": until, "most": most, "contestants": found}


def without_the_failing(measure: Callable[[list[str]], dict[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    """What `measure(names)` gives; a peer that can't train is named, and left out from then on.

    Raises:
        ContestantError: where this package can't train.
    """
    while True:
        try:
            return measure([name for name in results["contestants"] if name not in results["failed"]])
        except ContestantError as error:
            if error.name in OWN:
                raise
            results["failed"][error.name] = error.reason
            print(f"{error}: left out from here on", flush=True)


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
        f"{results['cores']} cores of {results['processor']}, {results['date']}, "
        f"with a load of {results['load']:.1f} before; jaxmlp at {results['commit'] or 'no commit'}, "
        f"{', '.join(map(' '.join, results['versions'].items()))}.",
        f"Limits measured in the same run: {flops / 1e9:.0f} GFLOP/s of matrix products in float32, "
        f"{max(x['bytes'] for x in limits) / 1e9:.1f} GB/s of memory copied.",
        *([missing(results["missing"])] if results["missing"] else []),
        *(f"Failed: {name} ({reason})." for name, reason in results["failed"].items()),
        "",
        "Seconds an epoch of 60,000 images: median (lowest to highest), threads.",
        "",
        f"| network | batch | {' | '.join(names)} | of the limit |",
        f"| --- | --- | {' | '.join('---' for _ in names)} | --- |",
    ]
    for one in cells:
        found = one["contestants"]
        shown = (
            f"{median(f):.3g} ({min(f['seconds']):.3g} to {max(f['seconds']):.3g}), {f['threads']}" if f else "-"
            for f in map(found.get, names)
        )
        reached = operations(tuple(one["sizes"])) * IMAGES / min(median(found[name]) for name in OWN) / flops
        lines.append(f"| {named(one['sizes'])} | {one['batch']} | {' | '.join(shown)} | {reached:.0%} |")
    lines += ["", "| network | batch | best peer | its time over ours (manual) | auto over manual |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for one in cells:
        found = one["contestants"]
        ours, auto = (median(found[name]) for name in OWN)
        peers = {name: median(found[name]) for name in found if name not in OWN}
        best = min(peers, key=peers.__getitem__, default=None)
        shown = "- | -" if best is None else f"{best} | {peers[best] / ours:.2f}"
        lines.append(f"| {named(one['sizes'])} | {one['batch']} | {shown} | {auto / ours:.2f} |")
    for title, one in results["cold"].items():
        goal = "the end of a short epoch" if results["quick"] else "a test accuracy"
        of = title.partition(",")[0] if results["quick"] else title
        lines += ["", f"From a cold process start to {goal}: {of}. Median seconds (lowest to highest), epochs."]
        lines += ["", "| contestant | seconds | epochs |", "| --- | --- | --- |"]
        for name, f in one["contestants"].items():
            missed = " (not reached)" if min(f["accuracy"]) < one["until"] else ""
            spread = f"{median(f):.1f} ({min(f['seconds']):.1f} to {max(f['seconds']):.1f})"
            lines.append(f"| {name} | {spread}{missed} | {statistics.median(f['epochs']):.0f} |")
    if results["cold"]:
        lines += ["", "Each contestant starts from the same seed each time: its number of epochs is that of one run."]
        lines += ["scikit-learn has no squared error: it minimises cross-entropy, at the same learning rate."]
    lines += ["", "Peak resident memory of the whole process, MB. jaxmlp holds images as bytes, its peers as float32."]
    lines += ["", f"| network | batch | {' | '.join(names)} |", f"| --- | --- | {' | '.join('---' for _ in names)} |"]
    for one in cells:
        shown = (f"{f['peak_bytes'] / 1e6:.0f}" if f else "-" for f in map(one["contestants"].get, names))
        lines.append(f"| {named(one['sizes'])} | {one['batch']} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def missing(names: list[str]) -> str:
    """Who takes no part."""
    return f"Not installed: {'; '.join(names)} (pip install flax torch scikit-learn keras)."


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
                if tuple(one["sizes"]) == sizes and name in one["contestants"]
            ]
            if not here:  # it failed before
                continue
            width = 2.5 if name in OWN else 1
            panel.loglog(*zip(*here, strict=True), marker="o", linewidth=width, label=name)
        batches = sorted({one["batch"] for one in results["cells"]})
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # most panels span no whole power of ten
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set(title=named(sizes), xlabel="batch size")
    panels[0].set_ylabel("seconds an epoch of 60,000 images")
    labelled = {name: line for panel in panels for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if results["quick"]:
        figure.suptitle(textwrap.fill(QUICK, 50), fontsize="small")
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=2 * len(networks), fontsize="small"
    )
    figure.savefig(path, dpi=110)


def main() -> int:
    """Runs all, and writes compare.json, compare.md and compare.png; returns the exit status."""
    parser = options(__doc__)
    parser.add_argument("--quick", action="store_true", help="one cell, few examples, whatever else is given")
    parser.add_argument("--networks", nargs="+", type=mnist_sizes, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batches", nargs="+", type=positive, metavar="B", help="examples of a batch")
    parser.add_argument(
        "--repeats",
        type=positive,
        default=6,
        help="turns of each contestant in a cell (default: 6), in three processes where they are three or more",
    )
    parser.add_argument("--seconds", type=seconds, default=0.4, help="of a turn, at least (default: 0.4)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for the results")
    given = parser.parse_args()
    file = given.out / "compare.json"
    if file.exists():
        parser.error(f"{given.out} holds results already: give another folder to --out")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        file.touch()
        file.unlink()
    except OSError as error:
        why = "is no folder" if isinstance(error, FileExistsError) else f"can't be written: {error.strerror}"
        parser.error(f"--out {given.out}: {why}")
    try:
        compared(given)
    except KeyboardInterrupt:
        kept = f"{given.out} keeps the cells that were finished" if file.exists() else "no cell was finished"
        print(f"interrupted; {kept}", file=sys.stderr)
        return 130
    except ContestantError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.out} holds compare.json, compare.md and compare.png")
    return 0


def compared(given: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    from jaxmlp.training.run import git_revision  # with JAX, for which neither --help nor a typo is to wait

    names = [name for name, (module, _) in CONTESTANTS.items() if not module or importlib.util.find_spec(module)]
    cores = len(os.sched_getaffinity(0))
    threads = [cores] if given.quick else sorted({1, cores})
    repeats, colds, least = (1, 1, 0.0) if given.quick else (given.repeats, 3, given.seconds)
    networks, batches = (NETWORKS[:1], [32]) if given.quick else (given.networks or NETWORKS, given.batches or BATCHES)
    starts = {} if (given.networks or given.batches) and not given.quick else COLD
    results: dict[str, Any] = {
        "quick": given.quick,
        "contestants": names,
        "missing": [name for name in CONTESTANTS if name not in names],
        "failed": {},
        "cores": cores,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "commit": git_revision(),
        "versions": {"Python": platform.python_version()} | versions(),
        "machine": [machine()],
        "cells": [],
        "cold": {},
    }
    if results["missing"]:
        print(missing(results["missing"]), flush=True)

    def keep() -> None:
        (given.out / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
        (given.out / "compare.md").write_text(markdown(results))

    settings = list(itertools.product(networks, batches))
    for number, (sizes, batch) in enumerate(settings, start=1):
        flops = max(limits["flops"] for limits in results["machine"])
        examples = 20 * batch if given.quick else examples_of(sizes, batch, given.seconds, flops)
        task = Task(sizes, batch, relu=sizes[1] >= 512, rate=0.1, examples=examples, threads=cores)
        one = without_the_failing(partial(cell, task=task, repeats=repeats, threads=threads, least=least), results)
        results["cells"].append(one)
        taken = ", ".join(f"{name} {median(found):.3g} s" for name, found in one["contestants"].items())
        print(f"{number}/{len(settings)} {named(sizes)}, batches of {batch}: {taken}", flush=True)
        results["machine"].append(machine())
        keep()
    compileall.compile_dir(ROOT / "jaxmlp", quiet=1)  # as pip has compiled the peers
    for title, (task, until, most) in starts.items():
        if given.quick:
            task, until, most = task._replace(examples=640), 0.0, 1
        best = dict.fromkeys(names, cores)
        for one in results["cells"]:
            if (one["sizes"], one["batch"]) == (task.sizes, task.batch):
                best |= {name: found["threads"] for name, found in one["contestants"].items()}
        print(f"from a cold start: {title}", flush=True)
        measure = partial(cold, task=task, until=until, most=most, repeats=colds, threads=best)
        results["cold"][title] = without_the_failing(measure, results)
        keep()
    draw(results, given.out / "compare.png")
    print(markdown(results))


def processor() -> str:
    """The processor's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Of every package that takes part."""
    found = {}
    for package in ("jax", "jaxlib", "numpy", "optax", "flax", "torch", "scikit-learn", "keras"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
