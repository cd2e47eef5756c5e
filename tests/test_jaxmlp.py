import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import jaxmlp

pytestmark = pytest.mark.own_precision  # it imports and reads


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(jaxmlp.__all__) == sorted([*jaxmlp._MODULE_OF, *jaxmlp._MODULES])
    assert [name for name in dir(jaxmlp) if not name.startswith("__")] == sorted(jaxmlp.__all__)
    for name in jaxmlp.__all__:
        assert getattr(jaxmlp, name).__doc__ or name == "Params"


def fields(kind: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return getattr(kind, "_fields", ())


def structures(kinds: set[Any]) -> set[Any]:
    """Those that have fields, and those that the fields are of."""

    def parts(hint: Any) -> Iterator[Any]:
        yield hint
        for part in typing.get_args(hint):
            yield from parts(part)

    found = {kind for kind in kinds if isinstance(kind, type) and fields(kind) and kind.__module__.startswith("jaxmlp")}
    within = {part for kind in found for hint in typing.get_type_hints(kind).values() for part in parts(hint)}
    return found if within <= kinds else structures(kinds | within)


PUBLIC = structures({getattr(jaxmlp, name) for name in jaxmlp.__all__}) - {jaxmlp.Experiment}


@pytest.mark.parametrize("kind", sorted(PUBLIC, key=lambda kind: kind.__name__))
def test_the_help_of_what_has_fields_says_what_each_is(kind: Any) -> None:
    attributes = (kind.__doc__ or "").partition("    Attributes:\n")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^        (\w+): \S", attributes, re.MULTILINE)) == fields(kind)


def test_the_help_of_an_experiment_names_the_classes_of_its_fields() -> None:
    assert {field.type for field in dataclasses.fields(jaxmlp.Experiment)} < {*PUBLIC}
    assert "help(jaxmlp.Train)" in (jaxmlp.Experiment.__doc__ or "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(jaxmlp, "nosuchname")


def test_importing_the_package_imports_no_other() -> None:
    assert python("import sys, jaxmlp; print({'jax', 'numpy', 'optax'} & {*sys.modules})") == "set()"


def test_backprop_is_the_function_whatever_was_imported_before() -> None:
    for before in ("jaxmlp", "jaxmlp.backprop", "jaxmlp.training.fit"):
        assert python(f"import {before}; import jaxmlp; print(jaxmlp.backprop.__name__)") == "backprop"
    assert python("from jaxmlp.backprop import Trace; import jaxmlp; print(jaxmlp.Trace is Trace)") == "True"
