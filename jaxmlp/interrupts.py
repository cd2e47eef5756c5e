"""Ctrl-C ends the command at whatever instant, with a line and an exit status of its own."""

import atexit
import os
import signal
import socket
import sys
from collections.abc import Callable
from threading import Event, RLock, Thread
from typing import TypeVar

INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 + SIGINT."""

T = TypeVar("T")


class Interrupts:
    """From the first of these on, Ctrl-C ends the process: it says so in a line, and no KeyboardInterrupt is raised.

    That would reach the main thread when it next executes Python: not while XLA compiles or runs; and perhaps in a
    callback from C++ or in a destructor, where it is lost or crashes the process. So would an orderly exit, which takes
    the interpreter from under threads that compile. Here a thread of its own hears of the signal, says the line and
    ends the process, without asking the others. A second Ctrl-C does not wait for the line.

    Where Ctrl-C is ignored, as in a shell's background, or handled by somebody else, nothing changes.
    """

    def __init__(self) -> None:
        self.parting: Callable[[], str] = str
        """Ends what is shown live; returns what there is to say after "interrupted"."""
        self._begun, self._reporting = Event(), RLock()
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, lambda signum, frame: self._begun.set())
        Thread(target=self._watch, daemon=True).start()  # a signal from before waits in the socket
        atexit.register(self._rest)

    def unbroken(self, report: Callable[[T], None]) -> Callable[[T], None]:
        """`report`, whose calls come to their end before the line, or don't begin any more."""

        def whole(progress: T) -> None:
            self._rest()
            with self._reporting:
                report(progress)

        return whole

    def _watch(self) -> None:
        self._await_signal()
        Thread(target=self._leave, daemon=True).start()
        self._await_signal()
        os._exit(INTERRUPTED)

    def _await_signal(self) -> None:
        while self._signals.recv(1) != bytes([signal.SIGINT]):  # an experiment may handle other signals
            pass

    def _leave(self) -> None:
        try:
            with self._reporting:
                line = f"jaxmlp: interrupted{self.parting()}"
                print(line, file=sys.__stderr__, flush=True)  # sys.stderr may be redirected just now
                os._exit(INTERRUPTED)
        finally:  # nobody may be there to read the line
            os._exit(INTERRUPTED)

    def _rest(self) -> None:
        """After Ctrl-C the main thread goes no further than here, lest it print on or end before the line is said."""
        if self._begun.is_set():
            Event().wait()
