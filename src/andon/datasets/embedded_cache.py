"""Data sets named `embedded:NAME`: drawn ones, generated on first use and kept in the cache, and photographs of the package."""

from __future__ import annotations

import re
import tempfile
from importlib import resources
from pathlib import Path

from andon.core.errors import DataError, OutputError, nearest
from andon.core.paths import cache_dir

PREFIX = "embedded:"
COOKIES = "cookies"
"""Photographs of whole and cracked cookies; origin and licence in `andon/assets/cookies/LICENSE.md`."""

COOKIES_LICENCE = "photographs by Amazon Web Services (data set cookies of amazon-lookout-for-vision), CC BY-SA 4.0; reduced"
DRAWN_LICENCE = "drawn by andon, Apache-2.0"


def licence_of(name: str) -> str:
    """Origin and licence of an embedded category."""
    return COOKIES_LICENCE if name == COOKIES else DRAWN_LICENCE


def embedded_sets() -> dict[str, str]:
    """{`embedded:NAME`: origin and licence} of all embedded sets."""
    from andon.datasets.embedded import CATEGORIES
    from andon.datasets.embedded.dimples import NAME as DIMPLES

    return {PREFIX + name: licence_of(name) for name in (COOKIES, *CATEGORIES, DIMPLES)}


def category_of(text: str, category: str | None = None) -> str:
    """Category of `embedded:NAME`, or `category` for a bare `embedded:`. Raises `DataError` for unknown names."""
    from andon.datasets.embedded import CATEGORIES
    from andon.datasets.embedded.dimples import NAME as DIMPLES

    known_names = (COOKIES, *CATEGORIES, DIMPLES)
    name, _ = _parse(text)
    if name and category and name != category:
        raise DataError(f"{text} is the one category {name!r}, not {category!r}: leave one of them out")
    chosen = name or category
    if not chosen:
        raise DataError(f"choose an embedded data set: {', '.join(PREFIX + known for known in known_names)}")
    if chosen not in known_names:
        raise DataError(f"unknown embedded data set {chosen!r}; {nearest(chosen, known_names)}")
    return chosen


def generated_categories(text: str) -> list[str]:
    """The category of `embedded:NAME`; for a bare `embedded:` all drawn ones but `dimples`, which has point clouds."""
    from andon.datasets.embedded import CATEGORIES

    return [category_of(text)] if _parse(text)[0] else list(CATEGORIES)


def generated_folder(text: str, category: str | None = None) -> Path:
    """Folder of one category, generated on first use.

    `text` is `embedded:NAME`, optionally followed by `profile` (default small), `size` (height in pixels, default 256) and
    `seed` (default 0): `embedded:fabric,profile=tiny,size=128`. Raises `DataError` for other settings.
    """
    from andon.datasets.embedded import PROFILES, VERSION

    name = category_of(text, category)
    settings = _parse(text)[1]
    if name == COOKIES:
        if settings:
            raise DataError(
                f"{text}: cookies are photographs, {', '.join(settings)} cannot be set: leave it out"
            )
        return Path(str(resources.files("andon").joinpath("assets/cookies")))
    profile = settings.get("profile", "small")
    if profile not in PROFILES:
        raise DataError(f"{text}: unknown profile {profile!r}; {nearest(profile, PROFILES)}")
    size, seed = (
        _whole_number(text, key, settings.get(key, default))
        for key, default in (("size", "256"), ("seed", "0"))
    )
    kept = cache_dir() / "embedded" / f"v{VERSION}-{profile}-{size}-{seed}" / name
    if not kept.is_dir():
        _generate(kept, name, profile, size, seed)
    return _category_folder(kept, name)


def _generate(kept: Path, name: str, profile: str, size: int, seed: int) -> None:
    """Generate into a folder of its own and rename it to `kept`, so that `kept` is always complete; the first one stays."""
    from andon.datasets.embedded import dimples, generate

    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=kept.parent) as beside:
            part = Path(beside) / name
            part.mkdir()
            if name == dimples.NAME:
                dimples.generate(part, profile=profile, size=size, seed=seed)
            else:
                generate(part, profile=profile, size=size, seed=seed, categories=[name])
            part.rename(kept)
    except (OSError, OutputError) as error:
        if not kept.is_dir():  # no other thread or process generated it meanwhile
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(
                f"{kept} cannot be written ({reason}): free some space, or set ANDON_HOME to another folder"
            ) from error


def _category_folder(kept: Path, name: str) -> Path:
    for folder in (kept / top / name for top in ("embedded_ad", "embedded_loco", "embedded_3d")):
        if folder.is_dir():
            return folder
    raise DataError(f"{kept} is incomplete: delete it, then it is generated again")


def _parse(text: str) -> tuple[str, dict[str, str]]:
    name, *settings = re.split(r"[,?&]", text.removeprefix(PREFIX))
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in {"profile", "size", "seed"}:
            raise DataError(
                f"{text}: {setting!r} is no setting, write e.g. {PREFIX}fabric,profile=tiny,size=128,seed=0"
            )
        values[key] = value
    return name.strip(), values


def _whole_number(text: str, key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value):
        raise DataError(f"{text}: {key} is {value!r}, must be a whole number")
    return int(value)
