"""``monolift shapes``: trains the car shape spaces and interpolates between car shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from monolift.commands.option import option
from monolift.data.kitti_facts import CAR_SIZE
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.render.mesh import Mesh

# Mean length, height, width in metres in which a median is shown.
SIZES = {
    "all": CAR_SIZE,
    "Small Car": (3.42, 1.50, 1.56),
    "Car": (3.87, 1.49, 1.63),
    "Large Car": (4.32, 1.52, 1.69),
    "SUV": (4.17, 1.77, 1.73),
}
STEPS = 5  # images on the way from one car to another


@dataclass(frozen=True)
class Shapes:
    """Train a car shape space (build), interpolate (show), or label cars (label).

    monolift shapes show --out shapes
    """

    action: Annotated[Literal["build", "show", "label"], tyro.conf.Positional]
    """build trains a shape space, show draws one, label fits codes to the cars of a data set."""
    out: Path
    """build: output file (.safetensors). show: output folder. label: output file, for roi10d's setting shape_labels."""
    kind: Literal["tsdf", "textured"] = "tsdf"
    """tsdf: ROI-10D's TSDF autoencoder. textured: MonoDR's car generator, for `monolift autolabel --decoder`."""
    model: Annotated[Path | None, option("FILE")] = None
    """show, label: file written by build (default: the bundled shape space)."""
    data: Annotated[Path | None, option("ROOT")] = None
    """label: KITTI folder with depth_2, instance_2 (masks by label row), or both."""
    split: Annotated[Path | None, option("FILE")] = None
    """label: image ids, one per line (default: all)."""
    exact: bool = False
    """label: encode the exact shapes of a synthetic world (`monolift synth --shapes`) instead of a search."""
    code: Annotated[int | None, option("N")] = None
    """build --kind tsdf: code dimension, 2 to 64 (default: 6, as published)."""
    meshes: Annotated[Path | None, option("DIR")] = None
    """build: training meshes (default: procedural cars). tsdf: watertight OBJ, STL, GLB. textured: OBJ, GLB."""
    axes: str = "gltf"
    """build --kind textured --meshes: front and up axes: gltf (z,y), shapenet (-z,y), or a pair."""
    views: Annotated[int | None, option("N")] = None
    """build --kind textured --meshes: views per model (default: 20)."""
    preset: Literal["default", "paper"] = "default"
    """build: default is small; paper: a grid of 256 x 128 x 128 (tsdf), the released generator (textured --meshes, a GPU)."""
    cars: Annotated[int | None, option("N")] = None
    """build: number of procedural training cars (default: 50 for tsdf, 300 for textured)."""
    steps: Annotated[int | None, option("N")] = None
    """build: training steps (default: the method's)."""
    device: str = "cpu"
    """build --kind textured --meshes: cpu or cuda."""
    seed: int = 0
    """Random seed."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print errors only."""


def run(options: Shapes) -> int:
    for name in ("cars", "steps", "views"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"--{name}: expected 1 or more, got {value}")
    for path in (options.model, options.meshes, options.data, options.split):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if options.action != "show":
        from monolift.commands.output import check_file

        check_file(options.out)  # before the training or the search
    elif options.out.is_file():
        raise InputError(f"{options.out}: expected a folder, or nothing yet, got a file")
    if options.action == "label":
        report = _label(options)
    elif options.action == "build":
        report = _build_textured(options) if options.kind == "textured" else _build_tsdf(options)
    else:
        report = _show(options)
    if options.json is not None:
        from monolift.commands.output import write_json

        write_json(options.json, report)
    return 0


def _build_tsdf(options: Shapes) -> dict[str, Any]:
    import torch

    from monolift.files.progress import Progress
    from monolift.shapes.autoencoder import ShapeConfig, paper, save_shape_space
    from monolift.shapes.shape_training import (
        ShapeTraining,
        grid_of,
        learn,
        procedural_cars,
        reconstruction_iou,
    )

    config = paper() if options.preset == "paper" else ShapeConfig()
    if options.code is not None:
        config = replace(config, code=options.code)
    given = {"cars": options.cars, "steps": options.steps, "seed": options.seed}
    training = ShapeTraining(**{k: v for k, v in given.items() if v is not None})
    held_out: Any = None
    if options.meshes is not None:
        classes, grids = _grids_of_folder(options, config)
    else:
        cars = procedural_cars(training.cars, training.seed)
        with Progress(len(cars), "cars sampled", options.quiet) as progress:
            grids = []
            for _, shape in cars:
                grids.append(grid_of(shape, config))
                progress.advance()
        classes = [name for name, _ in cars]
        unseen = procedural_cars(12, training.seed + 1_000_003)
        held_out = torch.stack([grid_of(shape, config) for _, shape in unseen])
    with Progress(training.steps, "steps", options.quiet) as progress:
        space = learn(
            torch.stack(grids),
            classes,
            config,
            training,
            lambda _, loss: progress.advance(1, f"loss {loss:.3f}"),
        )
        report: dict[str, Any] = {"out": str(options.out), "cars": len(grids), "classes": list(space.medians)}
        report["iou"] = float(reconstruction_iou(space, torch.stack(grids)).mean())
        said = f"reconstruction IoU {report['iou']:.3f}"
        if held_out is not None:
            report["iou_held_out"] = float(reconstruction_iou(space, held_out).mean())
            said += f", of {len(held_out)} cars not seen in training {report['iou_held_out']:.3f}"
        save_shape_space(options.out, space)
        progress.say(f"{options.out}: {said}")
    return report


def _grids_of_folder(options: Shapes, config: Any) -> tuple[list[str], list[Any]]:
    from monolift.files.progress import Progress
    from monolift.shapes.mesh_files import SUFFIXES, grid_of_mesh, read_mesh

    folder = options.meshes
    assert folder is not None
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more meshes ({', '.join(SUFFIXES)}), found {len(files)}")
    grids = []
    with Progress(len(files), "meshes sampled", options.quiet) as progress:
        for file in files:
            grids.append(grid_of_mesh(read_mesh(file), config))
            progress.advance(1, file.name)
    return ["" if f.parent == folder else f.parent.name for f in files], grids


def _build_textured(options: Shapes) -> dict[str, Any]:
    from monolift.files.progress import Progress
    from monolift.shapes.textured import save_textured
    from monolift.shapes.textured_training import Family, train_textured

    if options.meshes is not None:
        return _build_from_models(options, options.meshes)
    if options.preset != "default":
        raise InputError(
            "--preset paper with --kind textured needs --meshes: the published generator learns from models"
        )
    cars = options.cars or 300
    steps = options.steps or 3000
    with Progress(steps, "steps", options.quiet) as progress:
        progress.say(f"painting {cars} cars")
        family = Family.sample(cars, options.seed)
        decoder, errors = train_textured(
            family, CAR_SIZE, steps=steps, seed=options.seed, on_step=lambda *_: progress.advance()
        )
        save_textured(decoder, options.out)
        progress.say(
            f"{options.out}: mean error {1000 * errors.shape:.0f} mm (mean car: {1000 * errors.shape_of_mean:.0f}), "
            f"texture {errors.texture:.1f} of 255 (mean car: {errors.texture_of_mean:.1f})"
        )
    return {"out": str(options.out), "cars": cars, "shape_m": errors.shape, "texture_255": errors.texture}


def _label(options: Shapes) -> dict[str, Any]:
    from monolift.data.kitti import KittiDataset, training_folder
    from monolift.files.progress import Progress
    from monolift.methods.roi10d.shape_labels import write_exact_labels, write_shape_labels
    from monolift.shapes.autoencoder import load_shape_space

    if options.data is None:
        raise InputError("--data: expected a KITTI folder, got none")
    root = training_folder(options.data)
    known = {
        name: (root / folder).is_dir() for name, folder in (("depth", "depth_2"), ("instances", "instance_2"))
    }
    if not options.exact and not any(known.values()):
        raise InputError(
            f"{root}: expected depth_2 or instance_2 beside image_2: monolift convert --to depth makes depth_2 of velodyne, "
            "--to instances makes instance_2 of masks"
        )
    data = KittiDataset(root, options.split, **known)
    space = load_shape_space(options.model)
    with Progress(len(data), "images", options.quiet) as progress:
        if options.exact:
            count = write_exact_labels(data, space, options.out, lambda _: progress.advance())
        else:
            count = write_shape_labels(data, space, options.out, on_sample=lambda _: progress.advance())
        progress.say(f"{options.out}: {count} cars labelled in {len(data)} images")
    return {"out": str(options.out), "images": len(data), "labels": count, "code": space.config.code}


def _build_from_models(options: Shapes, folder: Path) -> dict[str, Any]:
    """The route of the paper: models, views, the convolutional generator."""
    from dataclasses import replace

    import torch

    from monolift.files.progress import Progress
    from monolift.shapes.textured import save_textured
    from monolift.shapes.textured_conv import ConvDecoder
    from monolift.shapes.textured_obj import find_models, frame_of, read_model
    from monolift.shapes.textured_views import ViewTraining, paper, render_views, train_on_views

    if options.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"--device {options.device}: no such device here, cpu is")
    frame_of(options.axes)
    training = paper() if options.preset == "paper" else ViewTraining()
    given = {"steps": options.steps, "views": options.views}
    training = replace(training, **{k: v for k, v in given.items() if v is not None})
    files, models, skipped = find_models(folder), [], []
    with Progress(len(files), "models read", options.quiet) as progress:
        for file in files:
            try:
                models.append(read_model(file, options.axes))
            except InputError as error:  # a few of ShapeNet's are broken
                skipped.append(str(file))
                progress.complain(f"monolift: skipped {' '.join(str(error).split())}")
            progress.advance(1, file.parent.name)
    if len(models) < 2:
        raise InputError(f"{folder}: expected two or more models that can be read, got {len(models)}")
    with Progress(len(models), "models rendered", options.quiet) as progress:
        views = render_views(models, training.views, training.size, options.seed, progress.advance)
    torch.manual_seed(options.seed)
    decoder = ConvDecoder(training.width).to(options.device)
    with Progress(training.steps, "steps", options.quiet) as progress:
        losses: list[float] = []

        def step(_: int, loss: float) -> None:
            losses.append(loss)
            progress.advance(1, f"loss {loss:.3f}")

        train_on_views(decoder, views, training, options.seed, step)
        save_textured(decoder, options.out)
        last = losses[-max(len(losses) // 10, 1) :]
        progress.say(f"{options.out}: {len(models)} models, loss {sum(last) / len(last):.3f}")
    return {
        "out": str(options.out),
        "models": len(models),
        "skipped": skipped,
        "loss": sum(last) / len(last),
    }


def _show(options: Shapes) -> dict[str, Any]:
    import sys

    from monolift.render.glb import write_glb
    from monolift.shapes.gallery import gallery

    rows = _textured_rows(options) if options.kind == "textured" else _tsdf_rows(options)
    options.out.mkdir(parents=True, exist_ok=True)
    image = options.out / f"{options.kind}.png"
    gallery(rows).save(image)
    files = []
    for caption, meshes in rows:
        file = (
            options.out
            / f"{options.kind} {caption.split(',')[0].split(':')[0]}.glb".replace(" ", "_").lower()
        )
        write_glb(file, [_shifted(mesh, k) for k, mesh in enumerate(meshes)])
        files.append(str(file))
    if not options.quiet:
        sys.stderr.write(f"{image}\n" + "".join(f"{file}\n" for file in files))
    return {"image": str(image), "meshes": files}


def _shifted(mesh: Mesh, place: int) -> Mesh:
    """Cars of one file stand side by side, 2.5 m apart."""
    return mesh.with_vertices(mesh.vertices + mesh.vertices.new_tensor([0.0, 0.0, 2.5 * place]))


def _tsdf_rows(options: Shapes) -> list[tuple[str, Sequence[Mesh]]]:
    import torch

    from monolift.shapes.autoencoder import between, load_shape_space

    space = load_shape_space(options.model)
    sizes = {name: torch.tensor(SIZES.get(name, SIZES["all"])) for name in space.medians}
    names = [name for name in space.medians if name in SIZES] or list(space.medians)
    rows: list[tuple[str, Sequence[Mesh]]] = [
        ("medians: " + ", ".join(names), [space.mesh(space.medians[n], sizes[n]) for n in names])
    ]
    share = torch.linspace(0, 1, STEPS)
    for first, last in ((names[1 % len(names)], names[-1]), (names[2 % len(names)], names[-2 % len(names)])):
        codes = between(space.medians[first], space.medians[last], share)
        extents = torch.lerp(sizes[first], sizes[last], share[:, None])
        rows.append((f"{first} to {last}", [space.mesh(c, s) for c, s in zip(codes, extents, strict=True)]))
    return rows


def _textured_rows(options: Shapes) -> list[tuple[str, Sequence[Mesh]]]:
    import torch

    from monolift.render.mesh import Mesh
    from monolift.shapes.autoencoder import between
    from monolift.shapes.textured import decode_mesh, load_textured, on_sphere

    decoder = load_textured(options.model)
    generator = torch.Generator().manual_seed(options.seed)
    ends = on_sphere(torch.randn(4, 8, generator=generator))
    share = torch.linspace(0, 1, STEPS)
    middle = [code.expand(STEPS, 8) for code in (decoder.middle_shape, decoder.middle_texture)]
    size = torch.tensor(SIZES["all"]).expand(STEPS, 3)
    rows: list[tuple[str, Sequence[Mesh]]] = []
    for caption, shape, texture in (
        ("shape code, texture of the middle car", between(ends[0], ends[1], share), middle[1]),
        ("texture code, shape of the middle car", middle[0], between(ends[2], ends[3], share)),
    ):
        with torch.no_grad():
            batch = decode_mesh(decoder, shape, texture, size)
        assert batch.texture is not None
        singles = zip(batch.vertices, batch.texture, strict=True)
        rows.append((caption, [Mesh(v, batch.faces, batch.uvs, t) for v, t in singles]))
    return rows
