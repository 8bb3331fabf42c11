"""OpenAPI description of /v1/detect: its two kinds of body, options with examples, responses."""

from __future__ import annotations

from typing import Any

from monolift.serve.request import FORMATS

DESCRIPTION = """\
One image and its camera in, metric 3D boxes out. Metres, radians, pixels; camera frame x right, y down, z forward.

    curl -F image=@street.jpg -F camera=721.5,721.5,609.6,172.9 http://127.0.0.1:8000/v1/detect
    curl --data-binary @street.jpg -H "Content-Type: image/jpeg" "http://127.0.0.1:8000/v1/detect?fov=81&format=kitti"

Give at most one of camera, fov and calib; with none, EXIF is used, else an assumed phone camera and a warning.
"""

_OPTIONS: dict[str, dict[str, Any]] = {
    "camera": {
        "description": "fx,fy,cx,cy in pixels; ,width,height behind them where calibrated at another size",
        "example": "721.5,721.5,609.6,172.9",
    },
    "fov": {"description": "Horizontal field of view, degrees", "example": "81"},
    "calib": {
        "description": "The text of a camera file (in a form: text or a file): KITTI calib, whose P2 is used, ROS camera_info, "
        "OpenCV, RealSense, JSON",
        "example": "P2: 721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003",
    },
    "score": {
        "description": "Score threshold, 0 to 1; default: the model's own",
        "example": "0.3",
    },
    "classes": {"description": "Only these classes, separated by commas", "example": "Car,Cyclist"},
    "format": {"description": "Of the answer", "example": "json"},
    "name": {"description": "What the image is called in the answer", "example": "street"},
}

_TEXT = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["field", "message"],
            "properties": {"field": _TEXT, "message": _TEXT},
        }
    },
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_OBJECT = {
    "type": "object",
    "required": ["class", "score", "center", "size", "yaw", "alpha", "distance", "box2d"],
    "properties": {
        "class": _TEXT,
        "score": {"type": "number"},
        "center": {**_NUMBERS, "description": "x right, y down, z forward of the box's middle, metres"},
        "size": {
            "type": "object",
            "properties": {side: {"type": "number"} for side in ("length", "height", "width")},
        },
        "yaw": {"type": "number", "description": "KITTI's rotation_y, radians"},
        "alpha": {"type": "number"},
        "distance": {"type": "number"},
        "box2d": {**_NUMBERS, "description": "x1, y1, x2, y2, pixels"},
    },
}
_RESULT = {
    "type": "object",
    "required": ["schema", "name", "image", "camera", "objects", "warnings"],
    "properties": {
        "schema": _TEXT,
        "name": _TEXT,
        "objects": {"type": "array", "items": _OBJECT},
        "warnings": {"type": "array", "items": _TEXT},
    },
}
_REFUSALS = {
    400: "The body cannot be read",
    401: "The bearer token is missing or wrong",
    403: "A host name or an origin that the service does not answer",
    408: "The body did not arrive in time",
    413: "Too many bytes or pixels",
    415: "A body that is neither a form nor an image",
    422: "A field that cannot be used, named",
    503: "Too many images are waiting, or too many bytes are held",
    504: "It took too long",
}
_SCHEMAS = {name: {**_TEXT, **told} for name, told in _OPTIONS.items()}
_SCHEMAS["format"]["enum"] = list(FORMATS)

DETECT: dict[str, Any] = {
    "summary": "3D boxes of one image",
    "openapi_extra": {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in _SCHEMAS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {"image": {"type": "string", "format": "binary"}, **_SCHEMAS},
                    }
                },
                "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
    "responses": {
        200: {
            "description": "The objects, best first, in the format asked for",
            "content": {
                "application/json": {"schema": _RESULT},
                "text/plain": {"schema": _TEXT},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                "text/html": {"schema": _TEXT},
            },
        },
        **{
            status: {"description": told, "content": {"application/json": {"schema": _PROBLEM}}}
            for status, told in _REFUSALS.items()
        },
    },
}
