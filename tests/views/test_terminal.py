import subprocess
import sys

CODE = "from jaxmlp.views.terminal import Terminal\nfor i in range(100_000): Terminal().print(i)"


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


def test_what_is_no_terminal_gets_lines_in_full() -> None:
    code = "from jaxmlp.views.terminal import Terminal\nTerminal().print('word ' * 100)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
