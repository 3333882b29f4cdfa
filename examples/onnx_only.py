"""Score pictures with an exported network, using onnxruntime, NumPy and Pillow alone.

python examples/onnx_only.py model.onnx picture.png...
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

network, *pictures = sys.argv[1:]
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
for picture in pictures:
    images = np.asarray(Image.open(picture).convert("RGB"))[None]  # (1, H, W, 3) uint8, any size
    raw_score, score, anomaly_map = session.run(["raw_score", "score", "anomaly_map"], {"images": images})
    verdict = "NG" if score[0] >= 1 else "OK"
    print(f"{verdict} {score[0]:.6f} {float((anomaly_map[0] >= 1).mean()):.4f} {picture}")
