"""A graph → something that runs. One folder for each backend, one :class:`~sld_edge.engines.base.Engine`."""
