"""An HTTP service round a model: an image and its camera in, 3D boxes out.

    app        routes, documented by OpenAPI; a page at / to try it
    request    a request's bytes to an image, a camera and options; every refusal names its field
    work       from an order to its answer within the limits of memory and time; room: what those limits count with
    batching   one worker; images that wait together go through the network together
    guard      host names, origins and the bearer token
    connections  how many there may be and how long each may take
    metrics    what Prometheus reads

Nothing is stored, nothing is fetched. By default it listens on this machine only, without authentication.
"""

from __future__ import annotations

from monolift.serve.app import create_app
from monolift.serve.connections import ConnectionLimits, protocol
from monolift.serve.guard import Hosts
from monolift.serve.request import Limits

__all__ = ["ConnectionLimits", "Hosts", "Limits", "create_app", "protocol"]
