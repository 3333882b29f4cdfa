"""One row of `peers.py`: a detector of andon, in a process of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from peers_row import SIDE, arguments, p50, peak_mib, pictures, seconds, versions, write

import andon
from andon import Detector, Record


def records(folder: Path, part: str) -> list[Record]:
    """Pictures of one part as records."""
    label = int(part.endswith("defective"))
    return [Record(path, path.stem, label=label) for path in pictures(folder, part)]


def features_of(detector: Detector) -> dict[str, float]:
    """Mean of each tap for a fixed picture: equal where weights and normalisation are."""
    ramp = torch.linspace(0, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        return {tap: float(x.mean()) for tap, x in detector.extractor(ramp).items()}


def main() -> None:
    """Fit, time, answer for the test pictures."""
    options = arguments(__doc__)
    torch.set_num_threads(options.threads)
    settings = {"coreset": options.coreset} if options.detector == "patchcore" else {}
    detector = andon.create(options.detector, "starter", **settings)
    digest = hashlib.sha256(options.weights.read_bytes()).hexdigest()
    assert digest == detector.extractor.weights.sha256, "not the file that andon has embedded"
    train, held_out = records(options.folder, "train/good"), records(options.folder, "validation/good")
    facts = {"fit_s": seconds(lambda: detector.fit(train, held_out)), "peak_fit_mib": peak_mib()}
    test = [*records(options.folder, "test/good"), *records(options.folder, "test/defective")]
    with torch.inference_mode():
        facts["forward_ms"] = p50(detector, [torch.rand(1, 3, SIDE, SIDE)], options.rounds)
    facts["file_ms"] = p50(detector.predict, [record.image for record in test[:20]], options.rounds)
    answers = [
        (record.image, found.raw_score, found.raw_map)
        for record, found in zip(test, detector.scan(test), strict=True)
    ]
    facts |= {"peak_mib": peak_mib(), "versions": versions("andon", "torch", "timm")}
    if options.detector != "east":  # its extractor looks at a larger, mirrored picture
        facts["features"] = features_of(detector)
    more = {"channels": detector.channels_.numpy()} if options.detector == "padim" else {}
    write(options.out, facts, answers, **more)


if __name__ == "__main__":
    main()
