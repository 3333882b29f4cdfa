"""One row of `peers.py`: a detector of andon, in a process of its own."""

from __future__ import annotations

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
    """Mean of each tap, or of the teacher's outputs, for a fixed picture: equal where weights and normalisation are."""
    ramp = torch.linspace(0, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        if detector.name == "efficientad":
            return {"teacher": float(detector.teacher(detector._normalise(ramp)).mean())}
        return {tap: float(x.mean()) for tap, x in detector.extractor(ramp).items()}


def main() -> None:
    """Fit, time, answer for the test pictures."""
    options = arguments(__doc__)
    torch.set_num_threads(options.threads)
    given = options.settings
    detector = andon.create(given["detector"], given["recipe"], **given["set"])
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
    if given["compared"]:
        facts["features"] = features_of(detector)
    facts["weights"] = [f"{line['name']} ({line['licence']})" for line in detector.used_weights]
    more = {"channels": detector.channels_.numpy()} if detector.name == "padim" else {}
    write(options.out, facts, answers, **more)


if __name__ == "__main__":
    main()
