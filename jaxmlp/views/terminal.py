"""The terminal, or the file or pipe in its place."""

from rich.console import Console

BROKEN_PIPE = 141
"""The exit status of a command whose reader has gone, such as `head`: 128 + SIGPIPE."""


class Terminal(Console):
    """A rich console that ends the command as others end when nobody reads on."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE) from None
