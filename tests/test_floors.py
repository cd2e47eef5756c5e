import ast
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]


def test_arrows_point_down() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_tests_mirror_the_package() -> None:
    package, tests = ROOT / "jaxmlp", ROOT / "tests"
    for module in package.rglob("*.py"):
        path = module.relative_to(package)
        if path.name not in ("__init__.py", "errors.py"):
            assert (tests / path.with_name(f"test_{path.name}")).exists(), f"{path} has no tests"


def test_the_bottom_floor_imports_nothing_but_jax_numpy_and_jaxtyping() -> None:
    names = ("activations", "losses", "products", "network", "backprop", "perexample", "devices", "errors")
    modules = [ROOT / "jaxmlp" / f"{name}.py" for name in names]
    for module in [*modules, *(ROOT / "jaxmlp" / "gradcheck").glob("*.py")]:
        for node in ast.walk(ast.parse(module.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            for name in imported:
                package = name.partition(".")[0]
                assert package in {"jax", "numpy", "jaxtyping", "jaxmlp"} | sys.stdlib_module_names, f"{module}: {name}"
