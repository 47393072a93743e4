"""The rules of the house: who may import whom, the one public door, and the sizes of files and commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveal
from foveal import errors

SRC = Path(foveal.__file__).parent
MODULES = {
    ".".join(("foveal", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}
SHARED = {
    "foveal.errors",
    "foveal.header",
    "foveal.types",
    "foveal.taps",
    "foveal.numerics",
    "foveal.reading",
}  # plain types that everybody may use, fitted taps, torch as it must be set, pictures as Pillow reads them
SHARED_IN_VIDEO = "foveal.video.types"  # and these that every video room may
HALLS = {"foveal.image.codec", "foveal.video.codec"}
WINGS = {
    f"foveal.image.{name}"
    for name in (
        "encoder",
        "refine",
        "foresight",
        "decoder",
        "network",
        "classmap",
        "partition",
        "viewing",
        "incremental",
        "postfilter",
    )
} | {
    f"foveal.video.{name}"
    for name in (
        "sender",
        "receiver",
        "output",
        "choice",
        "restorer",
        "blend",
        "scout",
        "frames",
        "mux",
        "copying",
        "packets",
    )
}  # of the halls
ANNEXES = {
    ("foveal.container", "foveal.short"),
    ("foveal.image.transform", "foveal.image.finish"),
    ("foveal.image.transform", "foveal.image.pieces"),
}  # rooms of several files
DOORS = {"foveal", "foveal.video"}
OUTER = {"io", "bench", "serve", "batch"}  # they use the public door, as any other program would
COMMANDS = {"cli", "cli_video", "cli_support", "__main__"}


def may_import(module: str, other: str) -> bool:
    """Whether the import rule of ARCHITECTURE.md allows `module` to import `other`."""
    first, second = (name.split(".")[1] if "." in name else "" for name in (module, other))
    if other in SHARED or (other == SHARED_IN_VIDEO and first == "video"):
        return True
    if first == "":  # the public door opens into the halls, and beside them into what is known without them
        return other in HALLS | {"foveal.facts", "foveal.delivery", "foveal.image.incremental"}
    if first == "facts":
        return other in HALLS | WINGS or second in {"container", "registry"}
    if module == "foveal.video":
        return other == "foveal.video.codec"
    if first == "delivery":
        return other in HALLS or second in {"container", "datagrams"}
    if first in COMMANDS:
        return other in DOORS or second in OUTER | COMMANDS | {"train"}
    if module == "foveal.io.pillow" and other == "foveal.container":
        return True  # Pillow opens a file lazily: its header alone, which no other door reads
    if first in OUTER:
        return other in DOORS or second == first
    if first == "pillow":  # the short name of the Pillow plugin
        return other == "foveal.io.pillow"
    if first == "train":  # it builds, and in the end tries, the networks that the halls use
        return second in {"train", "image", "video", "registry"}
    if module in HALLS | WINGS:
        return other not in HALLS and second in {first, "container", "datagrams", "registry"}
    return (module, other) in ANNEXES  # a room


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports, at any depth; imports for type checkers alone are left out."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            members = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else source for name in members)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "foveal" and name != module}


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_the_rule_allows(module: str) -> None:
    assert [other for other in sorted(ours(module)) if not may_import(module, other)] == []


@pytest.mark.parametrize(
    ("module", "other", "allowed"),
    [
        ("foveal.image.prior", "foveal.errors", True),
        ("foveal.image.prior", "foveal.image.patches", False),
        ("foveal.image.prior", "foveal", False),
        ("foveal.image.codec", "foveal.image.patches", True),
        ("foveal.image.codec", "foveal.container", True),
        ("foveal.image.codec", "foveal.video.codec", False),
        ("foveal.image.encoder", "foveal.image.prior", True),
        ("foveal.image.encoder", "foveal.image.codec", False),
        ("foveal.train.loop", "foveal.image.transform", True),
        ("foveal.train.loop", "foveal.bench.metrics", False),
        ("foveal.bench.run", "foveal.bench.curves", True),
        ("foveal.bench.run", "foveal.image.codec", False),
        ("foveal.bench.video_worker", "foveal.video", True),
        ("foveal.bench.video_worker", "foveal.video.codec", False),
        ("foveal.video", "foveal.video.codec", True),
        ("foveal.video", "foveal.video.frames", False),
        ("foveal.video.codec", "foveal.video.sender", True),
        ("foveal.video.codec", "foveal.image.codec", False),
        ("foveal.video.sender", "foveal.video.resize", True),
        ("foveal.video.sender", "foveal.video.codec", False),
        ("foveal.video.resize", "foveal.video.types", True),
        ("foveal.video.resize", "foveal.video.frames", False),
        ("foveal.image.pixels", "foveal.video.types", False),
        ("foveal.train.video_pairs", "foveal.video.resize", True),
        ("foveal.cli_support.clips", "foveal.video", True),
        ("foveal.cli_video", "foveal.video.sender", False),
        ("foveal.io.pillow", "foveal", True),
        ("foveal.cli", "foveal.io.images", True),
        ("foveal.cli", "foveal.container", False),
        ("foveal.container", "foveal.image.pixels", False),
    ],
)
def test_rule_itself(module: str, other: str, allowed: bool) -> None:
    assert may_import(module, other) is allowed


@pytest.mark.parametrize("module", ["foveal.header", "foveal.container", "foveal.datagrams", "foveal.image.rangecoder"])
def test_rooms_below_the_integer_border_know_no_torch(module: str) -> None:
    assert not [name for name in imports(module) if name.split(".")[0] == "torch"]


def test_public_door_is_sorted_and_every_name_opens() -> None:
    assert list(foveal.__all__) == sorted(set(foveal.__all__))
    assert {name for name in foveal.__all__ if not hasattr(foveal, name)} == set()
    assert {"compress", "decompress", "inspect", "importance", "models", "FovealError"} <= set(foveal.__all__)


def test_no_public_name_is_hidden_by_a_module() -> None:
    """Once `foveal/x.py` is imported, `foveal.x` is that module, and a function x at the door is gone."""
    assert [name for name in foveal.__all__ if f"foveal.{name}" in MODULES] == []


def test_unknown_name_at_the_door_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        foveal.no_such_name  # noqa: B018


def test_every_error_of_the_tree_is_at_the_door() -> None:
    assert {name for name in errors.__all__ if getattr(foveal, name, None) is None} == set()


def test_importing_the_door_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'constriction', 'safetensors', 'matplotlib', 'rich', 'typer'}"
    assert in_fresh_python(f"import sys, foveal; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_the_command_line_loads_torch_only_when_it_codes() -> None:
    assert in_fresh_python("import sys, foveal.cli; print('torch' in sys.modules)") == "False"


def test_the_door_of_video_loads_neither_pyav_nor_torch() -> None:
    assert in_fresh_python("import sys, foveal.video; print({'av', 'torch', 'numpy'} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short_and_say_what_they_are(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module begins with what it is for"


@pytest.mark.parametrize(("name", "count"), [("cli.py", 17), ("cli_video.py", 3)])
def test_bodies_of_commands_are_at_most_ten_lines(name: str, count: int) -> None:
    tree = ast.parse((SRC / name).read_text(encoding="utf-8"))
    commands = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(".command" in ast.unparse(d) for d in node.decorator_list)
    ]
    lengths = {c.name: (c.end_lineno or 0) - c.body[1].lineno + 1 for c in commands}  # body[0] is the docstring
    assert len(lengths) == count
    assert {name: lines for name, lines in lengths.items() if lines > 10} == {}
