"""Checks a data set: unreadable files, odd labels, statistics, sample images."""
