"""What moves on a synthetic road and is labelled: cars, lorries, people on foot and on bicycles; frames as in `parts`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monolift.shapes.car_mesh import build_mesh
from monolift.shapes.car_texture import CarStyle, paint
from monolift.shapes.procedural import CarShape
from monolift.world.parts import Part, ball, box, colour, join, tube

FloatArray = npt.NDArray[np.floating]


def car(shape: CarShape, style: CarStyle | None) -> Part:
    """A car of the family; unpainted without a style."""
    mesh = build_mesh(shape)
    texture = colour(0.5, 0.5, 0.5) if style is None else paint(shape, style)
    vertices = mesh.vertices - np.array([0, shape.height / 2, 0])
    f = mesh.faces
    return Part(vertices[f], mesh.normals[f], mesh.uv[f], texture, solid=True)


_CLOTHES = (
    (0.02, 0.02, 0.025), (0.03, 0.05, 0.12), (0.12, 0.12, 0.13), (0.30, 0.28, 0.25), (0.35, 0.04, 0.04),
    (0.55, 0.55, 0.53), (0.08, 0.12, 0.06), (0.10, 0.18, 0.35), (0.20, 0.13, 0.08),
)  # fmt: skip
_SKIN = ((0.45, 0.25, 0.17), (0.35, 0.19, 0.12), (0.16, 0.08, 0.05), (0.50, 0.31, 0.22))
_HAIR = ((0.02, 0.015, 0.01), (0.08, 0.05, 0.03), (0.20, 0.13, 0.06), (0.25, 0.24, 0.23))


def _pick(rng: np.random.Generator, colours: Sequence[tuple[float, float, float]]) -> FloatArray:
    return colour(*(np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.8, 1.2)))


def pedestrian(rng: np.random.Generator) -> Part:
    """A walking figure, 1.75 m tall, facing +x."""
    swing = rng.uniform(-0.45, 0.45)
    trousers, jacket, skin, hair = (
        _pick(rng, _CLOTHES),
        _pick(rng, _CLOTHES),
        _pick(rng, _SKIN),
        _pick(rng, _HAIR),
    )
    shoes = colour(0.02, 0.02, 0.02)
    parts = []
    for side in (1.0, -1.0):
        reach = side * swing
        knee, foot = (
            np.array([reach * 0.35 + 0.04, -0.48, side * 0.09]),
            np.array([reach * 0.8, -0.06, side * 0.09]),
        )
        hip = np.array([0, -0.92, side * 0.08])
        parts.append(tube(np.array([hip, knee, foot]), np.array([0.095, 0.07, 0.05]), trousers))
        parts.append(
            tube(
                np.array([foot + np.array([-0.07, 0.02, 0]), foot + np.array([0.17, 0.03, 0])]),
                np.array([0.045, 0.035]),
                shoes,
                6,
            )
        )
        shoulder = np.array([0, -1.40, side * 0.20])
        hand = np.array([-reach * 0.6 + 0.05, -0.82, side * 0.25])
        elbow = (shoulder + hand) / 2 + [-0.04, 0, side * 0.02]
        parts.append(tube(np.array([shoulder, elbow, hand]), np.array([0.06, 0.05, 0.035]), jacket, 6))
        parts.append(ball(hand, (0.045, 0.06, 0.04), skin))
    torso = np.array([(0, -0.86, 0), (0.0, -1.05, 0), (0.01, -1.25, 0), (0, -1.42, 0), (0, -1.48, 0)])
    parts.append(tube(torso, np.array([0.13, 0.125, 0.14, 0.12, 0.05]), jacket, 10, 1.45))
    parts.append(ball((0.02, -1.62, 0), (0.095, 0.125, 0.085), skin))
    parts.append(ball((-0.01, -1.67, 0), (0.10, 0.10, 0.093), hair))
    return join(parts)


def cyclist(rng: np.random.Generator) -> Part:
    """A bicycle with its rider, heading +x."""
    frame, black = _pick(rng, _CLOTHES), colour(0.012, 0.012, 0.012)
    trousers, jacket, skin, head = (
        _pick(rng, _CLOTHES),
        _pick(rng, _CLOTHES),
        _pick(rng, _SKIN),
        _pick(rng, _CLOTHES + _HAIR),
    )
    angle = np.linspace(0, 2 * np.pi, 17)
    parts = []
    for hub in (0.53, -0.53):
        ring = np.stack([hub + 0.33 * np.cos(angle), -0.34 + 0.33 * np.sin(angle), np.zeros(17)], 1)
        parts.append(tube(ring, np.full(17, 0.022), black, 4))
        for spoke in (0.3, 1.35, 2.4):
            reach = 0.3 * np.array([np.cos(spoke), np.sin(spoke), 0])
            middle = np.array([hub, -0.34, 0])
            parts.append(
                tube(np.array([middle - reach, middle + reach]), np.full(2, 0.006), colour(0.2, 0.2, 0.2), 3)
            )
    joints = {
        "rear": (-0.53, -0.34, 0),
        "crank": (-0.08, -0.30, 0),
        "seat": (-0.22, -0.92, 0),
        "stem": (0.36, -0.95, 0),
        "front": (0.53, -0.34, 0),
    }
    for a, b in (
        ("rear", "crank"),
        ("crank", "seat"),
        ("seat", "rear"),
        ("crank", "stem"),
        ("stem", "front"),
        ("seat", "stem"),
    ):
        parts.append(tube(np.array([joints[a], joints[b]]), np.full(2, 0.022), frame, 5))
    parts.append(tube(np.array([(0.38, -1.02, -0.26), (0.38, -1.02, 0.26)]), np.full(2, 0.018), black, 5))
    phase = rng.uniform(0, 2 * np.pi)
    for side, turn in ((1.0, phase), (-1.0, phase + np.pi)):
        foot = np.array([-0.08 + 0.16 * np.cos(turn), -0.28 + 0.16 * np.sin(turn), side * 0.10])
        hip = np.array([-0.22, -0.98, side * 0.09])
        knee = (hip + foot) / 2 + np.array([0.22, -0.08, side * 0.03])
        parts.append(tube(np.array([hip, knee, foot]), np.array([0.09, 0.065, 0.045]), trousers))
        parts.append(
            tube(
                np.array([foot + np.array([-0.06, 0.02, 0]), foot + np.array([0.16, 0.03, 0])]),
                np.array([0.04, 0.03]),
                black,
                6,
            )
        )
        shoulder, hand = np.array([0.08, -1.45, side * 0.19]), np.array([0.40, -1.05, side * 0.24])
        elbow = (shoulder + hand) / 2 + np.array([-0.03, 0.06, side * 0.04])
        parts.append(tube(np.array([shoulder, elbow, hand]), np.array([0.055, 0.045, 0.035]), jacket, 6))
    torso = np.array([(-0.24, -0.95, 0), (-0.13, -1.15, 0), (0.02, -1.38, 0), (0.10, -1.50, 0)])
    parts.append(tube(torso, np.array([0.13, 0.13, 0.13, 0.05]), jacket, 10, 1.4))
    parts.append(ball((0.16, -1.63, 0), (0.095, 0.125, 0.085), skin))
    parts.append(ball((0.14, -1.68, 0), (0.10, 0.10, 0.093), head))
    return join(parts)


def lorry(rng: np.random.Generator, length: float, height: float, width: float) -> Part:
    """A box lorry: cab, load, wheels, lamps."""
    cab = colour(
        *rng.choice([(0.6, 0.6, 0.58), (0.3, 0.02, 0.02), (0.03, 0.07, 0.25), (0.5, 0.3, 0.02)]), gloss=0.3
    )
    load = colour(
        *(
            rng.choice([(0.65, 0.65, 0.63), (0.4, 0.4, 0.42), (0.08, 0.15, 0.3), (0.35, 0.25, 0.1)])
            * rng.uniform(0.7, 1.1)
        )
    )
    black, glass, red = (
        colour(0.012, 0.012, 0.012),
        colour(0.02, 0.025, 0.03, gloss=1.0),
        colour(0.4, 0.01, 0.01, gloss=0.5),
    )
    front, cab_height = length / 2, min(height, rng.uniform(2.4, 3.0))
    reach = rng.uniform(1.7, 2.2)
    parts = [
        box((reach, cab_height - 0.45, width), (front - reach / 2, -(cab_height + 0.45) / 2, 0), cab),
        box((0.03, 0.8, 0.86 * width), (front + 0.001, -cab_height + 0.65, 0), glass),
        box((0.7, 0.65, width + 0.01), (front - 0.75, -cab_height + 0.6, 0), glass),
        box((0.04, 0.18, 0.96 * width), (front, -0.75, 0), black),
        box(
            (length - reach - 0.15, height - 0.95, width),
            (-(reach + 0.15) / 2, -(height + 0.95) / 2, 0),
            load,
        ),
        box((length - 0.3, 0.45, 0.8 * width), (-0.1, -0.75, 0), black),
    ]
    for side in (1.0, -1.0):
        parts.append(
            box(
                (0.05, 0.16, 0.3),
                (front + 0.01, -0.78, side * (width / 2 - 0.25)),
                colour(0.7, 0.72, 0.74, gloss=1.0),
            )
        )
        parts.append(box((0.04, 0.16, 0.3), (-front - 0.01, -0.85, side * (width / 2 - 0.25)), red))
        for axle in (front - 1.1, -front + 1.6, *([-front + 2.8] if length > 9 else [])):
            inner, outer = side * (width / 2 - 0.28), side * (width / 2)
            parts.append(
                tube(np.array([(axle, -0.48, inner), (axle, -0.48, outer)]), np.full(2, 0.48), black, 14)
            )
            parts.append(
                tube(
                    np.array([(axle, -0.48, outer), (axle, -0.48, outer + side * 0.005)]),
                    np.full(2, 0.24),
                    colour(0.2, 0.2, 0.2),
                    10,
                )
            )
    return join(parts).fitted(length, height, width)
