"""Ctrl-C and SIGTERM end the command at whatever instant, with a line and an exit status of their own."""

import atexit
import os
import signal
import socket
import sys
from collections.abc import Callable
from threading import Event, RLock, Thread
from typing import TypeVar

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

PATIENCE = 1.0
"""Seconds for a line to be said, which nobody may be there to read."""

SHOW_CURSOR = b"\x1b[?25h\n"
"""For a terminal on which something is shown live, and a line of its own for what comes next."""

T = TypeVar("T")


class Interrupts:
    """From the first of these on, Ctrl-C ends the process: it says so in a line, and no KeyboardInterrupt is raised.

    That would reach the main thread when it next executes Python: not while XLA compiles or runs; and perhaps in a
    callback from C++ or in a destructor, where it is lost or crashes the process. So would an orderly exit, which takes
    the interpreter from under threads that compile. Here a thread of its own hears of the signal, says the line and
    ends the process, without asking the others. A second Ctrl-C does not wait for the line.

    While `saving` is set the process goes on until the main thread, which asks `heard`, has saved its work and left; a
    second signal ends it at once.

    SIGTERM is the same with another status. Where a signal is ignored, as Ctrl-C is in a shell's background, or handled
    by somebody else, nothing changes.
    """

    def __init__(self) -> None:
        self.parting: Callable[[], str] = str
        """Ends what is shown live; returns what there is to say after "interrupted"."""
        self.saving: Callable[[], None] | None = None
        """Set while the main thread is at work that it saves and leaves when a signal is heard; says so, when it is."""
        self.signal: signal.Signals | None = None
        """The first that was heard."""
        self._begun, self._said, self._reporting = Event(), Event(), RLock()
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        self._ours = [one for one in SIGNALS if signal.getsignal(one) is defaults[one]]
        if not self._ours:
            return
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for one in self._ours:
            signal.signal(one, self._note)
        Thread(target=self._watch, daemon=True).start()  # a signal from before waits in the socket
        atexit.register(self._rest)

    @property
    def status(self) -> int:
        """The exit status after the signal that was heard: 128 and its number."""
        return 128 + (self.signal or signal.SIGINT)

    def heard(self) -> bool:
        """Whether a signal asks the main thread to save its work and leave: if so, that has been said."""
        if self.signal is None:
            return False
        self._said.wait(PATIENCE)
        return True

    def unbroken(self, report: Callable[[T], None]) -> Callable[[T], None]:
        """`report`, whose calls come to their end before the line, or don't begin any more."""

        def whole(progress: T) -> None:
            self._rest()
            with self._reporting:
                report(progress)

        return whole

    def _note(self, signum: int, frame: object) -> None:
        """In the main thread, when it next executes Python."""
        if not self.saving:
            self._begun.set()

    def _watch(self) -> None:
        self.signal = self._await_signal()
        if self._begun.is_set() or not self.saving:
            self._begun.set()
            Thread(target=self._leave, daemon=True).start()
        else:
            Thread(target=self._say, args=(self.saving,), daemon=True).start()
        self._await_signal()
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
        os._exit(self.status)

    def _await_signal(self) -> signal.Signals:
        while True:
            found = self._signals.recv(1)[0]
            if found in self._ours:  # an experiment may handle other signals
                return signal.Signals(found)

    def _say(self, saving: Callable[[], None]) -> None:
        try:
            saving()
        finally:
            self._said.set()

    def _leave(self) -> None:
        assert self.signal is not None
        try:
            with self._reporting:
                line = f"jaxmlp: {SIGNALS[self.signal]}{self.parting()}"
                print(line, file=sys.__stderr__, flush=True)  # sys.stderr may be redirected just now
                os._exit(self.status)
        finally:  # nobody may be there to read the line
            os._exit(self.status)

    def _rest(self) -> None:
        """After the signal the main thread goes no further, lest it print on, or end before the line is said."""
        if self._begun.is_set():
            Event().wait()
