"""``monolift depth``: trains ROI-10D's depth stream on stereo pairs or video, and writes depth maps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.data.scenes import Scene
    from monolift.methods.roi10d.depth import StreamConfig, SuperDepth


@dataclass(frozen=True)
class Depth:
    """Train a depth network on stereo or video (train), or write depth maps (predict).

    monolift depth train --data KITTI/training --out depth.safetensors
    """

    action: Annotated[Literal["train", "predict"], tyro.conf.Positional]
    """train trains a depth network, predict writes depth maps."""
    out: Path
    """train: output file (.safetensors). predict: output folder of ID.png, 16 bit, metres * 256."""
    data: Annotated[Path | None, option("ROOT")] = None
    """KITTI folder. train: with image_3 and P3 (stereo), or with --frames (video)."""
    pairs: Annotated[Path | None, option("FILE")] = None
    """train: list of stereo pairs, two image paths per line; calibration in calib/ID.txt beside their folders."""
    frames: Annotated[Path | None, option("FILE")] = None
    """train: table with the columns id, sequence and frame; trains on neighbouring frames."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids of --data, one per line (default: all)."""
    truth: Annotated[Path | None, option("DIR")] = None
    """Folder of ground-truth depth maps, ID.png or ID.npy: prints errors, and scales a network trained on video."""
    model: Annotated[Path | None, option("PATH")] = None
    """predict: file written by train, or a roi10d checkpoint (default: the bundled roi10d)."""
    encoder: Literal["small", "resnet18"] = "small"
    """train: small (0.1 M parameters) or resnet18 (published)."""
    flip: bool = False
    """train: use SuperDepth's flip-augmentation layer, at twice the cost."""
    width: int = 640
    """train: width of the network image, pixels, a multiple of 32."""
    height: int = 192
    """train: height of the network image, pixels, a multiple of 32."""
    scales: int = 3
    """train: number of image scales of the loss, 1 to 3."""
    steps: int = 4000
    """train: training steps."""
    batch: int = 4
    """train: batch size."""
    lr: float = 2e-4
    """train: learning rate."""
    seed: int = 0
    """Random seed."""
    device: str = "auto"
    """Device: cpu, cuda or auto."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print warnings and errors only."""


def run(options: Depth) -> int:
    """Trains or predicts; returns 2 where maps of some images fail. Raises InputError for data that cannot be used."""
    from monolift.commands.output import check_file, write_json

    for path in (options.data, options.pairs, options.frames, options.split, options.truth):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if options.action == "train":
        check_file(options.out)  # before the training
    report = _train(options) if options.action == "train" else _predict(options)
    if options.json is not None:
        write_json(options.json, report)
    return 2 if report.get("failed") else 0


def _scenes(options: Depth) -> list[Scene]:
    from monolift.data.formats.kitti_format import read_split
    from monolift.data.scenes import paired_scenes, stereo_scenes, video_scenes

    if options.split is not None and (options.pairs or options.frames) is not None:
        raise InputError("--split: chooses right images of --data, not of --pairs or --frames: leave it out")
    if options.pairs is not None:
        return paired_scenes(options.pairs)
    if options.data is None:
        raise InputError("--data: expected a KITTI folder, or --pairs with pairs of images, got neither")
    if options.frames is not None:
        return video_scenes(options.data, options.frames)
    scenes = stereo_scenes(options.data, options.split)
    if options.split is not None:
        alone = sorted(set(read_split(options.split)) - {scene.name for scene in scenes})
        if alone:
            names = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
            sys.stderr.write(
                f"monolift: warning: {options.split}: no right image of {len(alone)} ids, which are left out: {names}\n"
            )
    return scenes


def _train(options: Depth) -> dict[str, Any]:
    from monolift.files.progress import Progress
    from monolift.methods.roi10d.depth import StreamConfig, save_stream
    from monolift.training.depth_stream import DepthRecipe, reference_focal, train_stream

    names = ("width", "height", "scales", "steps", "batch", "lr", "seed")
    recipe = DepthRecipe(**{name: getattr(options, name) for name in names})
    scenes = _scenes(options)
    metric = scenes[0].translation is not None
    focal = reference_focal(scenes, recipe)
    config = StreamConfig(options.encoder, options.flip, focal, recipe.width, recipe.height, metric)
    kind = "stereo pairs" if metric else "video frames"
    if options.truth is not None:
        _known(options.truth, scenes)  # before the training
    with Progress(recipe.steps, "steps", options.quiet) as progress:
        progress.say(f"{len(scenes)} {kind}, reference focal length {focal:.1f} pixels")
        if not metric:
            progress.complain(
                "warning: depth learnt from video alone has no metres: its unit is the camera's motion"
            )
        losses: list[float] = []

        def on_step(step: int, loss: float) -> None:
            losses.append(loss)
            progress.advance(1, f"loss {loss:.4f}")

        stream = train_stream(scenes, config, recipe, options.device, on_step)
    save_stream(options.out, stream, config)
    report: dict[str, Any] = {"out": str(options.out), "scenes": len(scenes), "kind": kind, "focal": focal}
    report["loss"] = {"first": losses[0], "last": sum(losses[-20:]) / len(losses[-20:])}
    if options.truth is not None:
        report["errors"] = _errors(options, stream, config, scenes)
    if not options.quiet:
        sys.stderr.write(f"{options.out}: loss {losses[0]:.4f} to {report['loss']['last']:.4f}\n")
    return report


def _known(folder: Path, scenes: list[Scene]) -> list[tuple[Scene, Any]]:
    """The scenes with a ground-truth depth map, and the maps. Raises InputError where there is none."""
    from monolift.training.depth_stream import known_depths

    known = known_depths(folder, scenes)
    if not known:
        raise InputError(f"{folder}: no depth map of any of the {len(scenes)} images")
    return known


def _errors(options: Depth, stream: SuperDepth, config: StreamConfig, scenes: list[Scene]) -> dict[str, Any]:
    """Errors where depth is known, in the stream's metres and with each image's own factor."""
    from monolift.data.kitti import read_image
    from monolift.training.depth_stream import depth_errors, predict_depth

    assert options.truth is not None
    size = (config.width, config.height)
    found, truths = [], []
    for scene, truth in _known(options.truth, scenes):
        try:
            image = read_image(scene.image)
        except InputError:  # reported where its map is missing
            continue
        found.append(predict_depth(stream, config.focal, size, image, scene.camera))
        truths.append(truth)
    if not found:
        raise InputError(f"{options.truth}: none of the images with a depth map can be read")
    report = {}
    for name, scale in (("metres", 1.0), ("scaled", None)):
        errors = depth_errors(found, truths, scale)
        report[name] = {"abs_rel": errors.abs_rel, "rmse": errors.rmse, "within_1.25": errors.within}
        if not options.quiet:
            sys.stderr.write(
                f"{name}: abs rel {errors.abs_rel:.3f}, rmse {errors.rmse:.2f} m, within 1.25 {errors.within:.1%} "
                f"({errors.images} images)\n"
            )
    return {**report, "images": errors.images, "scale": errors.scale}


def _stream_of(options: Depth) -> tuple[SuperDepth, StreamConfig]:
    """The stream of a file or of a roi10d checkpoint."""
    from monolift.inference import checkpoint, zoo
    from monolift.methods.roi10d import ROI10D
    from monolift.methods.roi10d.depth import StreamConfig, load_stream

    if options.model is not None and options.model.is_file():
        return load_stream(options.model)
    detector = checkpoint.load(zoo.resolve(str(options.model or "roi10d")))
    if not isinstance(detector, ROI10D) or detector.network.depth is None:
        raise InputError(
            f"{options.model or 'roi10d'}: expected a depth stream or a roi10d checkpoint that has one"
        )
    made = detector.config
    config = StreamConfig(made.depth, made.depth_flip, made.focal, made.input_width, made.input_height)
    return detector.network.depth.eval(), config


def _predict(options: Depth) -> dict[str, Any]:
    from monolift.data.formats.kitti_format import read_split
    from monolift.data.kitti import find_image, read_camera, training_folder
    from monolift.data.scenes import Scene
    from monolift.files.folders import check_new, listed, text_file
    from monolift.files.images import IMAGE_SUFFIXES, image_size

    if options.data is None:
        raise InputError("--data: expected a KITTI folder (image_2, calib), got none")
    check_new(options.out)
    root = training_folder(options.data)
    stream, config = _stream_of(options)
    names = (
        read_split(options.split)
        if options.split
        else sorted(listed(root / "image_2", IMAGE_SUFFIXES).by_stem())
    )
    scenes: list[Scene] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            image = find_image(root, name)
            camera = read_camera(text_file(root / "calib", name), *image_size(image))
            scenes.append(Scene(image, (), camera, None))
        except InputError as error:
            failed[name] = str(error)
    if not scenes:
        raise _none_of(failed)
    report: dict[str, Any] = {"out": str(options.out)}
    scale = 1.0
    if options.truth is not None:
        report["errors"] = _errors(options, stream, config, scenes)
        scale = 1.0 if config.metric else report["errors"]["scale"]
    elif not config.metric:
        raise InputError(
            f"{options.model}: learnt from video, has no metres: --truth names known depths to scale it by"
        )
    _write_maps(options, stream, config, scenes, scale, failed)
    return {**report, "images": len(names) - len(failed), "failed": failed}


def _write_maps(
    options: Depth,
    stream: SuperDepth,
    config: StreamConfig,
    scenes: list[Scene],
    scale: float,
    failed: dict[str, str],
) -> None:
    """Writes the maps; reports what has ``failed``, and adds images that cannot be read. Raises InputError without any map."""
    from PIL import Image

    from monolift.data.formats.depth_maps import encode_depth
    from monolift.data.kitti import read_image
    from monolift.files.folders import partial_folder
    from monolift.files.images import write_image
    from monolift.files.output_folder import locked_beside
    from monolift.files.progress import Progress
    from monolift.training.depth_stream import predict_depth

    size = (config.width, config.height)
    with (
        locked_beside(options.out, "depth"),
        partial_folder(options.out) as folder,
        Progress(len(scenes), "images", options.quiet) as progress,
    ):
        for error in failed.values():
            progress.complain(f"monolift: {' '.join(error.split())}")
        before = len(failed)
        for scene in scenes:
            try:
                image = read_image(scene.image)
            except InputError as error:
                failed[scene.name] = str(error)
                progress.complain(f"monolift: {' '.join(str(error).split())}")
            else:
                depth = predict_depth(stream, config.focal, size, image, scene.camera)
                made = Image.fromarray(encode_depth(depth * scale))
                write_image(folder / f"{scene.name}.png", made, durable=False)
            progress.advance(1, scene.name)
        if len(failed) - before == len(scenes):
            raise _none_of(failed)


def _none_of(failed: dict[str, str]) -> InputError:
    first, *others = failed.values()
    return InputError(f"{first}" + (f" (and {len(others)} more: no image can be used)" if others else ""))
