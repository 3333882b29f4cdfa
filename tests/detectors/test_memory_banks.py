"""PaDiM, PatchCore and SPADE beyond what every detector promises (I-27, I-29, I-32, I-33)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import texture, write_picture
from tiny import TINY
from torch.nn import functional as F

import andon
from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.detectors._base import Detector
from andon.detectors._recipes import load_recipe, recipe_names
from andon.detectors._registry import detector_class
from andon.layers.coreset import greedy_centres
from andon.nn.training import Trainer, seeded

BANKS = ("padim", "patchcore", "spade")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root = tmp_path_factory.mktemp("banks")
    return [Record(image=write_picture(root / f"{k}.png", texture(k)), id=str(k)) for k in range(6)]


def create(name: str, **settings: object) -> Detector:
    cls = detector_class(name)
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return cls(cls.Config().updated(TINY[name] | changes))


LEARNED: dict[str, Detector] = {}


def learn(name: str, train: list[Record], **settings: object) -> Detector:
    """A detector that has learned; each combination once."""
    key = f"{name} {settings}"
    if key not in LEARNED:
        LEARNED[key] = create(name, **settings)
        LEARNED[key].learn(train, [], Trainer(seed=3, device="cpu"))
    return LEARNED[key]


def answering(detector: Detector, **settings: object) -> Detector:
    """The same learned state under other settings of the answer."""
    twin = copy.copy(detector)
    twin.config = detector.config.updated(settings)
    return twin


def pictures(train: list[Record]) -> torch.Tensor:
    return torch.stack(
        [andon.core.images.apply_view(andon.core.images.decode(r.image).pixels, (64, 64)) for r in train]
    )


def ask(detector: Detector, images: torch.Tensor):
    with torch.inference_mode():
        return detector.analyse(images)


# All three ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BANKS)
def test_the_centre_is_analysed_and_the_map_covers_the_whole_image(train, name):
    detector = create(name, resize=80).fit(train)
    assert detector.input_size == (80, 80)
    images = torch.rand(2, 3, 80, 80)
    found = ask(detector, images)
    assert found.anomaly_map.shape == (2, 1, 80, 80)
    border = images.clone()
    border[:, :, :8] = border[:, :, -8:] = border[..., :8] = border[..., -8:] = 0
    assert torch.equal(ask(detector, border).score, found.score)
    for whole in found.anomaly_map[:, 0].numpy():
        inner = whole[8:-8, 8:-8]
        assert np.array_equal(whole, np.pad(inner, 8, constant_values=inner.min()))
    assert detector.predict(train[0].image).raw_map.shape == (64, 64)


@pytest.mark.parametrize("name", BANKS)
def test_too_much_memory_is_refused_before_any_picture_is_opened(name):
    missing = [Record(image=Path(f"absent/{k}.png"), id=str(k)) for k in range(50)]
    with pytest.raises(
        ConfigError, match=r"would take .* GiB, memory_gib=0.001 are allowed: .*or raise memory_gib"
    ):
        create(name, memory_gib=0.001).learn(missing, [], Trainer(device="cpu"))


@pytest.mark.parametrize("name", BANKS)
def test_unusable_settings_are_refused_in_one_line(name):
    for settings, said in (
        ({"extractor__taps": ["layer9"]}, "network resnet18 has no tap 'layer9'"),
        ({"resize": 32}, "resize=32 is smaller than the centre that is kept"),
        ({"smoothing": -1.0}, "setting smoothing=-1.0"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            create(name, **settings)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BANKS)
def test_recipes_are_complete_and_build_offline(name):
    recipes = [recipe for recipe in recipe_names() if recipe.startswith(f"{name}/")]
    assert f"{name}/starter" in recipes
    for recipe in map(load_recipe, recipes):
        cls = detector_class(name)
        config = cls.Config.parse(recipe.config)
        assert config.extractor.weights in {"starter", "lite0", f"{config.extractor.network}.tv_in1k"}
        assert len(recipe.summary) <= 140
    cls(cls.Config.parse(load_recipe(f"{name}/starter").config))


@pytest.mark.parametrize("name", BANKS)
def test_a_single_picture_is_learned_or_refused_clearly(train, name):
    with pytest.raises(DataError, match="1 good picture of 1 part cannot give cross-fitted thresholds"):
        create(name).fit(train[:1])
    alone = create(name, threshold_scores="held_out")
    if name == "padim":
        with pytest.raises(DataError, match="at least 2 training pictures for a covariance, there is 1"):
            alone.fit(train[:1])
        return
    assert alone.fit(train[:1], train[1:3]).predict(train[3].image).raw_score > 0


# PatchCore ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1.0, 0.1, 0.01])
def test_the_bank_is_a_part_of_the_patches(train, share):
    """I-27 and I-29."""
    detector = learn("patchcore", train, coreset=share)
    with torch.inference_mode():
        patches = torch.cat([detector.extract(x[None])[0] for x in pictures(train)])
    assert len(patches) == 6 * 16 * 16
    assert len(detector.bank_) == int(share * len(patches))
    found = andon.layers.neighbours.nearest(detector.bank_, patches)
    assert found.distance.max() < 1e-5
    assert len(set(found.index[:, 0].tolist())) == len(detector.bank_)
    if share == 1.0:  # patches that were learned are at distance 0
        assert ask(detector, pictures(train[:2])).anomaly_map.abs().max() < 1e-5


def test_the_coreset_is_selected_in_a_projection_and_kept_as_it_was(train):
    """Without a projection the selection is that among the patches themselves; with one the bank still holds whole patches."""
    plain, projected = (learn("patchcore", train, coreset=0.05, projection=d) for d in (10_000, 8))
    with torch.inference_mode():
        patches = torch.cat([plain.extract(x[None])[0] for x in pictures(train)])
    generator = seeded(3, "coreset")
    start = int(torch.randint(len(patches), (), generator=generator))
    chosen = greedy_centres(patches, len(plain.bank_), start)
    torch.testing.assert_close(plain.bank_, patches[chosen], rtol=1e-5, atol=1e-5)
    assert projected.bank_.shape == plain.bank_.shape
    found = andon.layers.neighbours.nearest(projected.bank_, patches)
    assert found.distance.max() < 1e-5
    assert not torch.equal(projected.bank_, plain.bank_)


@pytest.mark.parametrize("b", [2, 5, 9])
def test_the_weight_is_that_of_the_paper_and_within_its_bounds(train, b):
    """I-29."""
    detector = answering(learn("patchcore", train), reweight=b)
    plain = answering(detector, reweight=1)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weighed, unweighed = ask(detector, images), ask(plain, images)
    assert torch.equal(unweighed.score, weighed.extras["patch_max"])
    weight = weighed.score / unweighed.score
    assert ((weight >= 1 - 1 / b - 1e-6) & (weight < 1)).all()
    bank = detector.bank_.double()
    for k in range(3):  # Eq. 6 and 7, literally
        patches = detector.extract(images[k : k + 1])[0].double()
        distances = (patches[:, None] - bank[None]).norm(dim=2)
        q = int(distances.min(1).values.argmax())
        m = int(distances[q].argmin())
        around = (bank - bank[m]).norm(dim=1).argsort()[:b]
        expected = 1 - distances[q, m].exp() / distances[q, around].exp().sum()
        assert float(weight[k]) == pytest.approx(float(expected), rel=1e-4)


def test_weights_of_far_patches_stay_finite(train):
    detector = learn("patchcore", train)
    query = torch.full((2, detector.bank_.shape[1]), 1e4)
    assert torch.isfinite(detector.reweighting(query, torch.tensor([0, 3]))).all()


def test_squared_distances_rank_pictures_alike(train):
    images = torch.rand(5, 3, 64, 64) * torch.linspace(0.2, 1, 5).view(5, 1, 1, 1)
    plain, squared = (
        ask(answering(learn("patchcore", train), reweight=1, squared=s), images) for s in (False, True)
    )
    torch.testing.assert_close(squared.score, plain.score.square())
    assert squared.score.argsort().tolist() == plain.score.argsort().tolist()


def test_several_neighbours_are_averaged(train):
    detector = answering(learn("patchcore", train), neighbours=3, reweight=1)
    images = torch.rand(1, 3, 64, 64)
    distances = torch.cdist(detector.extract(images)[0].double(), detector.bank_.double())
    expected = distances.sort(1).values[:, :3].mean(1).max()
    assert float(ask(detector, images).score[0]) == pytest.approx(float(expected), rel=1e-4)


def test_concatenated_patches_keep_all_channels(train):
    assert learn("patchcore", train, embedding="concat").bank_.shape[1] == 64 + 128


# PaDiM -------------------------------------------------------------------------------------------------------------


def test_padim_scores_are_mahalanobis_distances_of_the_joined_taps(train):
    """I-30."""
    detector = learn("padim", train, smoothing=0.0)
    assert len(set(detector.channels_.tolist())) == 24
    images = pictures(train)
    features = detector.extractor(images)
    finest = features["layer1"].shape[2:]
    joined = torch.cat([F.interpolate(x, size=finest, mode="nearest") for x in features.values()], 1)
    kept = joined[:, detector.channels_].flatten(2).permute(2, 0, 1).double().numpy()  # (P, N, d)
    cells = np.empty((len(kept), len(images)))
    for p, samples in enumerate(kept):
        inverse = np.linalg.inv(np.cov(samples, rowvar=False) + 0.01 * np.eye(24))
        centred = samples - samples.mean(0)
        cells[p] = np.sqrt(np.einsum("nd,de,ne->n", centred, inverse, centred))
    maps = torch.from_numpy(cells.T).view(-1, 1, *finest)
    expected = F.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False)
    found = ask(detector, images)
    np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.score, expected.flatten(1).amax(1), rtol=1e-3)


def test_padim_draws_its_channels_from_the_seed(train):
    drawn = []
    detector = create("padim")
    for seed in (0, 0, 1):
        detector.learn(train, [], Trainer(seed=seed, device="cpu"))
        drawn.append(detector.channels_.tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ConfigError, match="channels=193 are more than the 192 of the taps"):
        create("padim", channels=193)


# SPADE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pyramid", ["per_layer", "concat"])
def test_spade_is_the_plain_search(train, pyramid):
    """Everything at once and nothing dropped, in double precision."""
    detector = learn("spade", train, pyramid=pyramid, neighbours=4, pixel_neighbours=2, smoothing=0.0)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        good = {t: x.double() for t, x in detector.extractor(pictures(train)).items()}
        own = {t: x.double() for t, x in detector.extractor(image).items()}
    distances = (good["layer2"].mean((2, 3)) - own["layer2"].mean((2, 3))).norm(dim=1)
    similar = distances.argsort()[:4]
    levels = [(own[t], good[t]) for t in ("layer1", "layer2")]
    if pyramid == "concat":
        size = own["layer1"].shape[2:]
        levels = [
            tuple(
                torch.cat([f["layer1"], F.interpolate(f["layer2"], size=size, mode="bilinear")], 1)
                for f in (own, good)
            )
        ]
    maps = []
    for x, y in levels:
        gallery = y[similar].permute(0, 2, 3, 1).flatten(0, 2)
        cells = torch.cdist(x[0].flatten(1).T, gallery).sort(1).values[:, :2].mean(1)
        maps.append(F.interpolate(cells.view(1, 1, *x.shape[2:]), size=(64, 64), mode="bilinear"))
    found = ask(detector, image)
    torch.testing.assert_close(found.anomaly_map, torch.stack(maps).mean(0).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.score[0], distances[similar].mean().float(), rtol=1e-4, atol=1e-5)


def test_a_larger_gallery_never_raises_a_pixel_and_a_picture_of_it_scores_zero(train):
    """I-32."""
    image = torch.rand(1, 3, 64, 64)
    maps = [ask(answering(learn("spade", train), neighbours=k), image).anomaly_map for k in (1, 2, 6)]
    assert (maps[1] <= maps[0] + 1e-5).all()
    assert (maps[2] <= maps[1] + 1e-5).all()
    alone = answering(learn("spade", train), neighbours=1)
    for k, single in enumerate(pictures(train)):
        found = ask(alone, single[None])
        assert found.score < 1e-4, k
        assert found.anomaly_map.max() < 1e-4


def test_squared_distances_rank_alike_with_one_neighbour(train):
    """I-33."""
    images = torch.rand(6, 3, 64, 64) * torch.linspace(0.2, 1, 6).view(6, 1, 1, 1)
    plain, squared = (
        ask(answering(learn("spade", train), neighbours=1, distance=d), images).score
        for d in ("euclidean", "squared")
    )
    torch.testing.assert_close(squared, plain.square())
    assert plain.argsort().tolist() == squared.argsort().tolist()


def test_more_neighbours_than_pictures_take_all(train):
    image = torch.rand(1, 3, 64, 64)
    few, many = (ask(answering(learn("spade", train), neighbours=k), image) for k in (6, 50))
    assert torch.equal(few.score, many.score)
    assert torch.equal(few.anomaly_map, many.anomaly_map)


def test_without_held_out_pictures_each_is_compared_with_the_others(train):
    detector = create("spade", neighbours=1, threshold_scores="held_out").fit(train)
    averages = detector.globals_.double()
    others = torch.cdist(averages, averages).fill_diagonal_(torch.inf).min(1).values
    np.testing.assert_allclose(detector.fitted().scores, others, rtol=1e-3)
    assert detector.predict(train[0].image).raw_score < 1e-4  # asked later, the picture itself is found


def test_taps_that_are_not_extracted_are_refused():
    with pytest.raises(ConfigError, match=r"image_tap: 'layer4' is not among extractor\.taps; did you mean"):
        create("spade", image_tap="layer4")
    with pytest.raises(ConfigError, match="pixel_taps is empty"):
        create("spade", pixel_taps=[])
