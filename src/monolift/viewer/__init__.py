"""Scenes in the browser: one self-contained HTML page with the picture, a 3D scene and the numbers, all linked.

``scene_html`` makes the page, ``open_frames`` reads whatever ``monolift view`` is pointed at, ``ViewerServer`` shows long
sequences frame by frame and saves reviews.
"""

from monolift.viewer.page import scene_html
from monolift.viewer.scene import Scene, SceneObjects

__all__ = ["Scene", "SceneObjects", "scene_html"]
