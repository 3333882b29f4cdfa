"""What pip writes for a package that registers detectors."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, entry_points: dict[str, str], name: str = "cell-gaussian") -> None:
    """Register the modules of `folder`, which is on the search path, as the package `name`."""
    info = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[andon.detectors]", *lines]) + "\n")
