"""What a camera makes of light: blur, exposure, noise, tone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sensor:
    """exposure: factor on linear light; contrast, warmth: 1 and 0 change nothing; blur: standard deviation in pixels; noise: of
    a mid-grey in 8-bit steps; metering: how far the camera evens out dark and bright scenes, 0 not at all, 1 wholly."""

    exposure: float
    contrast: float
    warmth: float
    blur: float
    noise: float
    metering: float = 0.0


def develop(linear: FloatArray, sensor: Sensor, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Linear light (H, W, 3) to an 8-bit image: lens blur, exposure, shot and read noise, tone curve."""
    gain = sensor.exposure * (METERED / max(_brightness(linear), 1e-3)) ** sensor.metering
    balance = gain * np.array([1 + sensor.warmth, 1.0, 1 - sensor.warmth])
    light = _blurred(linear.astype(np.float32, copy=False), sensor.blur) * balance.astype(np.float32)
    grain = rng.standard_normal(light.shape, np.float32)
    # Photon noise grows with the root of light. At mid-grey, 0.18, the tone curve climbs by 1.158 per unit of light, which
    # makes the standard deviation `noise` steps of 8 bits there.
    root = np.sqrt((np.maximum(light, 0) + np.float32(0.006)) / np.float32(0.186))
    light = light + grain * np.float32(sensor.noise / 255 / 1.158) * root
    tone = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    # A KITTI image is contrasty: pull away from mid-grey, clip the bright end.
    tone = 0.45 + (tone - 0.45) * sensor.contrast
    return (np.clip(tone, 0, 1) * 255 + 0.5).astype(np.uint8)


METERED = 0.13  # the brightness a camera that meters wholly aims at


def _brightness(linear: FloatArray) -> float:
    """What a light meter says: a mean that burnt-out skies do not rule."""
    return float(np.square(np.sqrt(np.clip(linear[::4, ::4], 0, 1.2)).mean()))


def _blurred(image: FloatArray, sigma: float) -> FloatArray:
    """Gaussian blur with a five-tap kernel; edges repeat."""
    if sigma <= 0.05:
        return image
    taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding, mode="edge")
        n = image.shape[axis]
        image = sum(t * np.take(padded, range(k, k + n), axis) for k, t in enumerate(taps))
    return image
