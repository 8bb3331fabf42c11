"""The verbs of the command line, one file each.

A file holds a dataclass with the verb's name (``Detect``): its fields are the options, its docstring, one sentence and one
example that works as written, is the help, and ``run()`` does the work and returns the exit code: 0, or 1 where it failed.
Bad input is an InputError and becomes exit code 2. Importing such a file imports no torch, so help is instant.
"""
