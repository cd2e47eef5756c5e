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
