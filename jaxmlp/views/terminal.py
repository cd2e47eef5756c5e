"""The terminal, or the file or pipe in its place."""

from rich.console import Console

BROKEN_PIPE = 141
"""The exit status of a command whose reader has gone, such as `head`: 128 + SIGPIPE."""


ANY = 10_000
"""Columns of a file or a pipe, which take lines of any length."""


class Terminal(Console):
    """A rich console that wraps on terminals alone, whatever COLUMNS says.

    When nobody reads on it ends the command as others end.
    """

    def __init__(self) -> None:
        super().__init__()
        if not self.is_terminal:
            self.width = ANY

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE) from None
