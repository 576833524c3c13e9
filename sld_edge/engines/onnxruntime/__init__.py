"""ONNX Runtime: the embedded default, on whichever execution provider is best on this machine."""
