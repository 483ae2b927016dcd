"""The structs of kernels/cuda's C headers for ctypes, as the headers declare them, so that the two
cannot drift apart. Knows nothing of what lies behind their pointers."""

import ctypes
import re
from pathlib import Path

CUDA = Path(__file__).parents[3] / "kernels/cuda"
NAMES = ("vt_cuda.h", "vt_cuda_sample.h", "vt_cuda_collective.h", "vt_cuda_parts.h")
TYPES = {"int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64,
         "uint64_t": ctypes.c_uint64, "float": ctypes.c_float}
DEPENDENT, EARLY_READS, APART = 1, 2, 4


def structs() -> dict[str, type]:
    """By name."""
    header = "".join((CUDA / name).read_text() for name in NAMES)
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.S)
    constants = {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)$", text, flags=re.M)}
    found = {}
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, flags=re.S):
        fields = []
        for declaration in filter(None, (d.strip() for d in body.split(";"))):
            base, names = re.fullmatch(r"(?:const )?(\w+)\s*(.*)", declaration, flags=re.S).groups()
            for part in names.split(","):
                name_of, count = re.fullmatch(r"[*\s]*(\w+)(?:\[(\w+)\])?\s*", part).groups()
                kind = ctypes.c_void_p if "*" in part else (TYPES | found)[base]
                if count is not None:
                    kind *= constants.get(count) or int(count)
                fields.append((name_of, kind))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found
