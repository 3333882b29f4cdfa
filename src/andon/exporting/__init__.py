"""From a detector to files that run elsewhere: ONNX and OpenVINO networks, 8 bits, packed files; latency."""
