"""The house keeps its shape: imports run downwards, money leaves in one place, the words are the agreed ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import payout_engine

ROOT = Path(payout_engine.__file__).parent
PROJECT = ROOT.parent
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    ("domain",),  # values, states, errors, money: nothing of ours but other words
    ("ports",),  # every promise between the stages
    ("journal", "providers", "sinks", "sources"),  # what keeps the promises, none knowing another
    ("intake", "payment", "results"),  # the stages of a payout's journey, none knowing another
    ("app",),  # where they meet
    ("cli", "testing"),  # the doors
    ("__init__", "__main__"),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
STAGES = {"intake", "payment", "results"}
KNOWN_BY = {
    **{stage: {"domain", "ports", "sinks.atomic_file"} for stage in STAGES},  # the ports, never a provider or a journal
    "cli": {"app", "domain", "ports", "results", "sinks"},  # the facade; of sinks only which formats there are
}
"""What some rooms may import beside themselves, where that is less than all below them."""
PAYING = [*sorted((ROOT / "payment").glob("*.py")), ROOT / "app" / "clearing.py"]


def room_of(path: Path) -> str:
    """Return the top-level name a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield what a file imports of ours, below the package, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "payout_engine":
            below = node.module.split(".")[1:]
            for alias in node.names:
                inner = ROOT.joinpath(*below, alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield ".".join([*below, alias.name] if is_module else below)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("payout_engine."):
                    yield alias.name.removeprefix("payout_engine.")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    """No file imports a layer above its own, and none beside it."""
    here = room_of(path)
    assert here in LAYER_OF, f"{here} has no layer: give it one in this test"
    for name in filter(None, imports(path)):
        there = name.split(".")[0]
        if there == here or there not in LAYER_OF:
            continue
        assert LAYER_OF[there] < LAYER_OF[here], f"{here} must not import {name}"
        if here in KNOWN_BY:
            assert KNOWN_BY[here] & {name, there}, f"{here} must not know {name}"


def test_there_are_at_most_eight_layers_and_every_folder_has_one() -> None:
    """The table above is the whole house."""
    assert len(LAYERS) <= 8
    rooms = {room_of(path) for path in MODULES}
    assert rooms == set(LAYER_OF)


def test_no_imports_run_in_a_circle() -> None:
    """Every module can be read after those that it imports, also inside of a room."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
    graph = TopologicalSorter(
        {name: {other for other in imports(path) if other in names and other != name} for name, path in names.items()}
    )
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' > '.join(error.args[1])}")


def test_the_stages_name_no_provider_and_no_journal() -> None:
    """What pays knows only the ports."""
    names = [folder.name for folder in (ROOT / "providers").iterdir() if (folder / "adapter.py").exists()]
    assert "senfenico" in names
    for path in (path for stage in STAGES for path in (ROOT / stage).rglob("*.py")):
        text = path.read_text(encoding="utf-8").lower()
        for name in [*names, "sqlite"]:
            assert name not in text, f"{path.name} names {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """Every module that holds code begins with a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize("room", sorted(set(LAYER_OF) - {"__init__", "__main__"}))
def test_every_room_has_a_map(room: str) -> None:
    """The docstring of a room names each module in it, in fifteen lines at the most; what is private may go unnamed."""
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(text.splitlines()) <= 15
    modules = [path.stem for path in (ROOT / room).glob("*.py")]
    modules += [path.parent.name for path in (ROOT / room).glob("*/__init__.py")]
    for name in modules:
        assert name.startswith("_") or f"`{name}`" in text, f"the map of {room} lacks {name}"


def test_every_provider_has_its_five_files() -> None:
    """A provider folder looks like every other."""
    for folder in (ROOT / "providers").iterdir():
        if folder.is_dir() and not folder.name.startswith("_"):
            for name in ("__init__.py", "adapter.py", "client.py", "wire.py", "sandbox.py", "NOTES.md"):
                assert (folder / name).exists(), f"{folder.name} has no {name}"


def test_money_leaves_in_one_place() -> None:
    """One function of the package sends to a provider, in one line, below its durable intent and nothing else.

    The calls that an intent covers are made by that line, each at its turn. Where providers are known, whatever is
    called `send` counts.
    """
    callers = []
    for path in (path for path in MODULES if room_of(path) in ("app", "payment")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and "send" in called_methods(function):
                callers.append((path.name, function.name))
                if function.name == "send_durably":
                    assert awaited(function) == ["strategy.intend", "provider.send", "make", "strategy.record"]
    assert callers == [("dispatch.py", "send_durably"), ("dispatch.py", "speak")]
    whole = (ROOT / "payment" / "dispatch.py").read_text("utf-8")
    assert (
        whole.count(".send(") == 1 and whole.count("speak(number, turn)") == 1 and whole.count("speak(0, first)") == 1
    )
    sent = [path.name for path in MODULES if room_of(path) != "testing" and "provider.send(" in path.read_text("utf-8")]
    assert sent == ["dispatch.py"]


def called_methods(function: ast.AST) -> set[str]:
    """Return the names of the methods that a function calls."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {called.attr for called in calls if isinstance(called, ast.Attribute)}


def awaited(function: ast.AST) -> list[str]:
    """Return what a function waits for, in the order of its lines."""
    waits = [node for node in ast.walk(function) if isinstance(node, ast.Await)]
    calls = [node.value for node in sorted(waits, key=lambda node: node.lineno)]
    return [ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)]


@pytest.mark.parametrize("path", PAYING, ids=lambda path: path.name)
def test_no_function_that_pays_takes_more_than_six_things(path: Path) -> None:
    """What belongs together travels together: a call of more can be got wrong."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len(names) - (names[:1] in (["self"], ["cls"])) <= 6, f"{path.name}: {node.name}"


def test_no_float_touches_money() -> None:
    """No name that holds minor units is ever made from a float."""
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.search(r"_minor\s*[:=].*\bfloat\b", line), f"{path.name}:{number}"


def test_no_name_means_two_things() -> None:
    """No two modules of the package define a public class or constant of one name; nor do two modules of a provider.

    Each provider has its own words: two of them may both have `STATUSES`, and nobody imports from both. They are other
    words than those of the rooms that a provider stands on.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    below = ("domain", "ports", "providers")
    for path in (path for path in MODULES if room_of(path) != "testing"):
        provider = path.parent.name if path.parent.parent.name == "providers" else ""
        owner = provider or ("" if room_of(path) in below else "the engine")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.islower()]
            for name in [node.name] if isinstance(node, ast.ClassDef) else names:
                if not name.startswith("_") and len(name) > 1:  # A single letter stands for any type.
                    found.setdefault(name, []).append((owner, path.name))
    for name, places in found.items():
        owners = [owner for owner, _ in places]
        shared = "" in owners or len(set(owners)) < len(owners)
        assert len(places) == 1 or not shared, f"{name}: {places}"


def test_public_names_are_complete_and_sorted() -> None:
    """`__all__` lists what the package offers, in order."""
    assert list(payout_engine.__all__) == sorted(payout_engine.__all__)
    for name in payout_engine.__all__:
        assert hasattr(payout_engine, name)


def test_the_project_names_no_machine() -> None:
    """No file holds a path of one machine."""
    suffixes = {".py", ".md", ".toml", ".json", ".sql", ".csv", ""}
    for folder in ("payout_engine", "benchmarks", "examples", "tests", "docs"):
        for path in (PROJECT / folder).rglob("*") if (PROJECT / folder).is_dir() else ():
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8", errors="replace")
                assert not re.search(r"(?<![\w.])/(?:work|root|home)/\w", text), path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_names_is_there(path: Path) -> None:
    """A file that a docstring or a comment names exists: beside it, or below the package, or in the project."""
    for name in re.findall(r"`([a-z_/]+\.(?:py|sql|md))`", path.read_text(encoding="utf-8")):
        places = (path.parent, ROOT, ROOT.parent, ROOT / "providers" / "senfenico", ROOT / "domain" / "data")
        assert any((place / name).exists() for place in places), f"{path.name} names {name}"
