"""One module for each runtime that is compared; each has ``build(task, peer)``."""
