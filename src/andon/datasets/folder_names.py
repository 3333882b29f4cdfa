"""What names of folders mean, in any case (docs/reference/data.md, "Own folders")."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GOOD = frozenset({"good", "ok", "normal", "nominal", "no_defect", "negative", "0"})
BAD = frozenset(
    {"defect", "defects", "defective", "bad", "ko", "ng", "anomaly", "anomalous", "abnormal", "faulty", "1"}
)
TRAIN = frozenset({"train", "training"})
VALIDATION = frozenset({"validation", "valid", "val"})
TEST = frozenset({"test", "testing"})
MASKS = frozenset({"ground_truth", "masks", "gt"})
RESERVED = TRAIN | VALIDATION | TEST | MASKS
"""Never the name of a category or defect type."""
MASK_SUFFIXES = ("_mask", "_gt", "_label", "")
"""Suffixes that the stem of a mask may have after the stem of its image; earlier ones take precedence."""


def _plain(text: str) -> str:
    """In lower case, without accents."""
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in parts if not unicodedata.combining(char))


def _set(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


GUESSED_GOOD = _set(
    "okay okey pass passed accept accepted conform conforming conformant golden correct nominals normals healthy io iio "
    "gut gute guter gutes gutteil gutteile bon bons bonne bonnes conforme conformes bueno buenos buena buenas buono buoni bom "
    "bons boas goed goede dobry dobre 合格 合格品 良品 良 正常 양품 정상"
)
"""Further words for good parts."""
GUESSED_BAD = _set(
    "nok niok nio nogood fail failed fails failure failures reject rejected rejects fault faults "
    "anomalies nonconforming unacceptable positive "
    "schlecht schlechte schlechter schlechtes schlechtteil schlechtteile fehler fehlerhaft defekt defekte ausschuss "
    "mauvais mauvaise mauvaises defaut defauts defectueux rebut rebuts malo malos mala malas defecto defectos defectuoso "
    "cattivo cattivi difetto difetti difettoso scarto scarti ruim ruins defeito defeitos slecht slechte zly "
    "不良 不良品 不合格 不合格品 缺陷 异常 異常 불량 불량품"
)
"""Further words for anomalous parts."""
FILLERS = _set(
    "image images img imgs picture pictures pic pics photo photos foto fotos bild bilder part parts piece pieces item items "
    "sample samples product products teil teile stueck stucke muster pieces piezas pezzi class class_ data set the all only"
)
"""Words beside them that say nothing."""
NEGATIONS = _set("no not non nicht kein keine ohne without sans sin senza zero")
FREE = _set("free frei less")


def meaning(name: str) -> Literal["good", "bad"] | None:
    """What a folder or label of this name holds; None where the name does not say.

    >>> meaning("Good parts"), meaning("not_ok"), meaning("scratch")
    ('good', 'bad', None)
    """
    if name.lower() in GOOD | BAD:
        return "good" if name.lower() in GOOD else "bad"
    separate = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # GoodParts
    words = [word for word in re.split(r"[\s_.\-]+", _plain(separate)) if word]
    return _of_words([word for word in words if word not in FILLERS and not word.isdigit()])


def _of_words(words: list[str]) -> Literal["good", "bad"] | None:
    joined = "".join(words)
    if joined in GOOD | GUESSED_GOOD:
        return "good"
    if joined in BAD | GUESSED_BAD:
        return "bad"
    if len(words) > 1 and words[0] in NEGATIONS:
        return {"good": "bad", "bad": "good", None: None}[_of_words(words[1:])]
    if words and words[-1] in FREE and _of_words(words[:-1]) == "bad":
        return "good"
    ends = [end for end in FREE if joined.endswith(end) and _of_words([joined.removesuffix(end)]) == "bad"]
    return "good" if ends else None


@dataclass(frozen=True, slots=True)
class FolderNames:
    """What names of folders mean: as told, otherwise as `meaning` guesses."""

    good: tuple[str, ...] = ()
    """Names of folders of good images; of a path its last part counts."""
    bad: tuple[str, ...] = ()
    """Names of folders of anomalous images."""

    def is_good(self, name: str) -> bool:
        """Whether a folder of this name holds good images."""
        return self._told(name, self.good) or (not self._told(name, self.bad) and meaning(name) == "good")

    def is_bad(self, name: str) -> bool:
        """Whether a folder of this name holds anomalous images."""
        return self._told(name, self.bad) or (not self._told(name, self.good) and meaning(name) == "bad")

    def goods(self, folders: Iterable[Path]) -> list[Path]:
        """Those of the folders that hold good images."""
        return [folder for folder in folders if self.is_good(folder.name)]

    def is_guess(self, name: str) -> bool:
        """Whether the meaning is neither told nor that of a documented name."""
        return name.lower() not in GOOD | BAD and not self._told(name, (*self.good, *self.bad))

    def unknown(self, present: Iterable[str]) -> list[str]:
        """Told names that none of the `present` folders has."""
        there = {name.lower() for name in present}
        return [name for name in (*self.good, *self.bad) if _last(name) not in there]

    @staticmethod
    def _told(name: str, told: Iterable[str]) -> bool:
        return any(_last(each) == name.lower() for each in told)


def _last(name: str) -> str:
    return Path(name).name.lower()
