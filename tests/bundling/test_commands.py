"""``sld-bundle`` does what the older names do, and needs no torch for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sld_edge import Bundle
from sld_edge.bundle_command import COMMANDS, main
from sld_edge.export.cli import main as export


def run(*words: str) -> Result:
    return CliRunner().invoke(main, [*words])


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (["--plan", "{}", "--json"], ["plan", "{}", "--json"]),
        (["--plan", "{}", "--branches", "4"], ["plan", "{}", "--branches", "4"]),
        (["--plan", "{}", "--shape", "64x64x3"], ["plan", "{}", "--shape", "64x64x3"]),
        (["--verify", "{}", "--json"], ["verify", "{}", "--json"]),
    ],
)
def test_both_names_say_the_same(older: list[str], newer: list[str], tiny_bundle: Path) -> None:
    before = CliRunner().invoke(export, [word.format(tiny_bundle) for word in older])
    after = run(*(word.format(tiny_bundle) for word in newer))
    assert (before.exit_code, before.stdout) == (0, after.stdout)
    assert after.exit_code == 0


def test_a_card_is_the_bundles_and_checked(tiny_bundle: Path, tmp_path: Path) -> None:
    assert run("card", str(tiny_bundle)).stdout == (tiny_bundle / "CARD.md").read_text("utf-8")
    facts = json.loads(run("card", str(tiny_bundle), "--json").stdout)
    assert facts["digest"] == Bundle.open(tiny_bundle).digest
    assert set(facts["graphs"]) == {
        graph.file for graph in Bundle.open(tiny_bundle).manifest.graphs
    }
    for name in ("manifest.json", "CARD.md"):
        (tmp_path / name).write_bytes((tiny_bundle / name).read_bytes())
    with (tmp_path / "CARD.md").open("a") as file:
        file.write("x")
    altered = run("card", str(tmp_path))
    assert altered.exit_code == 4
    assert "CARD.md" in altered.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "{}"], "--build needs a library"),
        (["build", "{}", "--engine", "tensorrt-rtx", "--optimization-level", "7"], "0<=x<=5"),
        (["plan", "{}", "--branches", "x"], "not a list of numbers"),
        (["verify", "{}", "--key", "no-such"], "key"),
        (["sign", "{}"], "No such command"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], said: str, tiny_bundle: Path) -> None:
    done = run(*(word.format(tiny_bundle) for word in words))
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_only_exporting_and_calibrating_need_torch(tiny_bundle: Path) -> None:
    """The other commands are run where torch and the exporter's packages cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'onnx', 'onnx_ir'): sys.modules[name] = None\n"
        "from sld_edge.bundle_command import main; main()"
    )
    for words in (["card"], ["plan"], ["verify"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, str(tiny_bundle)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert set(COMMANDS) == {"build", "calibrate", "card", "export", "plan", "verify"}


def test_american_spellings_are_the_flags_and_the_others_are_taken() -> None:
    for command, pairs in (
        ("export", [("--license", "--licence"), ("--optimization-level", "--optimisation-level")]),
        ("build", [("--optimization-level", "--optimisation-level")]),
    ):
        options = {name: one for one in command_of(command).params for name in one.opts}
        for american, british in pairs:
            assert options[american] is options[british]
            assert options[american].opts[0] == american


def command_of(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found
