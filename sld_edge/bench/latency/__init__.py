"""``sld-bench latency``: how long an image takes, stage by stage, and how sure that is."""
