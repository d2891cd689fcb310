"""Bundles for other people's servers: one ONNX file, Triton, DeepStream, trtexec."""
