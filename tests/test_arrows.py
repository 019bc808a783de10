"""Who may import whom in let_titan: arrows run one way, between files and between packages."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KNOW_ONLY = {
    "names": set(),
    "schedule": {"names"},
    "alignment": {"names"},
    "distill": {"alignment", "batch", "columns"},
    "tokenizer": {"errors"},
}
"""What can be read, and taken elsewhere, without the rest."""

STRANGERS = ("teacher", "student", "data")


def modules() -> dict[str, Path]:
    """Returns the files of let_titan by the name that imports them."""
    found = {}
    for file in (ROOT / "let_titan").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """Returns what a file imports, anywhere in it: of ours the module, of others the package."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else node.module)
    return {name if name in known else name.partition(".")[0] for name in names}


def house(module: str) -> str:
    """Returns the package of let_titan that a module is in, or its own name beside them."""
    return module.split(".")[1] if "." in module else module


def in_order(graph: dict[str, set[str]]) -> list[str]:
    """Returns the names that can be put behind all that they import, by name.

    Raises:
        graphlib.CycleError: some import each other; it names them.
    """
    return sorted(TopologicalSorter(graph).static_order())


@pytest.fixture(scope="module")
def of_files() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(file, known) - {name} for name, file in known.items()}


@pytest.fixture(scope="module")
def of_houses(of_files) -> dict[str, set[str]]:
    found = defaultdict(set)
    for name, others in of_files.items():
        found[house(name)] |= {house(other) for other in others if other.startswith("let_titan.")}
    return {name: others - {name} for name, others in found.items()}


def test_no_circle_of_files(of_files):
    ours = {name: others & of_files.keys() for name, others in of_files.items()}
    assert "let_titan.let.phase" in ours["let_titan.trainer"]
    assert in_order(ours) == sorted(ours)


def test_no_circle_of_packages(of_houses):
    assert "let" in of_houses["trainer"] and in_order(of_houses) == sorted(of_houses)


@pytest.mark.parametrize("name", KNOW_ONLY)
def test_what_stands_alone(name, of_houses):
    assert of_houses[name] <= KNOW_ONLY[name]


@pytest.mark.parametrize("name", STRANGERS)
def test_teacher_student_and_data_do_not_know_each_other(name, of_houses):
    assert of_houses[name] and not of_houses[name] & set(STRANGERS)


def test_programs_and_tests_are_nobodys_library(of_files):
    programs = {"recipes", "scripts", "tests"}
    for folder in ("recipes", "scripts"):  # on the path, where they run
        programs |= {each.stem for each in (ROOT / folder).iterdir() if each.suffix in ("", ".py")}
    for name, others in of_files.items():
        assert not others & programs, name
