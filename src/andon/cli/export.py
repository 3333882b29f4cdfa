"""Commands that carry a run to where it is used: export, pack, verify, latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Json, Model, Run, Runtime, print_json, print_table, say
from andon.core.errors import ConfigError

app = typer.Typer()
Data = Annotated[
    str | None, typer.Option(help="Where the pictures are now; default: where the run was fitted.")
]


@app.command()
def export(
    run: Run,
    form: Annotated[str, typer.Option("--format", help="onnx or openvino.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File (.onnx, .xml); default: model.onnx or model.xml in the run.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit convolutions, calibrated on good images.")
    ] = False,
    int8_limit: Annotated[
        float, typer.Option(min=0, help="With --int8: largest accepted loss of image AUROC.")
    ] = 0.01,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Export the detector as one network file: images of any size in, scores and anomaly maps out.

    The network is run and compared with the detector before the file is written.
    """
    from andon.core.progress import default_progress
    from andon.runs.export import EXPORTED, export_run

    if form not in EXPORTED:
        raise ConfigError(f"--format {form!r} is unknown: choose one of {', '.join(EXPORTED)}")
    if int8 and form != "onnx":
        raise ConfigError(
            "--int8 makes an ONNX file, which OpenVINO executes as well: leave --format openvino out"
        )
    path = out or run / ("model-int8.onnx" if int8 else EXPORTED[form])
    suffix = Path(EXPORTED[form]).suffix
    if path.suffix != suffix:
        raise ConfigError(f"--out {path} must end in {suffix} for --format {form}")
    found = export_run(
        run, path, int8_limit=int8_limit if int8 else None, data=data, progress=default_progress()
    )
    if as_json:
        print_json(found)
        return
    for line in found["notes"]:
        say(line)
    print(f"{path}: {found['bytes'] / 1e6:.1f} MB; {found['said']}")


@app.command()
def pack(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, ending in .andon.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Pack detector, network, thresholds, origins and check images into one file."""
    from andon.exporting.packed import SUFFIX
    from andon.runs.export import pack_run

    if out.suffix != SUFFIX:
        raise ConfigError(f"--out {out} must end in {SUFFIX}")
    manifest = pack_run(run, out, data=data)
    checks = sum(name.startswith("checks/") for name in manifest["members"])
    if as_json:
        print_json(manifest)
        return
    if manifest["network"] != "model.onnx":
        say(f"without a network for other runtimes: {manifest['network']}")
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {checks} check pictures; next: andon verify {out}, "
        f"andon predict {out} IMAGES"
    )


@app.command()
def verify(
    packed: Annotated[Path, typer.Argument(metavar="PACKED", help="File made by `andon pack`.")],
    runtime: Runtime = None,
    as_json: Json = False,
) -> None:
    """Verify that a packed detector is complete and gives the same scores on this machine as where it was made."""
    from andon.exporting.packed import read_pack
    from andon.runs.loading import known_choice

    found = read_pack(packed)
    predictor = found.open(known_choice(runtime) or "auto")
    proof = found.prove(predictor)
    if as_json:
        print_json({"packed": str(packed), **proof.to_json()})
        return
    print(
        f"{packed} is whole; {proof.images} check pictures score as where it was made (largest difference "
        f"{proof.difference:.2g} of the way from a good picture to the threshold), executed by {proof.runtime}"
    )


@app.command()
def latency(
    run: Model,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGES...]", help="Images or folders; default: the test images of the run."),
    ] = None,
    runtime: Runtime = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: one per core.")] = None,
    cycle_ms: Annotated[
        float | None, typer.Option(min=0, help="Cycle time of a part; warns if p99 is longer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the latency of each stage on this machine, from file to verdict, one image after the other."""
    from andon.core.progress import default_progress
    from andon.runs.export import run_latency

    found = run_latency(run, images or (), runtime=runtime, threads=threads, progress=default_progress())
    slow = cycle_ms is not None and found["total"].p99 > cycle_ms
    if slow:
        say(
            f"andon: warning: one part in a hundred takes {found['total'].p99:.1f} ms or longer, the cycle is {cycle_ms:g} ms: "
            "use another runtime, a smaller recipe, or more cores"
        )
    if as_json:
        stages = {name: stage.to_json() for name, stage in found.items()}
        print_json({"run": str(run), "stages": stages, "cycle_ms": cycle_ms, "too_slow": slow})
        return
    numbers = ("p50", "p95", "p99", "max")
    rows = [[name, *(f"{getattr(stage, n):.2f}" for n in numbers)] for name, stage in found.items()]
    print_table(f"milliseconds of one picture, {found['total'].n} pictures", ["stage", *numbers], rows)
    print(found["total"].machine)
