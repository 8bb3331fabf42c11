"""The subcommands of the command line, one file each.

A file holds a dataclass with the subcommand's name (``Detect``), whose fields are its options and whose docstring, one sentence
and one example that works as written, is its help, and ``run(options) -> int``, which returns the exit code: 0, or 1 where the
work failed. Bad input is an InputError and becomes exit code 2. Importing such a file imports no torch, so help is instant.
"""
