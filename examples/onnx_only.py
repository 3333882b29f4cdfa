"""Score pictures with an exported network, using onnxruntime, NumPy and Pillow alone.

python examples/onnx_only.py model.onnx picture.png...
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

network, *pictures = sys.argv[1:]
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
errors = 0
for picture in pictures:
    images = np.asarray(Image.open(picture).convert("RGB"))[None]  # (1, H, W, 3) uint8, any size
    raw_score, score, anomaly_map = session.run(["raw_score", "score", "anomaly_map"], {"images": images})
    finite = np.isfinite(score).all() and np.isfinite(anomaly_map).all()
    verdict = ("NG" if score[0] >= 1 else "OK") if finite else "ERROR"
    errors += not finite
    print(f"{verdict} {score[0]:.6f} {float((anomaly_map[0] >= 1).mean()):.4f} {picture}")
sys.exit(2 if errors else 0)  # ERROR: no verdict, the part must not pass
