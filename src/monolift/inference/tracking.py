"""Tracks through a video: the same object keeps one id, and its box moves as an object does.

A detector sees every frame for the first time: distances jump by their 5 %, headings turn round, classes alternate. A
`Tracker` links the detections of successive frames and filters each link's box over time:

    position    constant velocity with white acceleration, a Kalman filter (R. E. Kalman, 1960) in the camera frame. What it
                measures is a ray and a distance: sure across the ray, unsure along it.
    size        mean of the logarithms, weighed by score: an object does not grow
    heading     exponential mean on the circle; a measurement that points the other way counts as its opposite and as a vote,
                and the majority decides which end is the front
    class       majority, weighed by score

Association is one assignment per frame (`scipy.optimize.linear_sum_assignment`) of 2D overlap and 3D distance, first for
confident detections, then, as in ByteTrack (Zhang et al., ECCV 2022), for faint ones and the tracks that are left.

Positions are relative to the camera, which moves too; without its motion (`monolift.inference.motion`) a track's velocity is
that of the object *as seen from the camera*, and a parked car approaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monolift.data.sample import Objects
from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Boxes3D, Camera, iou_2d, wrap
from monolift.inference.motion import CameraMotion, over_ground
from monolift.inference.results import Results3D
from monolift.inference.sequences import sequence_of, timed

Array = npt.NDArray[np.float64]

ALIKE = (
    {"Car", "Van", "Truck", "Bus"},
    {"Pedestrian", "Person_sitting", "Cyclist"},
)  # classes that detectors confuse
NEAREST = 0.3  # metres: a predicted distance is kept in front of the camera


@dataclass(frozen=True)
class TrackerSettings:
    """What a `Tracker` assumes. The defaults suit road users seen ten times a second from a moving car.

    Args:
        confident: score from which a detection may begin a track, and is linked first.
        confirm: a track is reported from this detection on (at once in the first frame).
        memory: seconds that a track survives without a detection.
        depth_noise: standard deviation of a measured distance, as a share of it.
        side_noise: standard deviation across the ray, metres at 10 m (grows with distance).
        acceleration: standard deviation of the acceleration right, down and ahead, m/s^2, the camera's included.
        speed: standard deviation of a new track's velocity right, down and ahead, m/s.
        gate: Mahalanobis distance, squared, beyond which 3D positions do not agree (chi-square, 3 degrees, 1 %).
        overlap: 2D IoU below which image positions do not agree.
    """

    confident: float = 0.3
    confirm: int = 2
    memory: float = 1.0
    depth_noise: float = 0.07
    side_noise: float = 0.15
    acceleration: tuple[float, float, float] = (2.0, 0.3, 3.0)
    speed: tuple[float, float, float] = (6.0, 0.5, 15.0)
    gate: float = 11.3
    overlap: float = 0.1

    def __post_init__(self) -> None:
        for name in ("confirm", "memory", "depth_noise", "side_noise", "gate"):
            if not getattr(self, name) > 0:
                raise InputError(f"tracker: {name}: expected more than 0, got {getattr(self, name)}")


@dataclass
class _Track:
    """One object over time. state: position and velocity (6,), metres and m/s; covariance (6, 6)."""

    id: int
    state: Array
    covariance: Array
    seen: float  # seconds: of the last detection
    log_size: Array
    yaw: float
    box2d: Array
    center: Array  # of the filter at the last detection, to which box2d belongs
    weight: float
    hits: int = 1
    front: float = 0.0  # votes for the present front against the other end
    votes: dict[str, float] = field(default_factory=dict)
    reported: bool = False

    @property
    def name(self) -> str:
        """The class with most votes."""
        return max(self.votes, key=lambda name: self.votes[name])


class Tracker:
    """Links detections of successive frames; see the module.

    Args:
        settings: what to assume.

    Raises:
        MissingExtraError: without scipy, which the extra ``video`` brings.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise MissingExtraError("tracking", "video") from None
        self.settings = settings or TrackerSettings()
        self._assign = linear_sum_assignment
        self._tracks: list[_Track] = []
        self._next = 1
        self._time: float | None = None

    def update(self, objects: Objects, camera: Camera, time: float) -> Objects:
        """Link one frame's detections.

        Args:
            objects: detections with scores, classes and 2D boxes, camera frame.
            camera: of the frame.
            time: seconds; later than the frame before.

        Returns:
            The detections that belong to reported tracks, best first, with filtered boxes, ``tracks`` (ids from 1) and
            ``velocity`` (m/s, camera frame).

        Raises:
            InputError: for a time that is not later than the last.
        """
        first = self._time is None
        if self._time is not None and not time > self._time:
            raise InputError(f"tracker: expected a time later than {self._time:g} s, got {time:g} s")
        elapsed = 0.0 if self._time is None else time - self._time
        self._time = time
        self._tracks = [t for t in self._tracks if time - t.seen <= self.settings.memory]
        for track in self._tracks:
            self._predict(track, elapsed)
        scores = _numbers(objects.scores)
        confident = [k for k in range(len(objects)) if scores[k] >= self.settings.confident]
        faint = [k for k in range(len(objects)) if scores[k] < self.settings.confident]
        linked = self._link(objects, camera, confident, self._tracks)
        taken = {id(track) for track in linked.values()}
        linked |= self._link(objects, camera, faint, [t for t in self._tracks if id(t) not in taken])
        for k, track in linked.items():
            self._correct(track, objects, k, time)
        for k in confident:
            if k not in linked:
                linked[k] = self._begin(objects, k, time)
        for track in linked.values():
            track.reported |= first or track.hits >= self.settings.confirm
        kept = [k for k in range(len(objects)) if k in linked and linked[k].reported]
        return _filtered(objects, kept, [linked[k] for k in kept])

    # -- motion ------------------------------------------------------------------------------------------------------------

    def _predict(self, track: _Track, dt: float) -> None:
        """Constant velocity with white acceleration over ``dt`` seconds."""
        move = np.eye(6)
        move[:3, 3:] = dt * np.eye(3)
        spread = np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]])
        noise = np.kron(spread, np.diag(np.square(self.settings.acceleration)))
        track.state = move @ track.state
        track.state[2] = max(track.state[2], NEAREST)
        track.covariance = move @ track.covariance @ move.T + noise

    def _noise(self, position: Array, objects: Objects, k: int) -> Array:
        """(3, 3) covariance of a measured position: the method's own where it states one, else along and across the ray."""
        distance = float(np.linalg.norm(position))
        ray = position / max(distance, NEAREST)
        along = (self.settings.depth_noise * distance) ** 2
        across = (self.settings.side_noise * max(distance, 10.0) / 10) ** 2
        if objects.covariance is not None:
            stated = _numbers(objects.covariance[k, :3, :3])
            along = max(float(ray @ stated @ ray), along / 4)  # networks are sure of what they confuse
        outer = np.outer(ray, ray)
        return along * outer + across * (np.eye(3) - outer)

    def _begin(self, objects: Objects, k: int, time: float) -> _Track:
        position = _numbers(objects.boxes.center[k])
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = self._noise(position, objects, k)
        covariance[3:, 3:] = np.diag(np.square(self.settings.speed))
        score = float(_numbers(objects.scores)[k])
        track = _Track(
            id=self._next,
            state=np.concatenate([position, np.zeros(3)]),
            covariance=covariance,
            seen=time,
            log_size=np.log(_numbers(objects.boxes.size[k])),
            yaw=float(objects.boxes.yaw[k]),
            box2d=_numbers(objects.boxes2d)[k],
            center=position,
            weight=score,
            front=score,
            votes={objects.classes[k]: score},
        )
        self._next += 1
        self._tracks.append(track)
        return track

    def _correct(self, track: _Track, objects: Objects, k: int, time: float) -> None:
        """The Kalman update of the position, and the means of size, heading and class."""
        position, score = _numbers(objects.boxes.center[k]), float(_numbers(objects.scores)[k])
        gain = track.covariance[:, :3] @ np.linalg.inv(
            track.covariance[:3, :3] + self._noise(position, objects, k)
        )
        track.state = track.state + gain @ (position - track.state[:3])
        track.covariance = track.covariance - gain @ track.covariance[:3]
        track.weight += score
        share = max(score / track.weight, 0.03)
        track.log_size = track.log_size + share * (np.log(_numbers(objects.boxes.size[k])) - track.log_size)
        turn = float(wrap(objects.boxes.yaw[k] - track.yaw))
        opposite = abs(turn) > math.pi / 2
        turn = float(wrap(torch.tensor(turn + math.pi))) if opposite else turn
        track.yaw += max(score / track.weight, 0.15) * turn
        track.front = min(track.front + (-score if opposite else score), 3.0)
        if track.front < 0:
            track.yaw, track.front = track.yaw + math.pi, -track.front
        track.votes[objects.classes[k]] = track.votes.get(objects.classes[k], 0.0) + score
        track.box2d, track.center = _numbers(objects.boxes2d)[k], track.state[:3].copy()
        track.seen, track.hits = time, track.hits + 1

    # -- association -------------------------------------------------------------------------------------------------------

    def _link(
        self, objects: Objects, camera: Camera, chosen: list[int], tracks: list[_Track]
    ) -> dict[int, _Track]:
        """Detections among ``chosen`` with the track that each continues."""
        if not chosen or not tracks:
            return {}
        expected = torch.from_numpy(np.stack([_moved_box(t, camera) for t in tracks])).float()
        assert objects.boxes2d is not None
        overlap = iou_2d(objects.boxes2d[chosen].float().cpu(), expected).numpy()
        positions = _numbers(objects.boxes.center[chosen])
        apart = np.empty_like(overlap, dtype=np.float64)
        for i, k in enumerate(chosen):
            noise = self._noise(positions[i], objects, k)
            for j, track in enumerate(tracks):
                step = positions[i] - track.state[:3]
                apart[i, j] = step @ np.linalg.solve(track.covariance[:3, :3] + noise, step)
        cost = 1 - overlap + 0.5 * np.minimum(apart / self.settings.gate, 4)
        names = objects.classes
        impossible = (overlap < self.settings.overlap) & (apart > self.settings.gate)
        impossible |= apart > 4 * self.settings.gate
        impossible |= ~np.array([[_alike(names[k], t.name) for t in tracks] for k in chosen])
        rows, columns = self._assign(np.where(impossible, 1e6, cost))
        return {chosen[i]: tracks[j] for i, j in zip(rows, columns, strict=True) if not impossible[i, j]}


def track(
    results: Iterable[Results3D],
    fps: float = 10.0,
    settings: TrackerSettings | None = None,
    motion: CameraMotion | None = None,
) -> Iterator[Results3D]:
    """Track through the frames of each video and of each folder of images; a new one begins with new tracks.

    Args:
        results: of successive frames, as `Model.stream` gives them.
        fps: frames per second of images from folders; videos know their times.
        settings: what to assume.
        motion: how the camera moves: with it, velocities are over ground instead of as seen from the camera.

    Yields:
        Each frame's result with the objects of reported tracks (see `Tracker.update`), its ``time``, ``frame`` and,
        where the motion is known, ``camera_speed``.

    Raises:
        InputError: for a frame rate that is not positive, or a motion that lacks a frame.
        MissingExtraError: without scipy, which the extra ``video`` brings.
    """
    tracker, here, first = Tracker(settings), None, 0
    for result in timed(results, fps):
        assert result.time is not None and result.frame is not None
        if sequence_of(result) != here:
            tracker, here, first = Tracker(settings), sequence_of(result), result.frame
        objects = tracker.update(result.objects, result.camera, result.time)
        speed = None
        if motion is not None:
            moves = motion.at(result.frame - first)
            objects, speed = over_ground(objects, moves), moves[0]
        yield replace(result, objects=objects, camera_speed=speed)


def _numbers(values: Any) -> Array:
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float64)


def _alike(a: str, b: str) -> bool:
    return a == b or any(a in group and b in group for group in ALIKE)


def _moved_box(track: _Track, camera: Camera) -> Array:
    """(4,) the track's last 2D box where its predicted position puts it, pixels."""
    then, now = track.center, track.state[:3]
    ratio = max(then[2], NEAREST) / max(now[2], NEAREST)
    points = torch.from_numpy(np.stack([then, now])).float()
    shift = _numbers(camera.px_from_cam(points[1:]) - camera.px_from_cam(points[:1]))[0]
    middle, half = (track.box2d[:2] + track.box2d[2:]) / 2, (track.box2d[2:] - track.box2d[:2]) / 2
    return np.concatenate([middle + shift - half * ratio, middle + shift + half * ratio])


def _filtered(objects: Objects, kept: list[int], tracks: list[_Track]) -> Objects:
    """The kept detections with their tracks' boxes, classes, ids and velocities."""
    chosen = objects[torch.tensor(kept, dtype=torch.long)]
    like = objects.boxes.center
    states = np.stack([t.state for t in tracks]) if tracks else np.zeros((0, 6))
    sizes = np.exp(np.stack([t.log_size for t in tracks])) if tracks else np.zeros((0, 3))
    boxes = Boxes3D(
        torch.from_numpy(states[:, :3]).to(like),
        torch.from_numpy(sizes).to(like),
        wrap(torch.tensor([t.yaw for t in tracks]).to(like)),
    )
    names = tuple(dict.fromkeys([*objects.names, *(t.name for t in tracks)]))
    labels = torch.tensor([names.index(t.name) for t in tracks], dtype=torch.long)
    return replace(
        chosen,
        boxes=boxes,
        labels=labels.to(like.device),
        names=names,
        tracks=torch.tensor([t.id for t in tracks], dtype=torch.long).to(like.device),
        velocity=torch.from_numpy(states[:, 3:]).to(like),
    )
