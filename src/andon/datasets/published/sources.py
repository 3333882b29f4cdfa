"""Published data sets: page, licence, citation, archive.

Publishers change direct links, so the page is always shown too. Where the size and hash of an archive are not known, only
the numbers of images can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from andon.core.errors import DataError, nearest
from andon.datasets.published.counts import BTAD, MPDD, MTD, MVTEC_AD, MVTEC_AD_2, MVTEC_LOCO, VISA, Counts

BY_NC_SA = "CC BY-NC-SA 4.0 (no commercial use)"


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """One published data set."""

    name: str
    """Name for `andon data fetch`."""
    title: str
    page: str
    """Page of the publisher with description, licence and current link."""
    licence: str
    cite: str
    archive: str = ""
    """File name of the archive; empty where there are several."""
    links: tuple[str, ...] = ()
    """Direct links to the archive; they may be outdated."""
    size: int = 0
    """Size of the archive in bytes, 0 where unknown."""
    sha256: str = ""
    enclosing: str = ""
    """Glob pattern of the top folder of the archive, whose content becomes the data set folder."""
    how: str = ""
    """Instructions where there is no direct link."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Numbers of images by category; empty where unknown."""

    @property
    def images(self) -> int:
        """Total number of images, 0 where unknown."""
        return sum(counts.total for counts in self.counts.values())


_SETS = (
    PublishedSet(
        "mvtec_ad",
        "MVTec AD",
        "https://www.mvtec.com/research-teaching/datasets/mvtec-ad",
        BY_NC_SA,
        "Bergmann et al., CVPR 2019",
        "mvtec_anomaly_detection.tar.xz",
        (
            "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/"
            "420938113-1629952094/mvtec_anomaly_detection.tar.xz",
            "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
            "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        ),
        5_264_982_680,
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        counts=MVTEC_AD,
    ),
    PublishedSet(
        "mvtec_loco",
        "MVTec LOCO AD",
        "https://www.mvtec.com/research-teaching/datasets/mvtec-loco-ad",
        BY_NC_SA,
        "Bergmann et al., IJCV 130, 2022",
        "mvtec_loco_anomaly_detection.tar.xz",
        (
            "https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
            "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
        ),
        6_126_996_224,
        "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        counts={category: accepted[0] for category, accepted in MVTEC_LOCO.items()},
    ),
    PublishedSet(
        "mvtec_ad_2",
        "MVTec AD 2",
        "https://www.mvtec.com/research-teaching/datasets/mvtec-ad-2",
        BY_NC_SA,
        "Heckler-Kram et al., arXiv 2503.21622",
        "mvtec_ad_2.tar.gz",
        (
            "https://www.mydrive.ch/shares/150997/701c90d3aea6588f404936e32a674602/download/"
            "466712769-1743429042/mvtec_ad_2.tar.gz",
        ),
        32_739_596_982,
        "c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
        enclosing="mvtec_ad_2",
        counts=MVTEC_AD_2,
    ),
    PublishedSet(
        "visa",
        "VisA",
        "https://github.com/amazon-science/spot-diff",
        "CC BY 4.0",
        "Zou et al., ECCV 2022",
        "VisA_20220922.tar",
        ("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",),
        1_929_840_640,
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        counts=VISA,
    ),
    PublishedSet(
        "btad",
        "BTAD",
        "https://github.com/pankajmishra000/VT-ADL",
        "not stated with the archive; CC BY-NC-SA 4.0 according to others: no commercial use",
        "Mishra et al., ISIE 2021",
        "btad.zip",
        (
            "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            "http://avires.dimi.uniud.it/papers/btad/btad.zip",
        ),
        1_229_193_337,
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        enclosing="BTech_Dataset_transformed",
        counts=BTAD,
    ),
    PublishedSet(
        "mpdd",
        "MPDD",
        "https://github.com/stepanje/MPDD",
        BY_NC_SA,
        "Jezek et al., ICUMT 2021",
        "MPDD.zip",
        size=1_825_041_283,
        sha256="69f8da73eea4a31451a50251e5c261e83e0c53f2d1a39a7d4dfc78b5c434ddd6",
        enclosing="MPDD*",
        how="the authors' server may ask for a log-in: download it in a browser",
        counts=MPDD,
    ),
    PublishedSet(
        "mtd",
        "MTD (magnetic tiles)",
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "none stated: for research, with citation",
        "Huang et al., The Visual Computer 36, 2020",
        "Magnetic-tile-defect-datasets.zip",
        ("https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/master.zip",),
        enclosing="Magnetic-tile-defect-datasets.*",
        counts={"tiles": MTD},
    ),
    PublishedSet(
        "real_iad",
        "Real-IAD",
        "https://huggingface.co/datasets/REAL-IAD/Real-IAD",
        BY_NC_SA,
        "Wang et al., CVPR 2024",
        how="access is granted to an account, one archive a category: unpack realiad_1024 and realiad_jsons side by side, "
        "then use their folder as it is",
    ),
    PublishedSet(
        "autovi",
        "AutoVI",
        "https://zenodo.org/records/10459003",
        BY_NC_SA,
        "Carvalho et al., 2024",
        how="one archive a category: unpack them side by side, then use their folder as it is",
    ),
)


def published_sets() -> dict[str, PublishedSet]:
    """All published sets by name."""
    return {one.name: one for one in _SETS}


def published_set(name: str) -> PublishedSet:
    """The published set `name`. Raises `DataError` with a suggestion for unknown names."""
    sets = published_sets()
    if name not in sets:
        raise DataError(f"unknown data set {name!r}; {nearest(name, sets)}")
    return sets[name]
