"""An HTTP service round a model: an image and its camera in, 3D boxes out.

    app        routes, documented by OpenAPI; a page at / to try it
    request    a request's bytes to an image, a camera and options; every refusal names its field
    batching   one worker; images that wait together go through the network together
    metrics    what Prometheus reads

Nothing is stored, nothing is fetched. There is no authentication: by default it listens on this machine only.
"""

from __future__ import annotations

from monolift.serve.app import create_app
from monolift.serve.request import Limits

__all__ = ["Limits", "create_app"]
