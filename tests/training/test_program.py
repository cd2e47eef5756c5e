import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxmlp.training.program import Program

pytestmark = pytest.mark.own_precision  # each array's type is given


def twice(x: jnp.ndarray, *, plus: int) -> jnp.ndarray:
    return 2 * x + plus


def test_a_program_is_the_function_compiled_once_for_each_static_argument() -> None:
    program = Program(twice, static_argnames="plus")
    for plus in (1, 2, 1):
        assert program(jnp.ones(3), plus=plus).tolist() == [2.0 + plus] * 3
    assert program.for_cpu._cache_size() == 2


def test_the_default_device_says_which_program(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(twice, static_argnames="plus")
    assert program.jitted(jnp.ones(3), plus=1) is program.for_cpu
    with jax.default_device(jax.devices("cpu")[0]):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert program.jitted(jnp.ones(3), plus=1) is program.for_cpu
    assert program.jitted(jnp.ones(3), plus=1) is program.for_others
    assert program(jnp.ones(3), plus=1).tolist() == [3.0] * 3


def test_a_small_programs_kernels_are_shared_among_no_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(twice, small=lambda x, plus: x.size <= 3, static_argnames="plus")
    small, large = jnp.ones(3), jnp.ones(2**22)
    assert program.jitted(small, plus=1) is program.for_one_core
    assert program.jitted(large, plus=1) is program.for_cpu
    assert program(small, plus=1).tolist() == [3.0] * 3
    assert program.for_one_core._cache_size() == 1
    shared = {
        jitted: 'outer_dimension_partitions":["' in jitted.lower(large, plus=1).compile().as_text()
        for jitted in (program.for_cpu, program.for_one_core)
    }
    assert shared == {program.for_cpu: (os.cpu_count() or 1) > 1, program.for_one_core: False}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert program.jitted(small, plus=1) is program.for_others


def ran(code: str, **variables: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"} | variables)


def test_an_import_starts_no_backend() -> None:
    ran(
        "import jaxmlp.training.fit, jaxmlp.training.compare\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )


def options_of(program: str, code: str, folder: Path, flags: str = "") -> str:
    """With what XLA compiles the program of that name, which the code runs, where XLA_FLAGS has those."""
    ran(code, XLA_FLAGS=f"--xla_dump_to={folder} --xla_dump_hlo_module_re=.*{program}.* {flags}")
    (options,) = folder.glob(f"*{program}*debug_options")
    return options.read_text()


def test_what_draws_the_first_parameters_is_compiled_the_quicker_way(tmp_path: Path) -> None:
    code = (
        "import jaxmlp\n"
        "from jaxmlp.training.epoch import initial_state\n"
        "initial_state(jaxmlp.Experiment(jaxmlp.Network((4, 2))))"
    )
    assert "xla_cpu_use_fusion_emitters: false\n" in options_of("_start", code, tmp_path)


TWICE = (
    "import jax.numpy as jnp\n"
    "from jaxmlp.training.program import Program\n"
    "def twice(x): return 2 * x\n"
    "Program(twice)(jnp.ones(3))"
)


def test_a_program_for_a_cpu_is_compiled_at_level_1(tmp_path: Path) -> None:
    assert "xla_backend_optimization_level: 1\n" in options_of("twice", TWICE, tmp_path)


def test_what_a_user_asks_of_xla_goes_first(tmp_path: Path) -> None:
    options = options_of("twice", TWICE, tmp_path, "--xla_backend_optimization_level=2")
    assert "xla_backend_optimization_level: 2\n" in options
    assert "xla_cpu_copy_insertion_use_region_analysis: true\n" in options
