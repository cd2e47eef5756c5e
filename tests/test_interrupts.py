"""Ctrl-C and SIGTERM, as a process meets them that is at this or that."""

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.own_precision  # it has no arrays

START = """
import hashlib, io, signal, sys, time
from jaxmlp.interrupts import Interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background would ignore Ctrl-C
interrupts = Interrupts()
interrupts.parting = lambda: " after all"


def ready():
    print("ready", flush=True)


"""


def interrupted(code: str, *, times: int = 1, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """Runs the code after START and sends a signal once it calls ready(): the status, what it then prints, its errors.

    By default that is Ctrl-C's.
    """
    with subprocess.Popen(
        [sys.executable, "-c", START + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            process.send_signal(how)
            time.sleep(0.5)
        out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


LINE = "jaxmlp: interrupted after all\n"

BUSY = {
    "in Python": "ready()\nwhile True: pass",
    "in C, as when it compiles": "ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    "where an exception would be lost": "class A:\n  def __del__(self): ready(); time.sleep(60)\na = A(); del a",
    "where it redirects its errors": "sys.stderr = io.StringIO(); ready(); time.sleep(60)",
    "about to end": "interrupts.parting = lambda: time.sleep(1) or ' after all'; ready(); time.sleep(0.2)",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_it_is_a_line_and_130_whatever_the_main_thread_is_at(code: str) -> None:
    assert interrupted(code) == (130, "", LINE)


def test_a_report_comes_to_its_end_before_the_line_and_none_follows() -> None:
    code = """
def report(progress):
    if progress == 0:
        ready()
    time.sleep(1)
    print("reported", progress, flush=True)
report = interrupts.unbroken(report)
for progress in range(60):
    report(progress)
"""
    assert interrupted(code) == (130, "reported 0\n", LINE)


def test_a_second_one_does_not_wait_for_the_line() -> None:
    code = "interrupts.parting = lambda: time.sleep(600); ready(); time.sleep(600)"
    assert interrupted(code, times=2) == (130, "", "")


def test_without_a_reader_it_is_130_all_the_same() -> None:
    assert interrupted("sys.stderr.close(); ready(); time.sleep(600)") == (130, "", "")


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); Interrupts(); ready(); time.sleep(1); print('done')"
    assert interrupted(code) == (0, "done\n", "")


def test_sigterm_is_a_line_and_143() -> None:
    code = "ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
    assert interrupted(code, how=signal.SIGTERM) == (143, "", "jaxmlp: terminated after all\n")


SAVING = """
interrupts.saving = lambda: print("saving", flush=True)
ready()
while not interrupts.heard(): time.sleep(0.01)
time.sleep(0.1)
"""


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_saves_its_work_goes_on_until_it_leaves_by_itself(how: signal.Signals, status: int) -> None:
    code = SAVING + "time.sleep(1); print('saved'); sys.exit(interrupts.status)"
    assert interrupted(code, how=how) == (status, "saving\nsaved\n", "")


def test_a_second_one_does_not_wait_for_what_is_being_saved() -> None:
    assert interrupted(SAVING + "time.sleep(60)", times=2) == (130, "saving\n", "")


def test_a_signal_that_came_too_late_to_save_anything_changes_nothing() -> None:
    code = SAVING + "interrupts.saving = None; print('done')"
    assert interrupted(code) == (0, "saving\ndone\n", "")
