"""What a script needs beside Python: where that is missing, one line says so instead of a trace."""

import importlib
import os
import sys


def need(*modules):
    """Ends the script, exit code 1, where one of the modules cannot be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            script = os.path.basename(sys.argv[0])
            sys.exit(f"{script}: {sys.executable} cannot import {name} ({error}): install it there, "
                     "or take another Python")
