"""What the README and docs name is there: commands, extras, links, exit statuses."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sld_edge import bundle_command as bundle
from sld_edge import errors, shell
from sld_edge.bench import cli as bench
from sld_edge.bench.gpu_check.outcome import NOTHING_CHECKED
from sld_edge.calibration import cli as calibrate
from sld_edge.export import cli as export
from sld_edge.runtime import cli as generate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: dict[str, click.Command] = {
    "sld-bench": bench.main,
    "sld-bundle": bundle.main,
    "sld-calibrate": calibrate.main,
    "sld-export": export.main,
    "sld-generate": generate.main,
}


def named() -> list[str]:
    """Every command that a document names, ``sld-bench`` and ``sld-bundle`` with their subcommands."""
    pattern = r"(?<![\w-])(sld-(?:export|generate|calibrate)\b|sld-(?:bench|bundle) [a-z][a-z-]+)"
    text = " ".join(re.findall(r"`[^`]*`|```.*?```", README, re.DOTALL))
    groups = {"sld-bench": bench.COMMANDS, "sld-bundle": bundle.COMMANDS}
    every = {f"{group} {one}" for group, commands in groups.items() for one in commands}
    return sorted(set(re.findall(pattern, text)) | every)


@pytest.mark.parametrize("command", named())
def test_a_named_command_has_help_with_examples_and_json(command: str) -> None:
    program, *rest = command.split()
    done = CliRunner().invoke(click.Group("all", commands=COMMANDS), [program, *rest, "--help"])
    assert done.exit_code == 0, done.output
    assert "Example" in done.output
    assert "--json" in done.output


def extras_of(text: str) -> set[str]:
    found = re.findall(r"(?:sld-edge|\.whl|'\.|WHEEL)\[([a-z0-9,-]+)\]", text)
    return {extra for names in found for extra in names.split(",")}


def extras_named() -> set[str]:
    """Those of the README, by themselves in backquotes too."""
    return extras_of(README) | set(re.findall(r"`\[([a-z0-9-]+)\]`", README))


def known_extras() -> set[str]:
    section = (ROOT / "pyproject.toml").read_text("utf-8")
    section = section.split("[project.optional-dependencies]")[1].split("\n[project.")[0]
    return set(re.findall(r"^([a-z-]+) = \[", section, re.MULTILINE))


def test_every_extra_that_is_named_exists() -> None:
    code = " ".join(file.read_text("utf-8") for file in (ROOT / "sld_edge").rglob("*.py"))
    documents = " ".join(file.read_text("utf-8") for file in DOCUMENTS)
    wanted = extras_of(code)
    assert wanted | extras_of(documents) | extras_named() <= known_extras()
    missing = {extra for extra in wanted if not re.search(rf"[\[`,]{extra}[\]`,]", README)}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_documents_install_only_what_there_is(document: Path) -> None:
    text = document.read_text("utf-8")
    assert not re.findall(r"pip install (?:-\S+ )*'?sld-edge", text)  # there is no release
    for wheel in re.findall(r"sld_edge-([0-9.]+)-py3-none-any\.whl", text):
        assert f'__version__ = "{wheel}"' in (ROOT / "sld_edge" / "__init__.py").read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    for link in links:
        if "://" not in link and not link.startswith("#"):
            assert (document.parent / link.split("#")[0]).exists(), link


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets


def test_exit_statuses_are_those_of_the_code() -> None:
    listed = README.split("statuses: ")[1].split("\n\n")[0].split(" With `--json`")[0]
    documented = {int(one) for one in re.findall(r"(?:^|, )\s*(\d+) ", listed.replace("\n", " "))}
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    raised = {one.exit_code for one in classes if issubclass(one, errors.SldError)}
    raised |= {
        shell.INTERRUPTED,
        shell.READER_LEFT,
        shell.BUG,
        NOTHING_CHECKED,
        shell.OUT_OF_MEMORY,
    }
    assert documented == raised | {0, 1}  # done; the answer of a comparison or a check
