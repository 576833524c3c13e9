"""What the commands' helps say: their examples parse, the names in them are known, their statuses are the README's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from sld_edge.bench.card.settings import check_skips, seconds_from_text
from sld_edge.bench.cli import COMMANDS as MEASUREMENTS
from sld_edge.bench.safety.precision_gate import _FEWEST_UNSAFE
from sld_edge.bench.safety.prompts import is_tinyworld, tinyworld_prompts
from sld_edge.bench.safety.proportions import most_more
from sld_edge.bench.safety.settings import settings_from
from sld_edge.bundle_command import COMMANDS as WITH_BUNDLES
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import check_names
from sld_edge.export.modes import check_options
from sld_edge.manifest import GATE_MOST
from sld_edge.runtime.safety import PRESETS
from sld_edge.runtime.schedulers import scheduler_names
from tests.test_documents import SHOWN, command_of
from tests.test_readme import COMMANDS, README


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Name and command of everything that has a help of its own; of groups only what they hold.

    What ``sld-bundle`` has under another name too is taken once.
    """
    for name, command in COMMANDS.items():
        if not isinstance(command, click.Group):
            yield name, command
    known = list(COMMANDS.values())
    for group, names in (("sld-bench", MEASUREMENTS), ("sld-bundle", WITH_BUNDLES)):
        for name in names:
            if (command := command_of([group, name])) not in known:
                yield f"{group} {name}", command


EPILOGS = {name: command.epilog or "" for name, command in every_command()}
EXAMPLES = [
    (name, found.split("   ")[0])
    for name, epilog in EPILOGS.items()
    for found in re.findall(r"^\s+(sld-.*)$", epilog, re.MULTILINE)
]


def parsed(line: str) -> click.Context:
    """A command line, read by the command that it names."""
    words = [word for word in shlex.split(line) if word != "…"]
    command = command_of(words)
    rest = words[2:] if isinstance(COMMANDS[words[0]], click.Group) else words[1:]
    return command.make_context(words[0], rest)


def check_texts(context: click.Context) -> None:
    """Look at what a command itself looks at only once it runs."""
    given = context.params
    assert {*texts_of(given.get("scheduler"))} <= {*scheduler_names()}
    for text in texts_of(given.get("prompts"), comma=False):
        if is_tinyworld(text):
            assert tinyworld_prompts(text, limit=1)
    if settings := given.get("settings"):
        assert settings_from(settings)
    for text in texts_of(given.get("engine")):
        if context.info_name not in ("sld-export", "sld-bundle"):
            check_names(EngineOptions.parse(text))
    assert {*texts_of(given.get("safety"))} <= {*PRESETS, "off", "adaptive"}
    check_skips(tuple(one for one in given.get("skips", ()) if one != "compile"))
    if "time_text" in given:
        seconds_from_text(given["time_text"])


def texts_of(value: object, *, comma: bool = True) -> list[str]:
    """A text's parts between commas, or those of several texts; none for what was left out."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [part for text in texts for part in (text.split(",") if comma else [text]) if part]


def test_every_command_has_examples() -> None:
    assert {name for name, _ in EXAMPLES} == set(EPILOGS)
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_of_a_help_parses(name: str, line: str) -> None:
    context = parsed(line)
    check_texts(context)
    if line.startswith("sld-export "):
        check_options(context)


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_that_a_document_shows_parses(line: str) -> None:
    check_texts(parsed(line))


STATUSES = re.compile(r"(?:^|, |: )\s*(\d+) ")


@pytest.mark.parametrize("name", EPILOGS)
def test_exit_statuses_of_a_help_are_those_of_the_readme(name: str) -> None:
    listed = README.split("statuses: ")[1].split("\n\n")[0].split(" With `--json`")[0]
    known = set(STATUSES.findall(listed.replace("\n", " ")))
    said = EPILOGS[name].split("Exit status")[1:]
    assert {
        status for text in said for status in STATUSES.findall(text.replace("\n", " "))
    } <= known


def test_the_commands_of_the_readme_are_all_there_are() -> None:
    table = README.split("| command | job |")[1].split("\n\n")[0]
    listed = {" ".join(re.findall(r"^\| `(sld-\w+)(?: ([a-z][a-z-]+))?", line)[0]).strip()
              for line in table.splitlines()[2:]}  # fmt: skip
    assert listed == set(EPILOGS)


def test_so_many_pictures_show_that_a_precision_is_safe() -> None:
    for turned, said in (
        (0, "53 pictures show that if none turns"),
        (1, "109 if one turns unsafe"),
    ):
        fewest = next(n for n in range(10, 1000) if most_more(turned, 0, n) <= GATE_MOST)
        assert said.startswith(f"{fewest} ")
        assert said in " ".join(EPILOGS["sld-bench precision"].split())
    assert f"At least {_FEWEST_UNSAFE} have to be unsafe" in " ".join(
        EPILOGS["sld-bench precision"].split()
    )


def test_the_hint_of_a_missing_package_works_where_the_package_is_installed() -> None:
    """There is no release: pip takes the extra of what is installed, and looks for nothing else."""
    words = [
        "install",
        "--disable-pip-version-check",
        "--no-index",
        "--dry-run",
        "--no-deps",
        "--quiet",
    ]
    for more in ([], ["-U"]):
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, *more, "sld-edge[bench]"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
