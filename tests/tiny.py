"""Settings at which each detector learns in seconds; used by every test that fits one."""

TINY = {
    "efficientad_ast": {
        "extractor.network": "resnet18",
        "extractor.weights": "starter",
        "extractor.taps": ["layer2"],
        "extractor.image_size": 64,
        "extractor.static_same_padding": False,
        "extractor.standardise": True,
        "extractor.project": 32,
        "teacher.hidden": 16,
        "teacher.kernels": [3, 3],
        "teacher.epochs": 10,
        "student.width": 32,
        "student.blocks": 1,
        "maps.score": "topk",
        "epochs": 10,
        "batch_size": 4,
        "teacher_optimiser.lr": 2e-3,
        "optimiser.lr": 2e-3,
    },
    "efficientad": {
        "teacher.weights": "random",
        "teacher.width": 8,
        "teacher.channels": 16,
        "image_size": 128,
        "padding": True,
        "steps": 16,
        "batch_size": 1,
        "optimiser.lr": 2e-3,
    },
}
"""Detector name to settings (dotted, as after `--set`)."""
