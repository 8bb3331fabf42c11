"""Claims of SS3D."""

from __future__ import annotations

from benchmarks.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
