"""KITTI's object evaluation, equal to the official program; numpy only, no torch, no GPU, no network known.

    table = monolift.evaluate(labels="training/label_2", predictions="results", split="val.txt")
    print(table)
    table.row("3d", "Car", "moderate").ap_r40

Read on: `protocol` (the constants), `corpus` (boxes and their overlaps), `matching` (who takes whom), `ap` (thresholds,
curves), `notes` (what the official program does silently), `diagnostics` and `report` (why the AP is what it is),
`comparison` (several runs, confidence intervals, seeds), `dataset` (is a data set sound).
"""

from __future__ import annotations

from monolift.evaluation.comparison import Comparison, compare
from monolift.evaluation.table import Evaluation, evaluate

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]
