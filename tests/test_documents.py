"""What the documents say of options, arguments and requirements is what the code takes."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

import sld_edge
from sld_edge import InvalidInput, SafePipeline
from sld_edge.export.modes import check_options
from sld_edge.runtime.diffusers_names import check_foreign
from sld_edge.runtime.memory_plan import plan_memory
from sld_edge.runtime.schedulers.families import FAMILIES
from tests.test_readme import COMMANDS, DOCUMENTS, README, ROOT

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def blocks(kind: str) -> list[tuple[str, str]]:
    """Document and text of every block of code of a kind."""
    return [
        (file.name, text)
        for file in DOCUMENTS
        for found, text in BLOCK.findall(file.read_text("utf-8"))
        if found == kind
    ]


def inline(file: Path) -> list[str]:
    """What stands between single backquotes, line ends taken for spaces."""
    text = BLOCK.sub("", file.read_text("utf-8"))
    return [one.replace("\n", " ") for one in re.findall(r"`([^`]+)`", text)]


def commands_in(lines: Iterable[str]) -> Iterator[str]:
    """The lines that call one of the commands, without a comment behind them."""
    for line in lines:
        if found := re.match(
            r"(?:[\w./-]+/)?(sld-(?:export|generate|calibrate|bench|bundle)\b.*)", line
        ):
            yield found[1].partition(" #")[0].strip()


#: Whole command lines in blocks of code, and those of the text, which may leave things out.
WHOLE = [text.replace("\\\n", " ") for _, text in blocks("sh")]
SHOWN = sorted({*commands_in(line for text in WHOLE for line in text.splitlines())})
NAMED = sorted({*commands_in(one for file in DOCUMENTS for one in inline(file))})


def command_of(words: list[str]) -> click.Command:
    command = COMMANDS[words[0]]
    if isinstance(command, click.Group) and len(words) > 1 and not words[1].startswith("-"):
        found = command.get_command(click.Context(command), words[1])
        assert found is not None, words
        return found
    return command


def options_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    return {
        name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)
    }


def every_option() -> set[str]:
    known: set[str] = set()
    for program, command in COMMANDS.items():
        known |= options_of(command)
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                known |= options_of(command_of([program, name]))
    return known


@pytest.mark.parametrize("line", sorted({*SHOWN, *NAMED}))
def test_a_shown_command_has_the_options_that_it_is_given(line: str) -> None:
    words = shlex.split(line)
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    assert given <= options_of(command_of(words))


@pytest.mark.parametrize("line", [line for line in SHOWN if line.startswith("sld-export ")])
def test_options_of_a_shown_export_go_together(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "…"]
    check_options(COMMANDS["sld-export"].make_context("sld-export", words))


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda one: one.name)
def test_an_option_that_is_named_alone_is_one(file: Path) -> None:
    named = {one.split()[0].split("=")[0] for one in inline(file) if one.startswith("--")}
    assert named <= every_option()


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda one: one.name)
def test_files_of_the_repository_that_are_named_are_there(file: Path) -> None:
    named = {
        one
        for one in inline(file)
        if re.fullmatch(r"(?:sld_edge|tests|training|docs)/[\w./-]+", one)
    }
    assert not {one for one in named if not (ROOT / one).exists()}


#: The page of rooms, and what its table of entries says of each.
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ENTRIES = re.findall(
    r"^\| (an? [\w ]+) \| `([A-Z]+)` in `([\w/.]+)` \| `([\w/.]+)` \|$", ARCHITECTURE, re.MULTILINE
)


@pytest.mark.parametrize(("what", "table", "home", "test"), ENTRIES)
def test_a_table_to_add_to_is_where_the_page_says(
    what: str, table: str, home: str, test: str
) -> None:
    found = getattr(import_module(home.removesuffix(".py").replace("/", ".")), table)
    assert len(found) >= 2
    dummies = re.findall(
        r"^def test_a_new_\w+_is_one_entry\(", (ROOT / test).read_text("utf-8"), re.MULTILINE
    )
    assert len(dummies) == 1, what
    assert f"### {what.capitalize()}\n" in ARCHITECTURE


def test_every_seam_is_in_the_table() -> None:
    assert [what for what, *_ in ENTRIES] == [
        "a scheduler",
        "a guidance method",
        "an engine",
        "a memory for the loop",
    ]


def keywords_of(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


TAKEN = {
    "from_pretrained": keywords_of(SafePipeline.from_pretrained) - {"others"},
    "pipe": keywords_of(SafePipeline.__call__) - {"others"},
    "memory_plan": keywords_of(plan_memory),
}


@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_python_that_is_shown_names_what_there_is(document: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "sld_edge":
            assert {alias.name for alias in node.names} <= set(sld_edge.__all__), document
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {one.arg for one in node.keywords if one.arg}
            assert given <= TAKEN.get(name, given), document


def test_the_calls_arguments_are_those_of_diffusers_safe_pipeline() -> None:
    home = find_spec("diffusers")
    if home is None or home.origin is None:
        pytest.skip("diffusers is not installed")
    (file,) = Path(home.origin).parent.rglob("pipeline_stable_diffusion_safe.py")
    (theirs,) = (
        node
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "__call__"
    )
    names = [one.arg for one in theirs.args.args][1:]
    assert len(names) > 15
    ours = [name for name in inspect.signature(SafePipeline.__call__).parameters if name != "self"]
    taken = [name for name in names if name in ours]
    assert taken == ours[: len(taken)]  # in their order
    for name in set(names) - set(taken):  # what it cannot do is refused by name
        with pytest.raises(InvalidInput, match=name):
            check_foreign({name: object()}, ours)


def test_requirements_are_those_of_the_package() -> None:
    said = " ".join(README.split("## Requirements")[1].split())
    assert "Python 3.10 – 3.14 to run" in said
    listed = re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT)
    assert (listed[0], listed[-1]) == ("3.10", "3.14")
    assert 'requires-python = ">=3.10"' in PYPROJECT
    base = re.search(r"The base install is ([^.]*)\.", said)
    needed = PYPROJECT.split("\ndependencies = [")[1].split("]")[0]
    assert base is not None
    packages = set(re.split(r", | and ", base[1].lower()))
    assert packages == set(re.findall(r'"(\w+)', needed))
    assert "TensorRT (10.3 to 11.x)" in said
    assert '"tensorrt>=10.3,<12"' in PYPROJECT
    passes = (ROOT / "docs" / "passes.md").read_text("utf-8")
    assert "the runtime accepts (1.20 on)" in passes
    assert 'cpu = ["onnxruntime>=1.20"]' in PYPROJECT


def test_as_many_scheduler_families_as_the_readme_counts() -> None:
    counted = re.search(r"; (\w+) families agree with diffusers' classes", README)
    assert counted is not None
    words = {16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen", 20: "twenty"}
    assert counted[1] == words[len(FAMILIES)]


def test_the_readmes_rates_are_those_of_the_measured_page() -> None:
    page = (ROOT / "docs" / "safety.md").read_text("utf-8").replace("*", "")
    table = README.split("| tiny world |")[1].split("\n\n")[0].replace("*", "").splitlines()
    presets = [cell.strip() for cell in table[0].split("|") if cell.strip()]
    unsafe, right = ([cell.strip() for cell in line.split("|")[2:-1]] for line in table[2:4])
    assert len(presets) == len(unsafe) == len(right) >= 6
    for preset, harmful, kept in zip(presets, unsafe, right, strict=True):
        ambiguous, benign = re.findall(rf"^\| {preset} \|(.*)$", page, re.MULTILINE)[:2]
        assert ambiguous.split()[0] == harmful, preset
        assert benign.split("|")[1].split()[0] == kept, preset


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_installs_the_first_time_only(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)

    def would_run() -> str:
        done = subprocess.run(
            ["make", "--dry-run", "demo", "test", "docs", "wheel"],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        return done.stdout

    assert "pip install" in would_run()
    for folder in (".venv", ".venv-lean"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".installed").touch()
    assert "sld_edge.bench.demo" in would_run()
    assert "pip" not in would_run()


def test_the_threads_example_runs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    monkeypatch.chdir(tmp_path)
    (code,) = (text for name, text in blocks("python") if name == "threads.md")
    assert "progress=False" in code
    made: dict[str, Any] = {}
    exec(
        code.replace("progress=False", "progress=False, num_inference_steps=1, safety='max'"), made
    )
    assert [picture.size for picture in made["pictures"]] == [(64, 64)] * 3
    while not made["free"].empty():
        made["free"].get().close()
