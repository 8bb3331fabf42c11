"""The contract of fitted methods: batches of objects, results that can be indexed, MonoDR behind it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.methods.fitter import FittedMethod, FittedObjects, Fitter, History, Observation, _batches, runs
from monolift.methods.monodr import METHOD, MonoDR, MonoDRConfig
from monolift.render.mesh import Mesh


def observation(image: torch.Tensor, x: float = 10.0, name: str = "Car") -> Observation:
    size = tuple(image.shape[1:])
    mask = torch.zeros(size, dtype=torch.int8)
    mask[8:20, int(x) : int(x) + 24] = 1
    return Observation(
        image=image,
        camera=Camera(60, 60, 32, 12, width=64, height=24),
        mask=mask,
        depth=torch.full(size, 12.0),
        box2d=torch.tensor([x, 8.0, x + 24, 20.0]),
        class_name=name,
    )


def by_hand(observations: Sequence[int], size: int) -> Iterator[list[int]]:
    """The rule in one loop: an image is divided only when it alone has more than ``size``."""
    batch: list[int] = []
    for _, group in groupby(observations):
        image = list(group)
        if batch and len(batch) + len(image) > size:
            yield batch
            batch = []
        batch = batch + image
        while len(batch) >= size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(1, 6))
def test_batches_keep_images_together(counts: list[int], size: int) -> None:
    images = [torch.zeros(3, 24, 64, dtype=torch.uint8) for _ in counts]
    numbers = [k for k, count in enumerate(counts) for _ in range(count)]
    found = list(_batches([observation(images[k]) for k in numbers], size))
    places = {image.data_ptr(): k for k, image in enumerate(images)}
    assert [[places[o.image.data_ptr()] for o in batch] for batch in found] == list(by_hand(numbers, size))


def test_runs_hold_at_most_so_many_or_one_group() -> None:
    assert list(runs(["aa", "b", "cccc", "d", "", "ee"], 3, len)) == [["aa", "b"], ["cccc"], ["d", "", "ee"]]
    assert list(runs([], 3, len)) == []


class Still(Fitter[MonoDRConfig]):
    """Finds a box per object and moves it one metre a step."""

    method = "still"

    def __init__(self, config: MonoDRConfig) -> None:
        self.config = config

    batch = 2
    iterations = 3

    def fit_batch(
        self,
        observations: Sequence[Observation],
        generator: torch.Generator,
        on_step: Callable[[], None],
        history: bool,
    ) -> FittedObjects:
        n = len(observations)
        x = torch.stack([o.box2d[0] for o in observations]) if n else torch.zeros(0)
        steps = []
        for z in range(self.iterations + 1):
            center = torch.stack([x, torch.zeros(n), torch.full((n,), 10.0 + z)], 1)
            steps.append(Boxes3D(center, torch.ones(n, 3), torch.zeros(n)))
            if z:
                on_step()
        faces = torch.tensor([[0, 1, 2]])

        def meshes(step: int) -> tuple[Mesh, ...]:
            return tuple(Mesh(torch.eye(3) + step + c, faces) for c in x.tolist())

        return FittedObjects(
            boxes=steps[-1],
            scores=x / 100,
            meshes=meshes(self.iterations),
            score2d=x,
            shape=torch.zeros(n, 8),
            texture=torch.zeros(n, 8),
            start=steps[0],
            depth_scale=torch.ones(n),
            residuals={"pixel": x},
            trace=History(tuple(steps), meshes) if history else None,
        )


def test_what_is_found_can_be_indexed_with_all_its_columns() -> None:
    image = torch.zeros(3, 24, 64, dtype=torch.uint8)
    steps: list[tuple[int, int]] = []
    places, names = (4.0, 9.0, 14.0, 19.0, 24.0), ("Car", "Van", "Car", "Car", "Van")
    seen = [observation(image, x, name) for x, name in zip(places, names, strict=True)]
    found = Still(MonoDRConfig()).fit(seen, on_step=lambda *step: steps.append(step), history=True)
    assert steps == [(k + 1, 9) for k in range(9)]  # three batches of three steps
    assert isinstance(found, Objects) and len(found) == 5
    assert found.classes == names and found.confidence is found.scores
    assert found.boxes2d is not None and found.boxes2d[:, 0].tolist() == list(places)
    for index, rows in (
        (slice(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        (torch.tensor([False, False, True, False, True]), [2, 4]),
        (2, [2]),
        (slice(0, 0), []),
    ):
        some = found[index]
        assert isinstance(some, FittedObjects) and len(some) == len(rows)
        assert some.residuals["pixel"].tolist() == some.score2d.tolist() == [places[k] for k in rows]
        assert some.start.center[:, 0].tolist() == [places[k] for k in rows]
        assert some.classes == tuple(names[k] for k in rows)
        assert some.history is not None and len(some.history) == 4
        assert some.history[2].center[:, 0].tolist() == [places[k] for k in rows]
        assert [float(m.vertices[0, 1]) for m in some.mesh_at(1)] == [1 + places[k] for k in rows]
        assert len(some.meshes or ()) == len(rows)


def test_nothing_to_fit_is_an_empty_result() -> None:
    for fitter in (Still(MonoDRConfig()), MonoDR(MonoDRConfig(iterations=2))):
        found = fitter.fit([], history=True)
        assert len(found) == 0 and found.classes == ()
        assert len(found.history or ()) == fitter.iterations + 1
        with pytest.raises(InputError, match="kept no history"):
            fitter.fit([]).mesh_at(0)


def test_monodr_is_described_like_a_method() -> None:
    assert isinstance(METHOD, FittedMethod) and METHOD.name == MonoDR.method
    assert {"default", "paper"} <= set(METHOD.presets)
    for preset in METHOD.presets.values():
        config = preset()
        held = json.loads(json.dumps(dataclasses.asdict(config)))
        held = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}
        assert METHOD.config(**held) == config
    assert isinstance(METHOD.fitter(METHOD.config(iterations=1)), Fitter)
    with pytest.raises(TypeError, match="abstract"):
        Fitter()  # type: ignore[abstract]
