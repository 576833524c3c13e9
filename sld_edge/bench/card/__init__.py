"""``sld-bench card``: all that a machine with a GPU can tell in ten minutes, with one command."""
