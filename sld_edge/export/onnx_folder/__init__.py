"""A folder of ONNX models, as Optimum and diffusers export them, becomes a bundle; needs no torch."""
