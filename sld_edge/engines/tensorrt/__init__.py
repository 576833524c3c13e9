"""TensorRT and TensorRT-RTX: one builder for both libraries, and what their engines turned out to be."""
