"""``sld-bench gpu-check``: what this machine's card computes, against the CPU."""
