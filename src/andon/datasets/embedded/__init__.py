"""The embedded data sets: synthetic images with exact masks (docs/reference/data.md, "Embedded sets").

    from andon.datasets.embedded import generate
    generate("data", profile="tiny", size=128)

`render` draws a single image together with its defect-free twin.
"""

from __future__ import annotations

from andon.datasets.embedded.generation import CATEGORIES, PROFILES, VERSION, Profile, generate, render
from andon.datasets.embedded.rendering import Photometry, Rendered

__all__ = ["CATEGORIES", "PROFILES", "VERSION", "Photometry", "Profile", "Rendered", "generate", "render"]
