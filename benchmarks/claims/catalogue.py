"""All claims, by id, in the order of the methods' papers."""

from __future__ import annotations

from benchmarks.claims import monodr, roi10d, smoke, ss3d
from benchmarks.claims.claim import Claim


def catalogue() -> dict[str, Claim]:
    """Claims by id. Raises ValueError where two share an id."""
    found: dict[str, Claim] = {}
    for module in (smoke, ss3d, roi10d, monodr):
        for claim in module.CLAIMS:
            if claim.id in found:
                raise ValueError(f"two claims have the id {claim.id}")
            found[claim.id] = claim
    return found
