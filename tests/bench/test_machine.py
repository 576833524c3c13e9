"""The machine's description, the activity meter, memory peaks and energy meters on a made-up /sys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sld_edge.bench.energy import energy_meter
from sld_edge.bench.machine import (
    ActivityMeter,
    describe_machine,
    limits_in_words,
    machine_key,
    processor_name,
)


def test_description_is_json_and_names_the_essentials() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["cores"] >= machine["usable_cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["versions"]["sld-edge"]
    assert machine["versions"]["numpy"] == np.__version__
    assert machine_key(machine) == machine_key(describe_machine())
    assert {"cpu_quota", "memory_limit_gib"} <= machine.keys()


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"model name": "A processor", "CPU part": "0xd42"}, "A processor"),
        ({"Model": "A board"}, "A board"),
        (
            {"CPU implementer": "0x41", "CPU part": "0xd42", "CPU revision": "1"},
            "implementer 0x41, part 0xd42, revision 1",
        ),
    ],
)
def test_a_processor_without_a_name_is_told_by_its_numbers(info: dict[str, str], name: str) -> None:
    assert processor_name(info) == name


def test_limits_of_control_groups_are_named_where_there_are_some() -> None:
    assert limits_in_words({"cpu_quota": None, "memory_limit_gib": None}) == []
    assert limits_in_words({}) == []  # a report of an earlier version
    assert limits_in_words({"cpu_quota": 1.5, "memory_limit_gib": 2.0}) == [
        "CPU quota of 1.5 cores",
        "memory limit of 2 GiB",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' accounting")
def test_activity_of_another_process_is_seen() -> None:
    spin = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
    # An orphan is nobody's child here, as another user's work would be.
    shell = f'"{sys.executable}" -c "{spin}" & exit'
    subprocess.run(["sh", "-c", shell], check=True, stdout=subprocess.DEVNULL)
    meter = ActivityMeter()
    time.sleep(1.5)
    others = meter.read().others
    assert others is not None
    assert others > 0.3 / (os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells and resets the peak")
def test_peak_sees_an_allocation_and_can_be_reset() -> None:
    """In a process of its own: where a peak cannot be reset, what ran before would hide the allocation."""
    code = """
import numpy as np
from sld_edge.bench.memory import peak_bytes, reset_peak
reset_peak()
before = peak_bytes()
block = np.ones(64 << 20, np.uint8)
assert peak_bytes() - before >= block.nbytes * 0.9
del block
if reset_peak():
    assert peak_bytes() - before < 48 << 20
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_rapl_counter_that_wraps(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    _write(zone / "name", "package-0\n")
    _write(zone / "max_energy_range_uj", "10000000\n")
    _write(zone / "energy_uj", "9000000\n")
    with energy_meter(tmp_path) as energy:
        _write(zone / "energy_uj", "1500000\n")
    assert energy.joules == {"cpu package-0": pytest.approx(2.5)}


def test_jetson_rail_is_integrated(tmp_path: Path) -> None:
    rail = tmp_path / "sys/class/hwmon/hwmon1"
    _write(rail / "in1_label", "VDD_IN\n")
    _write(rail / "in1_input", "5000\n")
    _write(rail / "curr1_input", "2000\n")
    _write(rail / "in2_label", "VDD_CPU_GPU_CV\n")
    with energy_meter(tmp_path) as energy:
        time.sleep(0.3)
    assert energy.joules == {"rail VDD_IN": pytest.approx(3.0, rel=0.4)}


def test_no_meter_leaves_energy_out(tmp_path: Path) -> None:
    with energy_meter(tmp_path) as energy:
        pass
    assert all(name.startswith("gpu") for name in energy.joules)
