"""Deployment of an exported model: a folder that needs neither torch nor monolift, and a Triton repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from monolift import runtime
from monolift.errors import InputError
from monolift.files.folders import partial_folder
from monolift.files.output_folder import locked_beside

_DETECT = '''\
"""Objects of one image: python detect.py IMAGE CAMERA -> JSON.

CAMERA: FX,FY,CX,CY in pixels (,WIDTH,HEIGHT behind them where it was calibrated at another size), a KITTI calib file, or JSON.
"""

import sys
from pathlib import Path

from monolift_runtime import load, read_camera

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        found = load(Path(__file__).parent).detect(sys.argv[1], read_camera(sys.argv[2]))
    except (ValueError, OSError) as error:
        sys.exit(f"detect.py: {error}")
    for warning in found.warnings:
        print(f"detect.py: warning: {warning}", file=sys.stderr)
    print(found.to_json())
'''

_README = """\
# {name}

3D boxes from an image and its camera, without torch and without monolift.

```
pip install -r requirements.txt
python detect.py IMAGE 721.5,721.5,609.6,172.9
python detect.py IMAGE calib.txt
```

`monolift_runtime.load(".").detect(image, camera)` gives arrays: center (x right, y down, z forward), size (length, height,
width), metres; yaw, radians; scores, classes, boxes2d. The file model.onnx takes `images`, (B, 3, h, w) uint8 RGB with sides
that are multiples of 32, and gives {outputs}.

Licence of the weights: {licence}
"""


def write_folder(onnx: Path, folder: Path) -> Path:
    """model.onnx, the runtime's source, a script and its requirements; complete or not at all.

    Raises:
        InputError: where something that is no such folder stands there already.
    """
    if folder.exists() and not (folder / "model.onnx").exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds other files: expected a new folder or an earlier export")
    description = runtime.load(onnx).description
    if description["method"] not in runtime.model.DECODERS:
        raise InputError(
            f"{description['method']}: the runtime decodes {', '.join(runtime.model.DECODERS)} only; "
            "its ONNX file alone can be exported with --out"
        )
    source = Path(runtime.__file__).parent
    licence = description["card"].get("licence", "not stated in the model's card")
    text = _README.format(name=folder.name, outputs=" and ".join(description["outputs"]), licence=licence)
    with locked_beside(folder, "export"), partial_folder(folder) as partial:
        shutil.copytree(source, partial / "monolift_runtime", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(onnx, partial / "model.onnx")
        (partial / "README.md").write_text(text, encoding="utf-8")
        (partial / "detect.py").write_text(_DETECT, encoding="utf-8")
        (partial / "requirements.txt").write_text("numpy>=1.24\nonnxruntime>=1.17\npillow>=10.1\n")
    return folder


def write_triton(onnx: Path, repository: Path, name: str, largest_batch: int = 8) -> Path:
    """REPOSITORY/NAME/config.pbtxt and 1/model.onnx, as NVIDIA Triton's onnxruntime backend reads it; sizes stay dynamic.

    parameters.monolift in config.pbtxt holds the description, so that a client can decode the maps.
    """
    description = runtime.load(onnx).description
    folder = repository / name
    text = _pbtxt(name, largest_batch, description, onnx)
    with locked_beside(folder, "export"), partial_folder(folder) as partial:
        (partial / "1").mkdir()
        shutil.copyfile(onnx, partial / "1" / "model.onnx")
        (partial / "config.pbtxt").write_text(text, encoding="utf-8")
    return folder


def _pbtxt(name: str, largest_batch: int, description: dict[str, Any], onnx: Path) -> str:
    channels = {name: dims[1] for name, dims in _outputs(onnx).items()}
    outputs = ",\n".join(
        f'  {{ name: "{key}" data_type: TYPE_FP32 dims: [ {channels[key]}, -1, -1 ] }}'
        for key in description["outputs"]
    )
    parameter = json.dumps(json.dumps(description))  # a quoted string, with its quotes escaped
    return (
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {largest_batch}\n'
        f'input [\n  {{ name: "images" data_type: TYPE_UINT8 dims: [ 3, -1, -1 ] }}\n]\n'
        f"output [\n{outputs}\n]\ndynamic_batching {{ max_queue_delay_microseconds: 5000 }}\n"
        f'parameters {{ key: "monolift" value {{ string_value: {parameter} }} }}\n'
    )


def _outputs(onnx: Path) -> dict[str, list[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    return {output.name: output.shape for output in session.get_outputs()}
