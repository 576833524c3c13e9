"""The same job on a Ray cluster: actors with a pipeline each, one writer.

An actor gets a chunk of the fixed list and returns pictures and records; the folder, with its lock and its
order of writing, stays with the process that was started. So a run on a cluster can be killed and go on in one
process, or the other way round. Every actor must see the bundle and the scorers' files under the same paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sld_edge.bench.originals import Picture
from sld_edge.bench.safety.job import Chunk, Job
from sld_edge.bench.safety.run import Progress, make, missing
from sld_edge.bench.safety.scorers import Scorer, scorer_from
from sld_edge.bench.safety.store import Record, Store
from sld_edge.errors import EngineError, InvalidInput, MissingDependency, SldError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where and how many. Without an address Ray starts on this machine.

    Args:
        workers: Actors; 0 makes as many as the cluster has places for.
        cpus, gpus: What one actor asks the cluster for.
        threads: CPU threads of one actor's engine; 0 uses as many as it asked CPUs for.
    """

    address: str = ""
    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    threads: int = 0


class Worker:
    """One pipeline and its scorers; lives in an actor."""

    def __init__(self, bundle: str, job: bytes, scorers: list[str], threads: int) -> None:
        from sld_edge.bench.safety.unproven import pipeline_to_measure

        self._job = msgspec.json.decode(job, type=Job)
        self._scorers: list[Scorer] = [scorer_from(name) for name in scorers]
        if tuple(scorer.identity for scorer in self._scorers) != self._job.scorers:
            raise InvalidInput("a worker's scorers are not those of the job", value=scorers)
        self._pipe = pipeline_to_measure(
            bundle,
            self._job.engine or None,
            compute_precision=self._job.precision,  # type: ignore[arg-type] # checked at the door
            threads=threads,
            digest=self._job.bundle,
        )

    def make(self, chunk: bytes) -> tuple[list[Picture], list[Record]]:
        """Make and judge one chunk."""
        return make(self._job, msgspec.json.decode(chunk, type=Chunk), self._pipe, self._scorers)


def run_on_ray(
    job: Job,
    store: Store,
    bundle: Path,
    scorers: list[str],
    cluster: Cluster,
    progress: Progress,
) -> None:
    """Make what is missing, on a cluster.

    Raises:
        MissingDependency: Ray is not installed.
        EngineError: the cluster has no room for a worker, or a worker failed.
    """
    ray = require_ray()
    todo = list(missing(job, store))
    if not todo:
        return
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=cluster.address or None,
            log_to_driver=False,
            include_dashboard=False if not cluster.address else None,
        )
    try:
        _drive(ray, job, store, bundle, scorers, cluster, progress, todo)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SldError):
            raise error.cause from None
        raise EngineError(f"a Ray worker failed ({error.cause})") from None
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"the Ray cluster failed ({str(error).splitlines()[0]})",
            hint="run the same command again, it goes on from here",
        ) from None
    finally:
        if ours:
            ray.shutdown()


def _drive(
    ray: Any,
    job: Job,
    store: Store,
    bundle: Path,
    scorers: list[str],
    cluster: Cluster,
    progress: Progress,
    todo: list[Chunk],
) -> None:
    from ray.util import ActorPool

    count = min(cluster.workers or _places(ray, cluster), len(todo))
    actor = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus)(Worker)
    encoded = msgspec.json.encode(job)
    threads = cluster.threads or max(1, int(cluster.cpus))
    pool = ActorPool(
        [actor.remote(str(bundle.resolve()), encoded, scorers, threads) for _ in range(count)]
    )
    for pictures, records in pool.map_unordered(
        lambda worker, chunk: worker.make.remote(msgspec.json.encode(chunk)), todo
    ):
        before = len(store.records)
        store.add(pictures, records)
        progress(len(store.records) - before)


def _places(ray: Any, cluster: Cluster) -> int:
    has = ray.cluster_resources()
    rooms = [
        int(has.get(name, 0.0) / need)
        for name, need in (("CPU", cluster.cpus), ("GPU", cluster.gpus))
        if need > 0
    ]
    count = min(rooms, default=1)
    if count < 1:
        raise EngineError(
            "the Ray cluster has no room for one worker",
            value=f"{cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs",
            hint="ask for less with --ray-cpus and --ray-gpus",
        )
    return count


def require_ray() -> Any:
    """Ray, or a line that says how to install it."""
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            f"--ray needs Ray ({error})", hint="pip install 'sld-edge[ray]'"
        ) from None
    return ray
