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
