"""``monolift rectify``: images of a fisheye camera to those of a pinhole camera."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from monolift.commands.option import option
from monolift.commands.output import check_writable, count, write_json
from monolift.errors import InputError
from monolift.files.progress import Progress

CAMERA = "camera.json"


@dataclass(frozen=True)
class Rectify:
    """Rectify images of a fisheye camera to those of a pinhole camera.

    monolift rectify fisheye --calib fisheye.yaml --fov 90 --out flat
    """

    source: Annotated[tuple[str, ...], tyro.conf.Positional, option("SOURCE...")] = ()
    """Images, folders, globs or videos of one camera."""
    calib: Annotated[Path | None, option("FILE")] = None
    """Fisheye calibration (required): Kalibr, OpenCV or ROS camera_info, Kannala-Brandt (equidistant) or fov."""
    fov: Annotated[float, tyro.conf.arg(metavar="DEGREES")] = 90.0
    """Horizontal field of view of the rectified images, at most 119 degrees."""
    out: Path = Path("flat")
    """Output folder: NAME.png of each image, and camera.json for --calib of other subcommands."""
    limit: Annotated[int | None, option("N")] = None
    """Maximum number of frames of each video (default: all)."""
    json: Annotated[str | None, option("FILE")] = None
    """Write the rectified camera and the files as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print warnings and errors only."""


def run(options: Rectify) -> int:
    """Rectifies every image; reports and skips files that cannot be used. Returns 2 where there are such."""
    if options.calib is None:
        raise InputError("--calib: expected the file of a fisheye camera, got none")
    if not options.source:
        raise InputError("nothing to rectify: expected images, folders, globs or videos")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit: expected 1 or more, got {options.limit}")
    from PIL import Image

    from monolift.data.fisheye import read_fisheye
    from monolift.data.sources import expand, frames, is_video, read_input_image
    from monolift.files.images import write_image
    from monolift.files.json_text import write_json as write_file

    fisheye = read_fisheye(options.calib)
    camera = fisheye.pinhole(options.fov)
    files = [path for source in options.source for path in expand(source)]
    check_writable(options.out)
    written: dict[str, str] = {}
    failed = 0
    with Progress(len(files), "files", options.quiet or len(files) < 2) as progress:
        for path in files:
            try:
                images = frames(path) if is_video(path) else iter([read_input_image(Path(str(path)))])
                for one in itertools.islice(images, options.limit):
                    target = options.out / f"{one.name}.png"
                    if one.name in written or (
                        one.path is not None and target.resolve() == one.path.resolve()
                    ):
                        raise InputError(
                            f"{path}: {target} is another image's or this one: use another --out"
                        )
                    flat = fisheye.rectified(one.image, camera).permute(1, 2, 0).numpy()
                    write_image(target, Image.fromarray(flat), parents=True)
                    written[one.name] = str(target)
            except InputError as error:
                failed += 1
                text = str(error)
                progress.complain(f"monolift: {text if Path(str(path)).name in text else f'{path}: {text}'}")
            progress.advance(1, str(path))
    content = {name: round(float(getattr(camera, name)), 4) for name in ("fx", "fy", "cx", "cy")}
    content |= {"width": camera.width, "height": camera.height}
    if written:
        write_file(options.out / CAMERA, content)
    if options.json is not None:
        write_json(options.json, {"camera": content, "files": list(written.values())})
    if not options.quiet:
        sys.stderr.write(
            f"{count(len(written), 'image')} in {options.out}; monolift detect {options.out} --calib {options.out / CAMERA}\n"
        )
    return 2 if failed else 0
