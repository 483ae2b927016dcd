"""What a script needs beside Python: where that is missing, one line says so instead of a trace.
For a script of the shell: needs.py NAME MODULE.."""

import importlib
import os
import sys


def need(*modules, script=os.path.basename(sys.argv[0])):
    """Ends the script, exit code 1, where one of the modules cannot be imported; if that is asked for
    help, with the text at its head, exit code 0."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(sys.modules["__main__"].__doc__)
                sys.exit(0)
            sys.exit(f"{script}: {sys.executable} cannot import {name} ({error}): install it there, "
                     "or take another Python")


if __name__ == "__main__":
    need(*sys.argv[2:], script=sys.argv[1])
