"""Claims of SMOKE."""

from __future__ import annotations

from benchmarks.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
