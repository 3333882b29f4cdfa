"""Score pictures with an exported network, using onnxruntime, NumPy and Pillow alone.

python examples/onnx_only.py model.onnx picture.png...

Prints for each picture the verdict, the displayed score (1 is the threshold) and the share of marked pixels. The verdict is by
the thresholds as they were at the export: OK, look (a person decides), NG, or ERROR, where a value is NaN or infinite.
Whatever is not OK must not pass.

Pictures are read as andon reads them: turned by EXIF, transparent pixels on black. Those of more than 8 bits, animations and
what is smaller than 8 x 8 pixels are refused. Exit code 2 where a picture has no verdict.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

VERDICTS = ("OK", "look", "NG", "ERROR")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read(picture):
    """(H, W, 3) uint8."""
    with Image.open(picture, formats=FORMATS) as image:
        image.verify()  # checksums of a PNG
    with Image.open(picture, formats=FORMATS) as image:
        stored = str(image.tile[0][3]) if image.tile else ""
        if min(image.size) < 8:
            raise ValueError("smaller than 8 x 8 pixels")
        if image.mode.startswith("I") or image.mode == "F" or ";16" in stored:
            raise ValueError("more than 8 bits a value, of which the network takes 8")
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("several pictures in one file")
        image = ImageOps.exif_transpose(image)
    if image.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or (
        image.mode == "P" and "transparency" in image.info
    ):
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def main(*arguments):
    if len(arguments) < 2:
        print("usage: python onnx_only.py model.onnx picture.png...", file=sys.stderr)
        return 2
    network, *pictures = arguments
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    errors = 0
    for picture in pictures:
        try:
            images = read(picture)[None]  # (1, H, W, 3), any size
        except UNREADABLE as error:
            print(f"onnx_only.py: {picture}: {error}", file=sys.stderr)
            errors += 1  # no verdict: the part must not pass
            continue
        score, anomaly_map, verdict = session.run(["score", "anomaly_map", "verdict"], {"images": images})
        said = VERDICTS[verdict[0]]
        errors += said == "ERROR"
        print(f"{said} {score[0]:.6f} {float((anomaly_map[0] >= 1).mean()):.4f} {picture}")
    return 2 if errors else 0  # ERROR: no verdict, the part must not pass


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
