"""Overlap of rotated rectangles in rational arithmetic: slow, exact, and nothing in common with the package's way.

Rectangles are turned by angles whose cosine and sine are rational: with t = tan(angle / 2), cos = (1 - t^2) / (1 + t^2) and
sin = 2 t / (1 + t^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

Point = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Rectangle:
    """Centre, length, width and the tangent of half the yaw."""

    x: Fraction
    z: Fraction
    length: Fraction
    width: Fraction
    half_tangent: Fraction

    def corners(self) -> list[Point]:
        t = self.half_tangent
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        half = [(self.length / 2, self.width / 2), (self.length / 2, -self.width / 2),
                (-self.length / 2, -self.width / 2), (-self.length / 2, self.width / 2)]  # fmt: skip
        return [(cos * a + sin * b + self.x, -sin * a + cos * b + self.z) for a, b in half]

    def numbers(self) -> list[float]:
        """x, z, length, width, yaw, rounded to floats."""
        yaw = 2 * math.atan(float(self.half_tangent))
        return [float(self.x), float(self.z), float(self.length), float(self.width), yaw]


def area(polygon: list[Point]) -> Fraction:
    """Shoelace formula, without sign."""
    total = Fraction(0)
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        total += ax * by - ay * bx
    return abs(total) / 2


def common_area(a: Rectangle, b: Rectangle) -> Fraction:
    """Cut polygon a by each side of b in turn (Sutherland and Hodgman, 1974)."""
    polygon, sides = a.corners(), b.corners()
    for start, end in zip(sides, sides[1:] + sides[:1], strict=True):
        polygon = _cut(polygon, start, end)
    return area(polygon) if polygon else Fraction(0)


def _cut(polygon: list[Point], start: Point, end: Point) -> list[Point]:
    def depth(p: Point) -> Fraction:
        """Positive inside: the corners run clockwise in the x-z plane."""
        return (end[1] - start[1]) * (p[0] - start[0]) - (end[0] - start[0]) * (p[1] - start[1])

    kept: list[Point] = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        dp, dq = depth(p), depth(q)
        if dp >= 0:
            kept.append(p)
        if (dp > 0 > dq) or (dp < 0 < dq):
            t = dp / (dp - dq)
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return kept
