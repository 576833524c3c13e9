"""Who is compared, where each one lives, and what its picture must equal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sld_edge.bench.compare.task import Unavailable

_ADAPTERS = "sld_edge.bench.compare.adapters"
#: Where ``make peers`` puts the environments of peers that cannot share ours.
PEERS_FOLDER = ".venv-peers"


#: Two fp32 pipelines that do the same differ by rounding only.
_LEAST_PSNR = 50.0
#: bf16 has 8 bits of precision; the guidance multiplies its errors. Other noise or another prompt gives about 10 dB.
_LEAST_PSNR_BF16 = 20.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One compared pipeline.

    Args:
        branches: Rows of the network's batch: 3 under SLD, 2 without.
        reference: The peer whose picture this one's must equal; its own name for a reference.
        adapter: Module with ``build``; peers with the same adapter share a process and its weights.
        process: Set where a peer must not share it.
        environment: Folder in :data:`PEERS_FOLDER`, empty for this environment.
        follows: Computes in the task's precision; others have a precision of their own.
        bf16: Computes in bf16 whatever the task allows, and is skipped where the processor has none.
        least: dB from which its picture matches, where it is known better than by the precision.
    """

    name: str
    title: str
    branches: int
    reference: str
    adapter: str
    process: str = ""
    environment: str = ""
    follows: bool = False
    bf16: bool = False
    least: float | None = None

    def least_psnr(self, precision: str) -> float:
        """From how many dB on its picture matches the reference's, which is fp32, in a task of this precision."""
        if self.least is not None:
            return self.least
        low = self.bf16 or (self.follows and precision != "fp32")
        return _LEAST_PSNR_BF16 if low else _LEAST_PSNR


_SAFE, _PLAIN = "safe-eager", "plain-eager"

PEERS: tuple[Peer, ...] = (
    Peer(name="ours", title="sld-edge", branches=3, reference=_SAFE, adapter="ours", follows=True),
    Peer(name="ours-off", title="sld-edge, safety off", branches=2, reference=_PLAIN, adapter="ours",
         process="off", follows=True),
    Peer(name=_SAFE, title="diffusers Safe, eager", branches=3, reference=_SAFE, adapter="torch_safe"),
    Peer(name=_PLAIN, title="diffusers plain, eager", branches=2, reference=_PLAIN,
         adapter="torch_safe"),
    Peer(name="safe-openvino", title="diffusers Safe, OpenVINO three-row UNet", branches=3,
         reference=_SAFE, adapter="torch_safe", process="openvino", follows=True),
    Peer(name="safe-compiled", title="diffusers Safe, torch.compile", branches=3, reference=_SAFE,
         adapter="torch_safe", process="compiled"),
    Peer(name="safe-bf16", title="diffusers Safe, eager bf16", branches=3, reference=_SAFE,
         adapter="torch_safe", process="bf16", bf16=True),
    Peer(name="optimum-onnx", title="Optimum ONNX Runtime", branches=2, reference=_PLAIN,
         adapter="optimum", environment="optimum"),
    Peer(name="optimum-openvino", title="Optimum Intel, OpenVINO", branches=2, reference=_PLAIN,
         adapter="optimum", environment="openvino", follows=True),
)  # fmt: skip
BY_NAME = {peer.name: peer for peer in PEERS}


def command_for(peer: Peer, *, peers_folder: Path) -> list[str]:
    """The start of the worker's command line.

    Raises:
        Unavailable: its environment is not there.
    """
    worker = "sld_edge.bench.compare.worker"
    adapter = f"{_ADAPTERS}.{peer.adapter}"
    if not peer.environment:
        return [sys.executable, "-m", worker, adapter]
    folder = "Scripts" if os.name == "nt" else "bin"
    python = peers_folder / peer.environment / folder / "python"
    if not python.exists():
        raise Unavailable(f"not installed in {python.parent.parent} (run: make peers)")
    return [str(python.absolute()), "-m", worker, adapter]


def process_of(peer: Peer) -> str:
    """Peers with the same answer share a worker."""
    if peer.environment:
        return f"{peer.adapter}-in-{peer.environment}"
    return f"{peer.adapter}-{peer.process}" if peer.process else peer.adapter
