"""Fixtures of the runtime's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sld_edge.bundle import Bundle
from sld_edge.manifest import Policy
from sld_edge.manifest_json import json_from_manifest


@pytest.fixture
def with_policy(tmp_path: Path) -> Callable[..., Path]:
    """A function that copies a bundle and gives the copy another policy."""

    def copy(bundle: Path, **policy: Any) -> Path:
        target = tmp_path / "with-policy"
        shutil.copytree(bundle, target)
        manifest = Bundle.open(target).manifest
        safety = msgspec.structs.replace(manifest.safety, policy=Policy(**policy))
        changed = msgspec.structs.replace(manifest, safety=safety)
        (target / "manifest.json").write_bytes(json_from_manifest(changed))
        return target

    return copy
