"""``sld-bench startup``: how long a user waits before anything of theirs runs."""
