"""Checkpoints: a folder with config.json and model.safetensors, the Hub's layout. Nothing is ever unpickled.

Files of other programs load too: `monolift.inference.released`.

config.json: {"format": 1, "method": "smoke", "config": {...}, "preprocessing": {...}, "card": {...}, "made_by": {...}}. The
config holds classes, input size and fit; preprocessing what becomes of a pixel, for other programs; the card says what the
weights are: data, splits, licence, recipe, seed, AP; made_by holds the version of this package and, where it ran from a
checkout, the git commit.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monolift.errors import DiskError, InputError, MissingExtraError
from monolift.files.folders import partial_folder
from monolift.files.json_text import number_of, object_of, optional, read_json, show_value, text_value, value
from monolift.files.settings import changed

if TYPE_CHECKING:
    from torch import Tensor

    from monolift.methods.base import Detector, DetectorConfig, Method

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
ROOM = 20_000_000  # numbers that a network may make while it is built and not keep


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint, checked; needs no torch. Raises InputError naming the file and what is wrong."""
    path = Path(folder) / CONFIG_FILE
    if not path.exists():
        raise InputError(
            f"{folder}: not a checkpoint: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    try:
        content = read_json(path)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not a readable checkpoint description ({reason})") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path}: expected checkpoint format {FORMAT}, got {found!r}: it was written by another program or version"
        )
    text_value(value(content, "method", str(path)), f"{path}: method")
    config = value(content, "config", str(path))
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected config to hold named options, got {show_value(config)}")
    card = optional(content, "card", object_of, str(path))
    if card is not None:
        for name in ("score", "averaged_score"):
            optional(card, name, _score, f"{path}: card")
    return dict(content)


def _score(given: Any, where: str) -> float:
    return number_of(given, where, least=0, most=1)


def read_card(folder: str | Path) -> dict[str, Any]:
    """What the weights are: data, licence, recipe, AP; empty where nobody wrote it, or for a file of another program."""
    if Path(folder).is_file():
        return {}
    return dict(read_config(folder).get("card") or {})


def save(
    folder: str | Path,
    detector: Detector,
    card: dict[str, Any] | None = None,
    half: bool = False,
    readme: bool = False,
) -> Path:
    """Writes a checkpoint; the folder appears complete or not at all.

    Args:
        half: weights as float16, for shipping.
        readme: README.md too, the Hub's model card.
    """
    folder = Path(folder)
    with partial_folder(folder) as partial:
        write(partial, detector, card, half)
        if readme:
            write_readme(partial, folder.name)
    return folder


def write(folder: Path, detector: Detector, card: dict[str, Any] | None = None, half: bool = False) -> None:
    """Writes a checkpoint's files into a folder that is not yet in its place. Raises DiskError where the disk is full."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in detector.state_dict().items()}
    if half:
        state = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in state.items()}
    content = {
        "format": FORMAT,
        "method": detector.method,
        "config": dataclasses.asdict(detector.config),
        "preprocessing": preprocessing(detector),
        "card": card or {},
        "made_by": made_by(),
    }
    try:
        save_file(state, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
    except SafetensorError as error:
        raise DiskError(f"{WEIGHTS_FILE}: cannot write: {error}") from None
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it unreadable for others
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def preprocessing(detector: Detector) -> dict[str, Any]:
    """What becomes of a pixel, measured on black, white and red: network channel k = pixel[order[k]] * scale[k] + offset[k].

    Pixels are 0 to 255; order counts RGB from 0, so bgr is 2, 1, 0.
    """
    import torch

    parameter = next(detector.parameters())

    def of(*rgb: int) -> torch.Tensor:
        pixel = torch.tensor(rgb, dtype=torch.uint8, device=parameter.device).view(3, 1, 1)
        return torch.as_tensor(detector.normalise(pixel)).flatten().double().cpu()

    black, white = of(0, 0, 0), of(255, 255, 255)
    pure = [of(*(255 * (k == channel) for k in range(3))) - black for channel in range(3)]
    order = torch.stack(pure).abs().argmax(0)
    return {
        "order": order.tolist(),
        "scale": [round(v, 9) for v in ((white - black) / 255).tolist()],
        "offset": [round(v, 7) for v in black.tolist()],
    }


@lru_cache(maxsize=1)  # a training saves often; what it runs is what it began with
def made_by() -> dict[str, str]:
    """The version of this package and, in a checkout, the git commit; "-dirty" where files have changed since."""
    from monolift import __version__

    found = {"monolift": __version__}
    root = Path(__file__).resolve().parents[3]
    if (root / ".git").exists():
        options = ["--always", "--dirty", "--exclude=*", "--abbrev=40"]
        # no optional locks: looking must not stand in the way of who is committing
        command = ["git", "--no-optional-locks", "-C", str(root), "describe", *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            found["commit"] = done.stdout.strip()
        except (OSError, subprocess.SubprocessError):  # no git here, or not ours to read: the version must do
            pass
    return found


def load(folder: str | Path, device: str = "cpu") -> Detector:
    """The detector of a checkpoint, in evaluation mode, float32.

    Args:
        folder: a checkpoint folder, or a weight file of another program (`monolift.inference.released`).
        device: where the weights go.

    Raises:
        InputError: for another format, an unknown method or option, weights that do not fit, or a broken file.
    """
    from monolift.methods import get_method

    folder = Path(folder)
    if folder.is_file():
        from monolift.inference.released import read_foreign

        return read_foreign(folder).detector().to(device).eval()
    content = read_config(folder)
    method = get_method(content["method"])
    config = _config(method, content["config"], folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    state = _read_weights(path)
    detector = _built(method, config, sum(v.numel() for v in state.values()), path)
    expected = detector.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape] + [
        k for k in state if k not in expected
    ]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit the configuration beside it, first {wrong[0]}"
        )
    detector.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})
    return detector.to(device).eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: missing: the checkpoint is incomplete") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable weight file ({error})") from None


def _built(method: Method, config: DetectorConfig, weights: int, path: Path) -> Detector:
    """The detector of a configuration whose file holds this many weights: one that would be much larger is not built."""
    from monolift.nn.size_limit import SizeLimit, TooLargeError

    limit = 4 * weights + ROOM
    try:
        with SizeLimit(limit):
            return method.detector(config)
    except TooLargeError:
        raise InputError(
            f"{path}: {weights:,} weights do not fit the configuration beside it, which asks for more than {limit:,}"
        ) from None
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path.with_name(CONFIG_FILE)}: no network can be built from it ({reason})"
        ) from None


def from_hub(hub_id: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint on the Hugging Face Hub, "owner/name", fetched unless it is in the Hub's cache.

    The only function of this package that may download, and only what is asked for by this name: config.json and
    model.safetensors. HF_HUB_OFFLINE=1 keeps it to the cache.
    Raises MissingExtraError without huggingface_hub, InputError where there is no such checkpoint.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError(f"{hub_id}: a checkpoint of the Hugging Face Hub", "hub") from None
    try:
        files = [CONFIG_FILE, WEIGHTS_FILE]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{hub_id}: not a local directory and not found on the Hub ({reason})") from None


def write_readme(folder: Path, name: str) -> None:
    """README.md, the Hub's model card, from config.json: front matter, then everything that the card says."""
    content = read_config(folder)
    lines = [
        "---",
        "library_name: monolift",
        "pipeline_tag: object-detection",
        "tags: [monocular-3d-object-detection]",
        "---",
    ]
    lines += ["", f"# {content['method']}", "", "3D boxes from one image and its camera:", ""]
    lines += ["    import monolift", f'    model = monolift.Model.from_pretrained("{name}")', ""]
    lines += ["Classes: " + ", ".join(content["config"].get("classes", ())), ""]
    for name, said in {**(content.get("card") or {}), **(content.get("made_by") or {})}.items():
        shown = said if isinstance(said, str | int | float) else json.dumps(said, ensure_ascii=False)
        lines.append(f"- {name}: {shown}")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _config(method: Method, values: Any, path: Path) -> Any:
    """The method's configuration from what JSON holds, each value typed by its field."""
    try:
        return changed(method.config(), method.up_to_date(values), f"{path}: ")
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
