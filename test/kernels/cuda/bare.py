"""libvt_cuda.so with nothing but the driver around it: device memory that numpy fills and reads, and
calls through the C ABI. For tools that make every kernel slow, and every library's start too."""

import ctypes

import numpy as np

from abi import structs

F32, F16, BF16 = 0, 1, 2
_NUMPY = {F32: np.float32, F16: np.float16, BF16: np.uint16}


def as_dtype(values, dtype):
    """Floats as the dtype stores them; bf16 as its bits."""
    if dtype != BF16:
        return values.astype(_NUMPY[dtype])
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


class Buffer:
    def __init__(self, address, shape, kind):
        self.address, self.shape, self.kind = address, shape, kind

    def at(self, elements):
        return self.address + elements * np.dtype(self.kind).itemsize


class Device:
    """The library on one device."""

    def __init__(self, library, ordinal=0):
        self.path = library
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.lib = ctypes.CDLL(library)
        self.lib.vt_cuda_error.restype = ctypes.c_char_p
        self.lib.vt_cuda_board_bytes.restype = ctypes.c_uint64
        self.structs = structs()
        device, self.context = ctypes.c_int(), ctypes.c_void_p()
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(device), ordinal)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.make_current()
        self.stream = ctypes.c_void_p()
        self._do("cuStreamCreate", ctypes.byref(self.stream), 0)

    def _do(self, name, *args):
        result = getattr(self.driver, name)(*args)
        if result != 0:
            raise RuntimeError(f"{name}: error {result}")

    def make_current(self):
        """Of a thread, before its first call."""
        self._do("cuCtxSetCurrent", self.context)

    def synchronize(self):
        self._do("cuCtxSynchronize")

    def copy(self, to, source, num_bytes):
        """Between two addresses on the device."""
        self._do("cuMemcpyDtoD_v2", ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(num_bytes))

    def put(self, values):
        """An array on the device."""
        values = np.ascontiguousarray(values)
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(values.nbytes, 16)))
        self._do("cuMemcpyHtoD_v2", address, ctypes.c_void_p(values.ctypes.data),
                 ctypes.c_size_t(values.nbytes))
        return Buffer(address.value, values.shape, values.dtype)

    def get(self, buffer):
        self.synchronize()
        values = np.empty(buffer.shape, buffer.kind)
        self._do("cuMemcpyDtoH_v2", ctypes.c_void_p(values.ctypes.data),
                 ctypes.c_uint64(buffer.address), ctypes.c_size_t(values.nbytes))
        return values

    def struct(self, name, **fields):
        made = self.structs[name]()
        known = dict(made._fields_)
        for field, value in fields.items():
            if field not in known:
                raise KeyError(f"{name} has no field {field}")
            setattr(made, field, value.address if isinstance(value, Buffer) else value)
        return made

    def call(self, function, name, **fields):
        self.queue(function, self.struct(name, **fields))

    def queue(self, function, struct, *more):
        """A call of a struct and what comes between it and the stream."""
        if getattr(self.lib, function)(ctypes.byref(struct), *more, self.stream) != 0:
            raise RuntimeError(self.lib.vt_cuda_error().decode())
