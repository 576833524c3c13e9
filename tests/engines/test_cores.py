"""CPU quotas and memory limits of control groups, versions 1 and 2, as containers show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sld_edge.engines import cores
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.cores import cpu_quota, memory_limit, usable_cores

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
)


def system(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A system with these groups of the process, mounts, and files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups, "utf-8")
    (root / "proc/self/mountinfo").write_text(mounts, "utf-8")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        ("0::/\n", V2, {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2, {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, {}, None),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "20000 100000", "a/cpu.max": "50000 100000"}, 0.2),
        # A container that sees its own group at the top under the name that the host gave it.
        ("0::/docker/1f\n", V2, {"cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/\n", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1",
                                   "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        ("4:cpu,cpuacct:/\n", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000",
                                   "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1.0),
        ("4:cpu,cpuacct:/g/h\n1:name=systemd:/g\n0::/\n", f"{V1}\n{V2}",
         {"cpu,cpuacct/g/h/cpu.cfs_quota_us": "-1", "cpu,cpuacct/g/h/cpu.cfs_period_us": "100000",
          "cpu,cpuacct/g/cpu.cfs_quota_us": "250000", "cpu,cpuacct/g/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/docker/1f\n", V1.replace(" / /sys/fs/cgroup/cpu", " /docker/1f /sys/fs/cgroup/cpu"),
         {"cpu,cpuacct/cpu.cfs_quota_us": "70000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.7),
        ("0::/\n", V2, {"cpu.max": "nonsense"}, None),
        ("0::/\n", V2, {"cpu.max": "100000 0"}, None),
        ("garbage", "garbage", {}, None),
    ],
)  # fmt: skip
def test_the_least_quota_counts(
    groups: str, mounts: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(system(tmp_path, groups, mounts, files)) == quota


def test_memory_limits_are_found(tmp_path: Path) -> None:
    two = system(tmp_path / "2", "0::/a\n", V2, {"a/memory.max": "max", "memory.max": "1048576"})
    assert memory_limit(two) == 1 << 20
    one = system(tmp_path / "1", "5:memory:/\n", V1,
                 {"memory/memory.limit_in_bytes": str(9223372036854771712)})  # fmt: skip
    assert memory_limit(one) is None
    (one / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("536870912")
    assert memory_limit(one) == 1 << 29
    assert memory_limit(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("affinity", "quota", "usable"),
    [(4, None, 4), (4, 1.0, 1), (4, 1.2, 2), (2, 3.5, 2), (4, 0.1, 1), (1, 0.5, 1)],
)
def test_threads_are_the_least_of_affinity_and_quota_rounded_up(
    affinity: int, quota: float | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == usable


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime:cpu"])
def test_engines_take_as_many_threads_as_the_quota_gives(
    backend: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sld_edge.bundle import Bundle
    from sld_edge.engines.load import load

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 1.0)
    bundle = Bundle.open(tiny_bundle)
    with load(bundle, bundle.graph("text"), EngineOptions.parse(backend)) as engine:
        assert "1 threads" in str(engine.info)
