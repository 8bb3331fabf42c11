"""Data sets and samples; the only package that knows KITTI's columns.

`kitti_format` reads and writes the text files (labels, results, calibrations, splits) with numpy alone, so
that the evaluator runs without torch; `kitti` builds samples from them.
"""
