"""What the text of a lowered program says."""

import re


def in_memory(kind: str, text: str) -> int:
    """How many results of an operation, such as transpose or dot_general, are arrays of their own."""
    return len(re.findall(rf"(%\d+) = stablehlo\.{kind}\b.*\n.*optimization_barrier \1 ", text))
