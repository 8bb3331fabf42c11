"""Claims of ROI-10D."""

from __future__ import annotations

from benchmarks.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
