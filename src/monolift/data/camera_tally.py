"""The cameras of many images, each held against its image: what to report of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from monolift.data.camera_check import CameraNumbers, check_numbers
from monolift.errors import InputError


class CameraTally:
    """Findings about the cameras of many images: every error by image, every kind of oddity once.

    errors: one line per image whose camera does not fit.
    """

    def __init__(self) -> None:
        self.images = 0
        self.errors: list[str] = []
        self._odd: dict[str, list[str]] = {}

    def add(self, where: str, projection: Sequence[Sequence[float]], width: int, height: int) -> bool:
        """Checks K or P of one image; ``where``: its file. Returns whether it fits."""
        self.images += 1
        try:
            camera = CameraNumbers.of_projection(projection, where)
            check_numbers(camera, width, height, where)
        except InputError as error:
            self.errors.append(str(error))
            return False
        for warning in check_numbers(camera, width, height, "camera"):
            self._odd.setdefault(warning, []).append(where)
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """Each oddity with the number of images that have it and the first of them."""
        return tuple(
            f"{where[0]}: {warning.removeprefix('camera: ')}"
            + (f" (and {len(where) - 1} images more)" if len(where) > 1 else "")
            for warning, where in self._odd.items()
        )
