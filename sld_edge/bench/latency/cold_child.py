"""The fresh process of a cold start: ``python -m sld_edge.bench.latency.cold_child BUNDLE CASE KIND STARTED``.

``STARTED`` is the parent's ``time.monotonic()`` just before it started this process; the clock is the
system's. Imports are inside the function so that the interpreter's own start can be told apart from ours.
"""

from __future__ import annotations

import sys
import time

ENTERED = time.monotonic()


def main(bundle: str, case_json: str, kind: str, started: float) -> None:
    """Import, open, verify, load and make one image; print what each took as JSON."""
    import msgspec

    from sld_edge.bench.latency.case import Case
    from sld_edge.bench.latency.clock import StageClock
    from sld_edge.bench.latency.report import ColdStart
    from sld_edge.bench.memory import peak_bytes, resident_parts
    from sld_edge.runtime.pipeline import SafePipeline

    imported = time.monotonic()
    case = msgspec.json.decode(case_json, type=Case)
    # Spans are on perf_counter; both clocks tick alike, only their zeros differ.
    offset = time.monotonic() - time.perf_counter()
    clock = StageClock()
    with SafePipeline.from_pretrained(bundle, case.engine, observer=clock, **case.opening) as pipe:
        loaded, loaded_bytes, loaded_peak = time.monotonic(), resident_parts(), peak_bytes()
        pipe(**case.call(0))
        done = time.monotonic()
    # Where a device runs the whole loop as one, the loop's begin and end are all that is seen of its steps.
    loops = [span for span in clock.spans if span.name == "denoise"]
    calls = [span.start for span in clock.spans if span.name == "graph:unet"]
    ends = [span.end for span in clock.spans if span.name in ("graph:advance", "denoise")]
    result = ColdStart(
        kind=kind,
        interpreter=ENTERED - started,
        imported=imported - started,
        # With low memory the first engine is loaded by the call, after all that opening does.
        verified=min((clock.first_engine or 0.0) + offset, loaded) - started,
        loaded=loaded - started,
        to_first_step=(min(calls) if calls else loops[0].start) + offset - started,
        first_step=min(ends) + offset - started,
        first_image=done - started,
        peak_bytes=peak_bytes(),
        peak_bytes_loading=loaded_peak,
        loaded_bytes=loaded_bytes,
    )
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
