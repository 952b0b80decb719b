import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "services" / "core" / "feedrank_core"
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
FORBIDDEN = {tuple(c["source_modules"]): {*c["forbidden_modules"]}
             for c in LINTER["contracts"] if c["type"] == "forbidden"}  # fmt: skip
ROOMS = {f"feedrank_core.{path.parent.name}" for path in CORE.glob("*/__init__.py")}
PURE = ("contracts", "features", "ranking", "evaluation")
ARITHMETIC = {"numpy", "orjson", "pydantic", "xxhash"}


def libraries(room: str) -> set[str]:
    """What a package of core imports that is neither ours nor Python's."""
    found = set()
    for path in (CORE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return found - sys.stdlib_module_names - {"feedrank_core"}


def test_what_core_does_its_io_and_its_learning_with_is_kept_from_the_pure_rooms():
    forbidden = FORBIDDEN[tuple(f"feedrank_core.{room}" for room in PURE)]
    assert libraries("runtime") | libraries("models") <= forbidden | ARITHMETIC


def test_the_feature_repository_is_kept_from_all_of_ours_but_the_contracts():
    others = {*LINTER["root_packages"]} - {"feature_repo", "feedrank_core"}
    assert FORBIDDEN[("feature_repo",)] == ROOMS - {"feedrank_core.contracts"} | others
