from pathlib import Path

import pytest

from jaxmlp import Experiment, ExperimentError, Network
from jaxmlp.training.files import read_experiment

pytestmark = pytest.mark.own_precision

GOOD = '''"""What it is."""
from jaxmlp import Experiment, Network
def experiment():
    return Experiment(Network((4, 2)))
'''


def test_an_experiment_and_its_docstring_are_read(tmp_path: Path) -> None:
    path = tmp_path / "good.py"
    path.write_text(GOOD)
    file = read_experiment(path)
    assert (file.experiment, file.about) == (Experiment(Network((4, 2))), "What it is.")


def test_a_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_tests.py").write_text("SIZES = (5, 3)\n")
    path = tmp_path / "good.py"
    path.write_text("from neighbour_of_tests import SIZES\n" + GOOD.replace("(4, 2)", "SIZES"))
    assert read_experiment(path).experiment.network.sizes == (5, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"defines no function experiment\(\)"),
        ("experiment = 3", r"defines no function experiment\(\)"),
        ("def experiment(): return None", r"experiment\(\) returns None: expected a jaxmlp.Experiment"),
        ("def experiment(): return {'a': 1}", r"experiment\(\) returns a value of type dict"),
        ("from jaxmlp import compare as experiment", r"defines no function experiment\(\)"),
        ("def experiment(x): return x", "TypeError: experiment.. missing 1 required"),
        ("\n\ndef experiment(:", "bad.py, line 3: SyntaxError"),
        ("import nosuchmodule", "bad.py, line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("x = 1\ndef experiment():\n    return 1 / 0", "bad.py, line 3: ZeroDivisionError"),
        ("raise SystemExit(3)", "bad.py, line 1: SystemExit: 3"),
        ("raise ValueError('a\\nb')", "bad.py, line 1: ValueError: a$"),
        (
            "import jaxmlp\ndef experiment(): return jaxmlp.Experiment(jaxmlp.Network((3,)))",
            "bad.py: network.sizes is 3",
        ),
        ("\0", "bad.py.*(null bytes|source code string)"),
    ],
)
def test_a_file_that_gives_no_experiment_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(ExperimentError, match=message) as refusal:
        read_experiment(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_binary_files_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.py").write_bytes(bytes(range(256)))
    with pytest.raises(ExperimentError, match="photo.py"):
        read_experiment(tmp_path / "photo.py")
    with pytest.raises(ExperimentError, match="none.py: no such file: expected an experiment file such as"):
        read_experiment(tmp_path / "none.py")
    with pytest.raises(ExperimentError, match="not a file"):
        read_experiment(tmp_path)


def test_a_file_may_define_a_dataclass(tmp_path: Path) -> None:
    path = tmp_path / "good.py"
    preamble = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    )
    path.write_text(GOOD.replace("from jaxmlp", preamble + "from jaxmlp"))
    assert read_experiment(path).experiment.network.sizes == (4, 2)


def swept(tmp_path: Path, body: str) -> tuple[Experiment, ...]:
    path = tmp_path / "many.py"
    path.write_text(GOOD + body)
    file = read_experiment(path)
    return file.sweep(file.experiment)


def test_a_sweep_may_be_a_generator_that_imports_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_sweeps.py").write_text("COUNT = 3\n")
    body = "def sweep(e):\n    from neighbour_of_sweeps import COUNT\n    for _ in range(COUNT): yield e\n"
    assert swept(tmp_path, body) == (Experiment(Network((4, 2))),) * 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", r"many.py: defines no function sweep\(\): expected one that returns experiments; jaxmlp train runs one"),
        ("def sweep(e): return []", r"sweep\(\) returns no experiments: expected at least one"),
        ("def sweep(e): return None", r"sweep\(\) returns None: expected a list of jaxmlp.Experiments"),
        ("def sweep(e): return [e, 3]", r"in what sweep\(\) returns, \[1\] is a value of type int"),
        ("def sweep(e):\n    yield e\n    raise TypeError('wrong')", r"many.py, line 7: TypeError: wrong"),
        ("def sweep(e):\n    yield e\n    Network((3,))", r"many.py: network.sizes is 3"),
    ],
)
def test_a_sweep_that_gives_no_experiments_is_refused(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=message):
        swept(tmp_path, body)


def test_a_picture_is_what_the_files_own_function_draws(tmp_path: Path) -> None:
    path = tmp_path / "drawn.py"
    for body, draws in (
        ("", False),
        ("figure = None\n", False),
        ("from matplotlib.pyplot import figure\n", False),
        ("def figure(runs): return runs\n", True),
    ):
        path.write_text(GOOD + body)
        assert read_experiment(path).draws == draws
    with pytest.raises(ExperimentError, match=r"figure\(\) returns a value of type list: expected a matplotlib Figure"):
        read_experiment(path).figure([])
