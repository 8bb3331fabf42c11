"""Scenes in the browser: one self-contained HTML page with the image, a 3D scene and the numbers, all linked.

``save_html`` writes the page of detection results, ``scene_html`` makes that of any scenes, ``open_frames`` reads what
``monolift view`` shows, ``ViewerServer`` shows long sequences frame by frame and saves reviews.
"""

from monolift.viewer.page import result_html, save_html, scene_html
from monolift.viewer.scene import Scene, scene_of

__all__ = ["Scene", "result_html", "save_html", "scene_html", "scene_of"]
