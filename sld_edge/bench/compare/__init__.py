"""``sld-bench compare``: the same picture through this runtime and through its peers, interleaved in one run."""
