"""Which detection takes which ground truth, at every score threshold at once.

The official program runs its greedy matching over all images anew for each of up to 41 thresholds. But images do not touch
each other, and within an image only boxes that overlap do: nearly every object has one candidate that nobody else
wants. So matching is solved once per group of boxes that compete, as a step function of the threshold, and what a table
needs at threshold t is the sum of the steps at scores >= t. The same steps give every precision-recall point, and, weighted
by image, every bootstrap sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_CELLS = 1_000_000
"""Competing detections x thresholds that are worked on at a time: bounds the memory for crowded images."""


@dataclass(frozen=True)
class Problem:
    """One class, one metric, one IoU threshold; all difficulty levels (L) together.

    G ground truths, D detections, P pairs of one image whose overlap exceeds the IoU threshold, sorted by ground truth and
    then by detection, both in file order.
    """

    gt_valid: BoolArray
    """(G, L) counts as missed unless found; False for a paired ground truth means: matched, but not counted."""
    det_valid: BoolArray
    """(D, L) counts as false unless matched."""
    det_ignored: BoolArray
    """(D, L) too small for the level: takes a ground truth only if no valid detection does, and nothing is counted."""
    det_free: BoolArray
    """(D,) lies in a DontCare region: not false even if unmatched."""
    score: FloatArray
    """(D,)"""
    pair_gt: IntArray
    """(P,)"""
    pair_det: IntArray
    """(P,)"""
    overlap: FloatArray
    """(P,)"""
    similarity: FloatArray
    """(P,) (1 + cos(difference of alpha)) / 2, what AOS sums over true positives."""


@dataclass(frozen=True)
class Steps:
    """What changes when the threshold sinks to each detection's score, (D, L) each; sums over score >= t are the counts."""

    tp: IntArray
    fp: IntArray
    swallowed: IntArray
    """Valid ground truths taken by an ignored detection: neither found nor missed."""
    similarity: FloatArray
    hit: BoolArray
    """True positives of the first pass, whose scores the thresholds are chosen from."""


def solve(problem: Problem) -> Steps:
    """The step functions of the official two-pass matching."""
    p = problem
    steps = Steps(
        tp=np.zeros(p.det_valid.shape, dtype=np.int64),
        fp=(p.det_valid & ~p.det_free[:, None]).astype(np.int64),
        swallowed=np.zeros(p.det_valid.shape, dtype=np.int64),
        similarity=np.zeros(p.det_valid.shape),
        hit=np.zeros(p.det_valid.shape, dtype=bool),
    )
    gt_pairs = np.bincount(p.pair_gt, minlength=len(p.gt_valid))
    det_pairs = np.bincount(p.pair_det, minlength=len(p.score))
    alone = (gt_pairs[p.pair_gt] == 1) & (det_pairs[p.pair_det] == 1)
    _solve_alone(p, steps, np.flatnonzero(alone))
    for pairs in _groups(p, np.flatnonzero(~alone)):
        _Competition(p, pairs).solve(steps)
    return steps


def _solve_alone(p: Problem, steps: Steps, pairs: IntArray) -> None:
    """Pairs whose two boxes have no other candidate: the detection takes the ground truth as soon as it is visible."""
    gt, det = p.pair_gt[pairs], p.pair_det[pairs]
    found = p.gt_valid[gt] & p.det_valid[det]
    steps.tp[det] = found
    steps.hit[det] = found
    steps.similarity[det] = found * p.similarity[pairs, None]
    steps.fp[det] = 0  # valid or not: it is taken
    steps.swallowed[det] = p.gt_valid[gt] & p.det_ignored[det]


def _groups(p: Problem, pairs: IntArray) -> list[IntArray]:
    """The pairs split into sets that share no box, each a union of connected components of similar size."""
    if not len(pairs):
        return []
    gt = np.unique(p.pair_gt[pairs], return_inverse=True)[1]
    det = np.unique(p.pair_det[pairs], return_inverse=True)[1]
    label = _components(gt, det)
    size = np.bincount(label)  # detections in the component that bears this label
    component = label[det]
    order = np.lexsort((np.arange(len(pairs)), component, size[component]))
    groups, first, cells = [], 0, 0
    starts = np.flatnonzero(np.r_[True, np.diff(component[order]) != 0]).tolist()
    for start in starts:
        n = int(size[component[order[start]]])
        # the group is padded to the size of its largest component, which comes last
        if start > first and (cells + n) * n > _CELLS:
            groups.append(np.sort(pairs[order[first:start]]))
            first, cells = start, 0
        cells += n
    groups.append(np.sort(pairs[order[first:]]))
    return groups


def _components(gt: IntArray, det: IntArray) -> IntArray:
    """(D,) the smallest detection that each one is connected to by pairs; both sides are numbered from 0 without gaps."""
    label = np.arange(det.max() + 1)
    while True:
        gt_label = np.full(gt.max() + 1, len(label))
        np.minimum.at(gt_label, gt, label[det])
        spread = label.copy()
        np.minimum.at(spread, det, gt_label[gt])
        if (spread == label).all():
            return label
        label = spread[spread]


class _Competition:
    """Greedy matching in components of several ground truths and detections, in lockstep over components.

    Ground truths are taken in file order. Two of them may go in the same round if no chain of shared candidates orders
    them, so a round holds all ground truths of equal depth. K thresholds: the K-th highest distinct score within the
    component; a detection is visible at k if its own rank is at most k.
    """

    def __init__(self, p: Problem, pairs: IntArray) -> None:
        self.gt_id, self.gt = np.unique(p.pair_gt[pairs], return_inverse=True)
        self.det_id, self.det = np.unique(p.pair_det[pairs], return_inverse=True)
        self.overlap, self.similarity = p.overlap[pairs], p.similarity[pairs]
        self.gt_valid = p.gt_valid[self.gt_id]
        self.valid, self.ignored = p.det_valid[self.det_id], p.det_ignored[self.det_id]
        self.counts_as_fp = self.valid & ~p.det_free[self.det_id, None]
        self.score = p.score[self.det_id]
        self.component = np.unique(_components(self.gt, self.det), return_inverse=True)[1]
        self._rank_scores()
        self.rounds = self._rounds()

    def _rank_scores(self) -> None:
        """rank (D,) among the distinct scores of the component, 0 the highest; heads: one detection for each of them."""
        order = np.lexsort((-self.score, self.component))
        component, score = self.component[order], self.score[order]
        new_component = np.r_[True, np.diff(component) != 0]
        new_score = new_component | np.r_[True, np.diff(score) != 0]
        count = np.cumsum(new_score) - 1
        rank = count - count[new_component][np.cumsum(new_component) - 1]
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = rank
        self.heads = order[new_score]
        self.n_ranks = int(rank.max()) + 1

    def _rounds(self) -> list[IntArray]:
        """For each round the (G', C) indices of the pairs of its ground truths, in file order, -1 where there are fewer."""
        by_det = np.lexsort((self.gt, self.det))
        same = np.diff(self.det[by_det]) == 0
        before, after = self.gt[by_det[:-1]][same], self.gt[by_det[1:]][same]
        depth = np.zeros(len(self.gt_id), dtype=np.int64)
        while True:
            deeper = depth.copy()
            np.maximum.at(deeper, after, depth[before] + 1)
            if (deeper == depth).all():
                break
            depth = deeper
        n = np.bincount(self.gt)
        first = np.cumsum(n) - n
        rounds = []
        for d in range(int(depth.max()) + 1):
            gts = np.flatnonzero(depth == d)
            column = np.arange(n[gts].max())
            rounds.append(np.where(column < n[gts, None], first[gts, None] + column, -1))
        return rounds

    def solve(self, steps: Steps) -> None:
        """Enter both passes into the steps."""
        shape = (len(self.det_id), self.valid.shape[1], 1)
        taken = np.zeros(shape, dtype=bool)
        for pairs in self.rounds:
            choice = self._by_score(pairs, taken)
            self._take(choice, taken)
            found = self._found(pairs, choice)
            g, level, k = np.nonzero(found)
            steps.hit[self.det_id[self.det[choice[g, level, k]]], level] = True

        taken = np.zeros((*shape[:2], self.n_ranks), dtype=bool)
        n_components = int(self.component.max()) + 1
        tp = np.zeros((n_components, *taken.shape[1:]), dtype=np.int64)
        swallowed, similarity = np.zeros_like(tp), np.zeros(tp.shape)
        for pairs in self.rounds:
            choice = self._by_overlap(pairs, taken)
            self._take(choice, taken)
            component = self.component[self.det[pairs[:, 0]]]
            found = self._found(pairs, choice)
            np.add.at(tp, component, found)
            np.add.at(similarity, component, np.where(found, self.similarity[choice], 0.0))
            valid_gt = self.gt_valid[self.gt[pairs[:, 0]]][:, :, None]
            np.add.at(swallowed, component, valid_gt & (choice >= 0) & ~found)
        spared = np.zeros_like(tp)
        np.add.at(spared, self.component, taken & self.counts_as_fp[:, :, None])

        head, k = self.heads, self.rank[self.heads]
        component, to = self.component[head], self.det_id[head]
        steps.tp[to] += _rise(tp, component, k)
        steps.swallowed[to] += _rise(swallowed, component, k)
        steps.similarity[to] += _rise(similarity, component, k)
        steps.fp[to] -= _rise(spared, component, k)

    def _by_score(self, pairs: IntArray, taken: BoolArray) -> IntArray:
        """(G', L, 1) the pair of highest score among those still free, or -1; the first of equals."""
        choice = np.full((len(pairs), *taken.shape[1:]), -1)
        best = np.full(choice.shape, -np.inf)
        for pair in pairs.T:
            det = self.det[pair]
            free = ((pair[:, None] >= 0) & (self.valid | self.ignored)[det])[:, :, None] & ~taken[det]
            score = self.score[det][:, None, None]
            better = free & (score > best)
            choice = np.where(better, pair[:, None, None], choice)
            best = np.where(better, score, best)
        return choice

    def _by_overlap(self, pairs: IntArray, taken: BoolArray) -> IntArray:
        """(G', L, K) the valid pair of largest overlap, failing that the first ignored one, or -1."""
        choice = np.full((len(pairs), *taken.shape[1:]), -1)
        best = np.zeros(
            choice.shape
        )  # stays 0 while an ignored detection is chosen: any valid one replaces it
        for pair in pairs.T:
            det = self.det[pair]
            visible = (pair[:, None] >= 0) & (self.rank[det][:, None] <= np.arange(self.n_ranks))
            free = visible[:, None, :] & ~taken[det]
            overlap = self.overlap[pair][:, None, None]
            better = free & self.valid[det][:, :, None] & (overlap > best)
            fallback = free & self.ignored[det][:, :, None] & (choice < 0)
            choice = np.where(better | fallback, pair[:, None, None], choice)
            best = np.where(better, overlap, best)
        return choice

    def _take(self, choice: IntArray, taken: BoolArray) -> None:
        g, level, k = np.nonzero(choice >= 0)
        taken[self.det[choice[g, level, k]], level, k] = True

    def _found(self, pairs: IntArray, choice: IntArray) -> BoolArray:
        """Where a valid ground truth got a valid detection."""
        levels = np.arange(choice.shape[1])[None, :, None]
        valid_det = self.valid[self.det[choice], levels]
        return self.gt_valid[self.gt[pairs[:, 0]]][:, :, None] & (choice >= 0) & valid_det


def _rise(counts: npt.NDArray[np.generic], component: IntArray, k: IntArray) -> npt.NDArray[np.generic]:
    """(H, L) by how much a count (components, L, K) is larger at threshold k than at the one before."""
    here = counts[component, :, k]
    before = np.where((k > 0)[:, None], counts[component, :, np.maximum(k - 1, 0)], 0)
    return here - before
