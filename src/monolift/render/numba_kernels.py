"""What ``numba_path`` runs: rasterise, shade and antialias one object in one pass over memory, and the same backwards.

The arithmetic is that of ``rasterize``, ``shade`` and ``antialias`` and is explained there. Arrays are numpy's, with the axes
those modules give them; only ``forward`` and ``backward`` have a leading axis of objects: they do a range of them and
release the interpreter. ``depth`` and ``colour`` are what a pixel sees, ``image`` is ``colour`` smoothed. ``cut_edge``
(H, W, 2) is the edge that passes between a pixel and the next one to the right [0] and below [1], or -1; ``cut_offset``
says where.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit

from monolift.render.antialias import DEPTH_TOLERANCE
from monolift.render.rasterize import MIN_AREA, NEAR

# Division by zero gives inf as in numpy and torch. No fast-math: it would assume that NaN does not exist.
# ``no_type_check`` keeps run-time checkers of annotations from wrapping what numba has to read.
_kernel = njit(nogil=True, cache=True, error_model="numpy")

_f = np.float32
_NEAR, _MIN_AREA, _TOLERANCE = _f(NEAR), _f(MIN_AREA), _f(DEPTH_TOLERANCE)
_ONE, _ZERO, _HALF = _f(1), _f(0), _f(0.5)


# --- forward


@_kernel
@no_type_check
def forward(
    first,
    last,
    screen,
    texture,
    faces,
    uvs,
    edges,
    edge_faces,
    opposite,
    face,
    depth,
    colour,
    image,
    cut_edge,
    cut_offset,
):
    drawn = np.empty(len(faces), np.bool_)
    for b in range(first, last):
        _nearest_faces(screen[b], faces, face[b], depth[b], drawn)
        _shade(screen[b], texture[b], faces, uvs, face[b], depth[b], colour[b])
        image[b] = colour[b]
        for e in range(len(edges)):
            second = edge_faces[e, 1]
            by_first, by_second = drawn[edge_faces[e, 0]], second >= 0 and drawn[second]
            if by_first != by_second:
                inner = opposite[e, 0] if by_first else opposite[e, 1]
                _walk_edge(
                    screen[b],
                    edges[e, 0],
                    edges[e, 1],
                    inner,
                    e,
                    face[b],
                    depth[b],
                    cut_edge[b],
                    cut_offset[b],
                )
        _blend(colour[b], cut_edge[b], cut_offset[b], image[b])


@_kernel
@no_type_check
def _nearest_faces(screen, faces, face, nearness, drawn):
    """Fills ``face`` and ``nearness`` (inverse depth, 0 where no face is seen) of one image, and which faces are drawn."""
    height, width = face.shape
    face[:] = -1
    nearness[:] = 0
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = screen[a, 0], screen[a, 1], screen[a, 2]
        x1, y1, z1 = screen[b, 0], screen[b, 1], screen[b, 2]
        x2, y2, z2 = screen[c, 0], screen[c, 1], screen[c, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        seen = area < -_MIN_AREA and z0 > _NEAR and z1 > _NEAR and z2 > _NEAR
        drawn[f] = seen and np.isfinite(area) and np.isfinite(z0) and np.isfinite(z1) and np.isfinite(z2)
        if not drawn[f]:
            continue
        top = max(np.ceil(min(y0, y1, y2)), _ZERO)
        bottom = min(np.floor(max(y0, y1, y2)), _f(height - 1))
        if top > bottom:
            continue
        q0, q1, q2 = _ONE / z0, _ONE / z1, _ONE / z2
        low, high = min(q0, q1, q2), max(q0, q1, q2)
        qx = ((q1 - q0) * (y2 - y0) - (q2 - q0) * (y1 - y0)) / area
        qy = ((x1 - x0) * (q2 - q0) - (x2 - x0) * (q1 - q0)) / area
        ends = ((a, b), (b, c), (c, a))
        for row in range(int(top), int(bottom) + 1):
            y = _f(row)
            start, stop = _ZERO, _f(width - 1)
            for i, j in ends:
                start, stop = _cut(screen, i, j, y, start, stop)
            if start > stop:
                continue
            for column in range(int(start), int(stop) + 1):
                q = q0 + (_f(column) - x0) * qx + (y - y0) * qy
                q = min(max(q, low), high)
                if q > nearness[row, column]:
                    nearness[row, column] = q
                    face[row, column] = f


@_kernel
@no_type_check
def _cut(screen, i, j, y, start, stop):
    """The interval [start, stop] of row y, cut at the edge from vertex i to vertex j of a drawn face."""
    downward = screen[j, 1] > screen[i, 1]
    if i > j:
        i, j = j, i
    ay, by = screen[i, 1], screen[j, 1]
    if ay == by or y < min(ay, by) or y > max(ay, by):
        return start, stop
    slope = (screen[j, 0] - screen[i, 0]) / (by - ay)
    crossing = screen[i, 0] + (y - ay) * slope
    if downward:
        return max(start, np.ceil(crossing)), stop
    return start, min(stop, np.floor(crossing))


@_kernel
@no_type_check
def _relative_corners(screen, faces, f, row, column):
    """x0, y0, z0, x1, ... of a face as seen from a pixel."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    x, y = _f(column), _f(row)
    return (
        screen[a, 0] - x, screen[a, 1] - y, screen[a, 2],
        screen[b, 0] - x, screen[b, 1] - y, screen[b, 2],
        screen[c, 0] - x, screen[c, 1] - y, screen[c, 2],
    )  # fmt: skip


@_kernel
@no_type_check
def _texel(uvs, f, p0, p1, p2, tall, wide):
    """Where a face's weights fall in a texture: rows and columns of the two neighbours, the shares of the second ones,
    and whether the place is inside, where it moves with the weights."""
    u = (p0 * uvs[f, 0, 0] + p1 * uvs[f, 1, 0] + p2 * uvs[f, 2, 0]) * _f(wide) - _HALF
    v = (p0 * uvs[f, 0, 1] + p1 * uvs[f, 1, 1] + p2 * uvs[f, 2, 1]) * _f(tall) - _HALF
    moves_u, moves_v = u >= _ZERO and u <= _f(wide - 1), v >= _ZERO and v <= _f(tall - 1)
    u, v = min(max(u, _ZERO), _f(wide - 1)), min(max(v, _ZERO), _f(tall - 1))
    left, top = min(int(u), max(wide - 2, 0)), min(int(v), max(tall - 2, 0))
    right, below = min(left + 1, wide - 1), min(top + 1, tall - 1)
    return top, below, left, right, v - _f(top), u - _f(left), moves_v, moves_u


@_kernel
@no_type_check
def _shade(screen, texture, faces, uvs, face, depth, colour):
    """Depth and colour of each pixel; ``depth`` comes in as inverse depth."""
    height, width = face.shape
    channels, tall, wide = texture.shape
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            if f < 0:
                colour[row, column] = _ZERO
                continue
            x0, y0, z0, x1, y1, z1, x2, y2, z2 = _relative_corners(screen, faces, f, row, column)
            area0, area1, area2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            over0, over1, over2 = area0 / z0, area1 / z1, area2 / z2
            total = over0 + over1 + over2
            depth[row, column] = (area0 + area1 + area2) / total
            colour[row, column, channels] = _ONE
            if channels == 0:
                continue
            p0, p1, p2 = over0 / total, over1 / total, over2 / total
            top, below, left, right, down, across, _, _ = _texel(uvs, f, p0, p1, p2, tall, wide)
            for k in range(channels):
                upper = texture[k, top, left] + across * (texture[k, top, right] - texture[k, top, left])
                lower = texture[k, below, left] + across * (
                    texture[k, below, right] - texture[k, below, left]
                )
                colour[row, column, k] = upper + down * (lower - upper)


@_kernel
@no_type_check
def _walk_edge(screen, a, b, inner, edge, face, depth, cut_edge, cut_offset):
    """Enters the crossings of a silhouette edge where they are seen and outermost; ``inner`` is the third vertex of
    the drawn face."""
    height, width = face.shape
    # Axis 0 (x) is the one along rows: a steep edge crosses rows, and so moves along x.
    along = 1 if abs(screen[b, 1] - screen[a, 1]) < abs(screen[b, 0] - screen[a, 0]) else 0
    a_line, b_line, inner_line = screen[a, 1 - along], screen[b, 1 - along], screen[inner, 1 - along]
    a_place, b_place = screen[a, along], screen[b, along]
    lines, places = (width, height) if along else (height, width)
    first = max(np.ceil(min(a_line, b_line)), _ZERO)
    last = min(np.ceil(max(a_line, b_line)) - _ONE, _f(lines - 1))
    if first > last:
        return
    at_inner = a_place + (inner_line - a_line) / (b_line - a_line) * (b_place - a_place)
    inner_is_after = screen[inner, along] > at_inner
    down, right = along, 1 - along
    for line in range(int(first), int(last) + 1):
        share = (_f(line) - a_line) / (b_line - a_line)
        place = a_place + share * (b_place - a_place)
        if not (place >= _ZERO and np.floor(place) + _ONE < _f(places)):
            continue
        before = int(place)
        row, column = (before, line) if along else (line, before)
        inner_row, inner_column, outer_row, outer_column = row, column, row + down, column + right
        if inner_is_after:
            inner_row, inner_column, outer_row, outer_column = row + down, column + right, row, column
        if face[inner_row, inner_column] < 0:
            continue
        if face[outer_row, outer_column] >= 0:
            beyond = depth[outer_row, outer_column]
            edge_depth = _ONE / ((_ONE - share) / screen[a, 2] + share / screen[b, 2])
            if not (beyond > edge_depth * _TOLERANCE and beyond > depth[inner_row, inner_column]):
                continue
        offset = place - _f(before) - _HALF
        if cut_edge[row, column, along] >= 0:
            known = cut_offset[row, column, along]
            if (inner_is_after and offset >= known) or (not inner_is_after and offset <= known):
                continue
        cut_edge[row, column, along] = edge
        cut_offset[row, column, along] = offset


@_kernel
@no_type_check
def _blend(colour, cut_edge, cut_offset, image):
    """Gives each cut pixel its share of the neighbour's colour."""
    height, width, channels = colour.shape
    for row in range(height):
        for column in range(width):
            for along in range(2):
                if cut_edge[row, column, along] < 0:
                    continue
                offset = cut_offset[row, column, along]
                next_row, next_column = row + along, column + 1 - along
                after = offset > _ZERO
                cut_row, cut_column = (next_row, next_column) if after else (row, column)
                for k in range(channels):
                    step = colour[row, column, k] - colour[next_row, next_column, k]
                    image[cut_row, cut_column, k] += offset * step


# --- backward


@_kernel
@no_type_check
def backward(
    first, last, screen, texture, grad_image, grad_depth, grad_colour, grad_screen, grad_texture,
    faces, uvs, edges, face, depth, colour, cut_edge, cut_offset,
):  # fmt: skip
    for b in range(first, last):
        _blend_backward(
            screen[b],
            edges,
            colour[b],
            cut_edge[b],
            cut_offset[b],
            grad_image[b],
            grad_colour[b],
            grad_screen[b],
        )
        _shade_backward(
            screen[b],
            texture[b],
            faces,
            uvs,
            face[b],
            depth[b],
            grad_colour[b],
            grad_depth[b],
            grad_screen[b],
            grad_texture[b],
        )


@_kernel
@no_type_check
def _blend_backward(screen, edges, colour, cut_edge, cut_offset, grad_image, grad_colour, grad_screen):
    """Adds to the gradients of the unsmoothed colours and of the vertices of the cutting edges."""
    height, width, channels = colour.shape
    for row in range(height):
        for column in range(width):
            for along in range(2):
                edge = cut_edge[row, column, along]
                if edge < 0:
                    continue
                offset = cut_offset[row, column, along]
                next_row, next_column = row + along, column + 1 - along
                after = offset > _ZERO
                cut_row, cut_column = (next_row, next_column) if after else (row, column)
                grad_place = _ZERO
                for k in range(channels):
                    grad = grad_image[cut_row, cut_column, k]
                    grad_place += grad * (colour[row, column, k] - colour[next_row, next_column, k])
                    grad_colour[row, column, k] += grad * offset
                    grad_colour[next_row, next_column, k] -= grad * offset
                a, b = edges[edge, 0], edges[edge, 1]
                length = screen[b, 1 - along] - screen[a, 1 - along]
                share = (_f(column if along else row) - screen[a, 1 - along]) / length
                slope = (screen[b, along] - screen[a, along]) / length
                grad_screen[a, along] += grad_place * (_ONE - share)
                grad_screen[b, along] += grad_place * share
                grad_screen[a, 1 - along] -= grad_place * slope * (_ONE - share)
                grad_screen[b, 1 - along] -= grad_place * slope * share


@_kernel
@no_type_check
def _shade_backward(
    screen, texture, faces, uvs, face, depth, grad_colour, grad_depth, grad_screen, grad_texture
):
    """Adds what depth and colours give back to the vertices of the faces seen, and to the texture."""
    height, width = face.shape
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            if f < 0:
                continue
            x0, y0, z0, x1, y1, z1, x2, y2, z2 = _relative_corners(screen, faces, f, row, column)
            area0, area1, area2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            total = area0 / z0 + area1 / z1 + area2 / z2
            p0, p1, p2 = area0 / z0 / total, area1 / z1 / total, area2 / z2 / total
            grad_u, grad_v = _texture_backward(
                texture, uvs, f, p0, p1, p2, grad_colour[row, column], grad_texture
            )
            grad0 = grad_u * uvs[f, 0, 0] + grad_v * uvs[f, 0, 1]
            grad1 = grad_u * uvs[f, 1, 0] + grad_v * uvs[f, 1, 1]
            grad2 = grad_u * uvs[f, 2, 0] + grad_v * uvs[f, 2, 1]
            # weight_i = over_i / total, depth = (sum of areas) / total, over_i = area_i / z_i
            shared = grad0 * p0 + grad1 * p1 + grad2 * p2 + grad_depth[row, column] * depth[row, column]
            over0, over1, over2 = (grad0 - shared) / total, (grad1 - shared) / total, (grad2 - shared) / total
            direct = grad_depth[row, column] / total
            g0, g1, g2 = (
                over0 / z0 + direct,
                over1 / z1 + direct,
                over2 / z2 + direct,
            )  # gradients of the areas
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            grad_screen[a, 0] += g2 * y1 - g1 * y2
            grad_screen[a, 1] += g1 * x2 - g2 * x1
            grad_screen[a, 2] -= over0 * area0 / (z0 * z0)
            grad_screen[b, 0] += g0 * y2 - g2 * y0
            grad_screen[b, 1] += g2 * x0 - g0 * x2
            grad_screen[b, 2] -= over1 * area1 / (z1 * z1)
            grad_screen[c, 0] += g1 * y0 - g0 * y1
            grad_screen[c, 1] += g0 * x1 - g1 * x0
            grad_screen[c, 2] -= over2 * area2 / (z2 * z2)


@_kernel
@no_type_check
def _texture_backward(texture, uvs, f, p0, p1, p2, grad_colour, grad_texture):
    """Adds to the texture's gradient; returns that of u and v."""
    channels, tall, wide = texture.shape
    grad_u, grad_v = _ZERO, _ZERO
    if channels == 0:
        return grad_u, grad_v
    top, below, left, right, down, across, moves_v, moves_u = _texel(uvs, f, p0, p1, p2, tall, wide)
    for k in range(channels):
        grad = grad_colour[k]
        grad_texture[k, top, left] += grad * (_ONE - across) * (_ONE - down)
        grad_texture[k, top, right] += grad * across * (_ONE - down)
        grad_texture[k, below, left] += grad * (_ONE - across) * down
        grad_texture[k, below, right] += grad * across * down
        upper = texture[k, top, right] - texture[k, top, left]
        lower = texture[k, below, right] - texture[k, below, left]
        grad_u += grad * (upper + down * (lower - upper))
        before = texture[k, below, left] - texture[k, top, left]
        behind = texture[k, below, right] - texture[k, top, right]
        grad_v += grad * (before + across * (behind - before))
    return grad_u * _f(wide) if moves_u else _ZERO, grad_v * _f(tall) if moves_v else _ZERO
