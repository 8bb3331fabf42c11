"""Checks of a data set: unreadable files, suspicious labels, statistics, sample images."""
