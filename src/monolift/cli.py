"""``monolift VERB ...``: finds the subcommand, reads its options, turns errors into one line and an exit code.

0: done. 1: failed (out of memory, disk full, a training that diverged). 2: bad usage or bad input. 130: interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from monolift.errors import InputError, MissingExtraError

VERBS = {
    "demo": "the bundled model on the bundled image: table beside the ground truth, images",
    "detect": "3D boxes of images, folders, globs and videos",
    "train": "train a detector on KITTI-format data",
    "evaluate": "official KITTI AP of a folder of results",
    "autolabel": "3D boxes and shapes from masks and depth, without any 3D label",
    "inspect": "check a KITTI-format folder, draw its labels, count its objects",
    "view": "images, boxes, points and meshes in the browser; review of labels",
    "convert": "KITTI, nuScenes, Omni3D and COCO data sets, each as another",
    "synth": "a synthetic KITTI-format world with exact labels, masks and depth",
    "export": "a model as ONNX, compared with PyTorch; a folder that runs without torch",
    "augment": "copies of labelled images with cars of other images pasted in, labelled exactly",
    "shapes": "build the car shape spaces, show what lies between cars, label cars with codes",
    "depth": "train a depth network on stereo pairs or video, write depth maps",
    "serve": "an HTTP service round a model, and a page to try it",
    "models": "the models that ship with the package",
}

HELP = """\
usage: monolift VERB ...

One image and its camera in, metric 3D boxes out.

{subcommands}

  monolift VERB --help      options and an example
  monolift --version

Exit codes: 0 done, 1 failed, 2 bad usage or bad input.
"""


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code."""
    try:
        return _chosen(arguments)
    except InputError as error:
        return _fail(str(error), 2)
    except (MissingExtraError, FloatingPointError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__, 1)
    except BrokenPipeError:  # the reader of our output has gone, as in `monolift ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except RuntimeError as error:
        if "out of memory" not in str(error):  # torch's own class cannot be named without importing torch
            raise
        return _fail(str(error).splitlines()[0], 1)
    except KeyboardInterrupt:
        return _fail("interrupted; finished files are complete", 130)


def _chosen(arguments: Sequence[str]) -> int:
    """Runs the subcommand, or prints the help or the version."""
    verb = arguments[0] if arguments else ""
    if verb in ("", "-h", "--help", "help"):
        width = max(map(len, VERBS))
        subcommands = "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
        print(HELP.format(subcommands=subcommands))  # noqa: T201
        return 0 if verb else 2
    if verb in ("--version", "-V"):
        from monolift import __version__

        print(f"monolift {__version__}")  # noqa: T201
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        return _fail(
            f"no subcommand {verb!r}"
            + (f": did you mean {near[0]}?" if near else f": expected {', '.join(VERBS)}"),
            2,
        )
    return _run(verb, arguments[1:])


def _run(verb: str, arguments: Sequence[str]) -> int:
    module: Any = importlib.import_module(f"monolift.commands.{verb}")
    if hasattr(module, "page") and (page := module.page(arguments)):
        print(page, end="")  # noqa: T201
        return 0
    options_type = getattr(module, verb.capitalize())
    import tyro

    sentence, _, example = inspect.cleandoc(options_type.__doc__).partition("\n\n")
    example = "\n".join("  " + line.strip() for line in example.removeprefix("Example:").strip().splitlines())
    options = tyro.cli(
        options_type,
        default=module.defaults(arguments) if hasattr(module, "defaults") else None,
        prog=f"monolift {verb}",
        description=f"{sentence}\n\nexample:\n{example}",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
    )
    return int(module.run(options))


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"monolift: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    entry()
