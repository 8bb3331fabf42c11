"""Houses, trees, lamps and hedges along a synthetic street: all that is not labelled."""

from __future__ import annotations

import numpy as np

from monolift.world import parts as props
from monolift.world.layout import Scene
from monolift.world.parts import Part


def build_surroundings(scene: Scene, rng: np.random.Generator) -> None:
    g = scene.ground
    density = {"residential": 0.75, "city": 0.92, "country": 0.15}[scene.kind]
    for side in (1.0, -1.0):
        setback = (
            g.road
            + g.parking
            + g.pavement
            + (rng.uniform(0.2, 1.5) if scene.kind == "city" else rng.uniform(2, 9))
        )
        s = rng.uniform(-10, 0)
        while s < 95:
            length = rng.uniform(8, 22)
            height = rng.uniform(3, 6.5) if scene.kind != "city" else rng.uniform(7, 18)
            opening = (
                g.crossing_at is not None
                and s - 2 < g.crossing_at + g.crossing
                and s + length + 2 > g.crossing_at - g.crossing
            )
            if rng.random() < density and not opening:
                depth = rng.uniform(7, 11)
                gabled = scene.kind != "city" or rng.random() < 0.4
                _stand(
                    scene,
                    props.house(rng, length, depth, height, gabled),
                    s + length / 2,
                    side * (setback + depth / 2),
                    rng.normal(0, 0.02),
                )
            elif rng.random() < 0.8 and not opening:
                for _ in range(rng.integers(1, 4)):
                    at = s + rng.uniform(0, length)
                    _plant(scene, rng, rng.uniform(5, 13), at, side * (setback + rng.uniform(0, 6)))
            s += length + (rng.uniform(0.0, 0.5) if scene.kind == "city" else rng.uniform(1, 10))
        _line(scene, rng, side, setback)
        _wild(scene, rng, side)
    # Beyond what is placed: a belt of woods and roofs that closes the view.
    _backdrop(scene, rng)


def _line(scene: Scene, rng: np.random.Generator, side: float, setback: float) -> None:
    """Trees, lamps, hedges and small things along the kerb."""
    g = scene.ground
    kerb = g.road + g.parking + 0.15
    row = rng.random() < {"residential": 0.45, "city": 0.35, "country": 0.6}[scene.kind]
    s = rng.uniform(4, 14)
    while row and s < 85:
        if rng.random() < 0.75:
            _plant(scene, rng, rng.uniform(4, 9), s, side * (kerb + rng.uniform(0.5, 1.2)))
        s += rng.uniform(7, 14)
    for s in rng.uniform(6, 70, rng.poisson(4.0)):
        turn = np.pi / 2 if side > 0 else -np.pi / 2
        _stand(scene, [props.pole(rng)], float(s), side * (kerb + rng.uniform(0.2, 0.7)), turn - np.pi / 2)
    for s in rng.uniform(6, 50, rng.poisson(2.0)):
        _stand(
            scene,
            [props.clutter(rng)],
            float(s),
            side * rng.uniform(kerb + 0.9, max(setback, kerb + 1.5)),
            rng.uniform(-0.2, 0.2),
        )
    if scene.kind == "residential" and rng.random() < 0.6:
        green = rng.random() < 0.6
        texture = (
            props.foliage(rng, props.leaf_colour(rng, 0.02))
            if green
            else props.speckle(rng, np.array((0.3, 0.27, 0.23)) * rng.uniform(0.4, 1.2), 0.15)
        )
        height, thickness = rng.uniform(0.7, 1.8), 0.8 if green else 0.25
        for k in range(14):
            s = 3.0 + 6.0 * k
            if g.crossing_at is not None and abs(s - g.crossing_at) < g.crossing + 4:
                continue
            if rng.random() < 0.85:
                hedge = props.box((5.4, height, thickness), (0, -height / 2, 0), texture, 1.5)
                _stand(scene, [hedge], s, side * (kerb + g.pavement + 0.6), 0.0)


def _plant(scene: Scene, rng: np.random.Generator, height: float, s: float, t: float) -> None:
    """A tree with smaller and more leaves the nearer it stands."""
    _stand(scene, props.tree(rng, height, int(np.clip(28_000 / max(s, 1.0), 350, 2600))), s, t, 0.0)


def _wild(scene: Scene, rng: np.random.Generator, side: float) -> None:
    """Woods, shrubs and barriers along the street, as they often line KITTI's roads."""
    g = scene.ground
    kerb = g.road + g.parking + 0.15
    woods, barrier = {"residential": (0.15, 0.08), "city": (0.05, 0.2), "country": (0.6, 0.35)}[scene.kind]
    if rng.random() < woods:
        first = rng.uniform(-4, 25)
        s = np.arange(first, min(first + rng.uniform(20, 90), 95), 0.8)
        t = side * (kerb + rng.uniform(1.5, 9.0) + 0.5 * np.sin(s / rng.uniform(4, 12)))
        if g.crossing_at is not None:
            s, t = s[s < g.crossing_at - g.crossing - 3], t[s < g.crossing_at - g.crossing - 3]
        if len(s) > 5:
            line = np.array([scene.place(float(a), float(b))[0] for a, b in zip(s, t, strict=True)])
            height = rng.uniform(1.2, 3.0) if rng.random() < 0.4 else rng.uniform(4, 11)
            scene.scenery.append(props.thicket(rng, line[:: int(-side)], height))
    if rng.random() < barrier:
        rail = props.railing(rng, 6.0)
        for at in np.arange(rng.uniform(2, 20), rng.uniform(30, 80), 6.0):
            if g.crossing_at is None or abs(at - g.crossing_at) > g.crossing + 5:
                _stand(scene, [rail], float(at), side * (kerb + 0.3), 0.0)


def _stand(scene: Scene, parts: list[Part], s: float, t: float, turn: float) -> None:
    bottom, road = scene.place(s, t)
    yaw = road - np.pi / 2 + turn
    scene.scenery += [p.placed(bottom, yaw) for p in parts]


def _backdrop(scene: Scene, rng: np.random.Generator) -> None:
    """Two belts of woods and roofs, the farther one higher and hazier."""
    for radius, mean in ((95.0, rng.uniform(2, 5)), (160.0, rng.uniform(4, 10))):
        n = 400
        angle = np.linspace(-1.1, 1.1, n)
        x, z = radius * np.sin(angle), radius * np.cos(angle)
        base = scene.ground.y(x, z)
        # Crowns of trees: round tops side by side, of all heights, with gaps here and there.
        middle, wide, tall = rng.uniform((-1.1, 0.015, 0.5), (1.1, 0.05, 1.5), (70, 3)).T[..., None]
        crowns = (np.sqrt(np.maximum(1 - np.square((angle - middle) / wide), 0)) * tall).max(0)
        height = np.maximum(mean * (crowns + rng.normal(0, 0.04, n)), 0.8)
        low, high = np.stack([x, base + 2, z], 1), np.stack([x, base - height, z], 1)
        one, two = np.arange(n - 1), np.arange(1, n)
        left = np.stack([low[one], high[one], high[two]], 1)
        right = np.stack([low[one], high[two], low[two]], 1)
        corners = np.concatenate([left, right])
        normals = np.broadcast_to(np.array([0.0, -0.43, -0.9]), corners.shape)
        uv = np.stack([corners[..., 0], corners[..., 1]], -1) / 12.0
        green = np.array([0.05, 0.07, 0.03]) * rng.uniform(0.5, 1.2)
        scene.scenery.append(Part(corners, normals, uv, props.foliage(rng, green)))
