"""Exported detectors: images in, verdicts out, without PyTorch.

    model = andon.runtime.open_model("part.onnx")
    prediction = model.predict("photos/0001.png")        # the same score and verdict as the detector's

Needs NumPy, SciPy, Pillow and ONNX Runtime or OpenVINO.
"""

from andon.runtime.model import Model, open_model
from andon.runtime.runtimes import RUNTIMES, Session

__all__ = ["RUNTIMES", "Model", "Session", "open_model"]
