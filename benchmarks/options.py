"""The command line of a benchmark."""

import argparse
import math


def options(about: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the benchmark's docstring, and which refuses what the benchmark doesn't know."""
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds above 0")
    return found


def sizes(text: str) -> tuple[int, ...]:
    """Of a network, such as 784-16-16-10."""
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes such as 784-16-16-10")
    return tuple(map(int, parts))


def mnist_sizes(text: str) -> tuple[int, ...]:
    """Of a network that MNIST fits."""
    found = sizes(text)
    if (found[0], found[-1]) != (784, 10):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 784 inputs and 10 outputs, such as 784-16-16-10")
    return found


def turns_given(about: str | None, usual: int) -> int:
    """Of a benchmark that has no other option, and so many turns if nothing is said."""
    parser = options(about)
    parser.add_argument("--turns", type=positive, default=usual, help=f"of which medians are taken (default: {usual})")
    turns: int = parser.parse_args().turns
    return turns
