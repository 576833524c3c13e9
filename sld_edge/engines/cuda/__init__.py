"""CUDA through cuda-bindings: memory, one stream, captured graphs. Nothing is imported before a device is opened."""
