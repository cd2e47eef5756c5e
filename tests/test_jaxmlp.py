import subprocess
import sys

import jaxmlp


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(jaxmlp.__all__) == sorted([*jaxmlp._MODULE_OF, *jaxmlp._MODULES])
    assert [name for name in dir(jaxmlp) if not name.startswith("__")] == sorted(jaxmlp.__all__)
    for name in jaxmlp.__all__:
        assert getattr(jaxmlp, name).__doc__ or name == "Params"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(jaxmlp, "nosuchname")


def test_importing_the_package_imports_no_other() -> None:
    assert python("import sys, jaxmlp; print({'jax', 'numpy', 'optax'} & {*sys.modules})") == "set()"


def test_backprop_is_the_function_whatever_was_imported_before() -> None:
    for before in ("jaxmlp", "jaxmlp.backprop", "jaxmlp.training.fit"):
        assert python(f"import {before}; import jaxmlp; print(jaxmlp.backprop.__name__)") == "backprop"
    assert python("from jaxmlp.backprop import Trace; import jaxmlp; print(jaxmlp.Trace is Trace)") == "True"
