"""libvt_cuda.so through ctypes, over torch tensors: the structs of kernels/cuda's C headers and a
call for each op. Knows nothing of what the ops should compute."""

import ctypes

import torch

from abi import APART, DEPENDENT, EARLY_READS, structs

__all__ = ["APART", "DEPENDENT", "DTYPES", "EARLY_READS", "VtCuda"]
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def late_fields(late):
    if late is None:
        return {}
    gain, gained, squares = late
    return dict(out_gain=gain, gained=gained, gained_stride=gained.stride(0), out_squares=squares)


class VtCuda:
    def __init__(self, path: str):
        self.lib = ctypes.CDLL(path)
        self.lib.vt_cuda_error.restype = ctypes.c_char_p
        self.structs = structs()
        self.flags = 0

    @property
    def has_wgmma(self) -> bool:
        """Whether the code that serves this device has it; without, nothing may be asked of it."""
        return self.lib.vt_cuda_prefill_for(1, 64) == 1

    def args(self, struct: str, fields: dict):
        args = self.structs[struct]()
        known = dict(args._fields_)
        for name, value in {"flags": self.flags, **fields}.items():
            if name == "flags" and name not in known:
                continue
            if name not in known:
                raise KeyError(f"{struct} has no field {name}")
            if isinstance(value, torch.Tensor):
                value = value.data_ptr()
            setattr(args, name, value)
        return args

    def call(self, function: str, struct: str, **fields):
        args = self.args(struct, fields)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if getattr(self.lib, function)(ctypes.byref(args), stream) != 0:
            raise RuntimeError(self.lib.vt_cuda_error().decode())

    def gather(self, function, out, source, index, first=0, late=None):
        """late: as in linear_fields"""
        self.call(function, "VtCudaGather", out=out, source=source, index=index,
                  num_rows=len(index), columns=source.shape[1], num_source_rows=source.shape[0],
                  out_stride=out.stride(0), source_stride=source.stride(0), first_index=first,
                  dtype=DTYPES[source.dtype], out_dtype=DTYPES[out.dtype], **late_fields(late))

    def rope_cos_sin(self, out, inv_freq, positions, factor):
        self.call("vt_cuda_rope_cos_sin", "VtCudaRopeCosSin", out=out, inv_freq=inv_freq,
                  positions=positions, num_tokens=len(positions), head_dim=out.shape[1],
                  factor=factor)

    def rms_norm(self, out, x, weight, eps, scales=None):
        self.call("vt_cuda_rms_norm", "VtCudaRmsNorm", out=out, x=x, weight=weight, scales=scales,
                  num_rows=x.shape[0], columns=x.shape[1], out_stride=out.stride(0),
                  x_stride=x.stride(0), eps=eps, dtype=DTYPES[x.dtype])

    def head_rms_norm(self, qkv, q_weight, k_weight, num_heads, num_kv_heads, eps):
        self.call("vt_cuda_head_rms_norm", "VtCudaHeadRmsNorm", qkv=qkv, q_weight=q_weight,
                  k_weight=k_weight, num_tokens=len(qkv), num_heads=num_heads,
                  num_kv_heads=num_kv_heads, head_dim=len(q_weight), qkv_stride=qkv.stride(0),
                  eps=eps, dtype=DTYPES[qkv.dtype])

    def rope_and_cache(self, qkv, cos_sin, slots, cache, layer, num_heads, q_weight=None,
                       k_weight=None, eps=0.0, row_scale=None):
        _, num_layers, _, num_kv_heads, block_size, head_dim = cache.shape
        self.call("vt_cuda_rope_and_cache", "VtCudaRopeAndCache", qkv=qkv, cos_sin=cos_sin,
                  slots=slots, kv_cache=cache, num_tokens=len(qkv), num_heads=num_heads,
                  num_kv_heads=num_kv_heads, head_dim=head_dim, num_layers=num_layers, layer=layer,
                  block_size=block_size, qkv_stride=qkv.stride(0), dtype=DTYPES[qkv.dtype],
                  q_weight=q_weight, k_weight=k_weight, eps=eps, row_scale=row_scale)

    def silu_and_mul(self, out, gate_up, interleave=0, row_scale=None):
        self.call("vt_cuda_silu_and_mul", "VtCudaSiluAndMul", out=out, gate_up=gate_up,
                  row_scale=row_scale, num_rows=out.shape[0], columns=out.shape[1], out_stride=out.stride(0),
                  gate_up_stride=gate_up.stride(0), interleave=interleave,
                  dtype=DTYPES[out.dtype])

    def linear_fields(self, out, x, weight, bias=None, residual=None, tuning=0, norm_weight=None,
                      norm_eps=0.0, silu=False, rope=None, large=0, apart=False,
                      row_scale=None, x_squares=None, late=None):
        """rope: (cos_sin, slots, cache, layer, num_heads); apart: as in a step; late: (out_gain,
        gained, out_squares) of the norm behind"""
        (m, k), n = x.shape, weight.shape[0]
        fields = dict(out=out, x=x, weight=weight, bias=bias, residual=residual, m=m, n=n, k=k,
                      out_stride=out.stride(0), x_stride=x.stride(0),
                      weight_stride=weight.stride(0),
                      residual_stride=0 if residual is None else residual.stride(0),
                      dtype=DTYPES[x.dtype], out_dtype=DTYPES[out.dtype], tuning=tuning,
                      norm_weight=norm_weight, norm_eps=norm_eps, epilogue=1 if silu else 0,
                      large=large, row_scale=row_scale, x_squares=x_squares,
                      flags=self.flags | (APART if apart else 0), **late_fields(late))
        if rope is not None:
            cos_sin, slots, cache, layer, num_heads = rope
            _, num_layers, _, num_kv_heads, block_size, head_dim = cache.shape
            fields.update(epilogue=2, cos_sin=cos_sin, slots=slots, kv_cache=cache, layer=layer,
                          num_layers=num_layers, block_size=block_size, num_heads=num_heads,
                          num_kv_heads=num_kv_heads, head_dim=head_dim)
        return fields

    def linear(self, *args, **more):
        self.call("vt_cuda_linear", "VtCudaLinear", **self.linear_fields(*args, **more))

    def linear_fuses(self, *args, **more) -> bool:
        fields = self.linear_fields(*args, **more)
        return self.lib.vt_cuda_linear_fuses(ctypes.byref(self.args("VtCudaLinear", fields))) == 1

    def linear_is_ahead(self, *args, **more) -> bool:
        fields = self.linear_fields(*args, **more)
        return self.lib.vt_cuda_linear_is_ahead(ctypes.byref(self.args("VtCudaLinear", fields))) == 1

    def linear_num_best(self, *args, **more) -> int:
        fields = self.linear_fields(*args, **more)
        return self.lib.vt_cuda_linear_num_best(ctypes.byref(self.args("VtCudaLinear", fields)))

    def linear_for_sample(self, out, x, weight, sampler: dict):
        """`sampler`: of sample_fields and sample_outputs, with best and num_best."""
        linear = self.args("VtCudaLinear", self.linear_fields(out, x, weight, large=2))
        args = self.args("VtCudaSample", sampler)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if self.lib.vt_cuda_linear_for_sample(ctypes.byref(linear), ctypes.byref(args), stream) != 0:
            raise RuntimeError(self.lib.vt_cuda_error().decode())

    def sample_outputs(self, rows, num_top=-1):
        """Outputs of a step, full of what sample must overwrite."""
        full = lambda shape, value, dtype: torch.full(shape, value, dtype=dtype, device="cuda")
        top = (rows, max(num_top, 0))
        return {"token_ids": full((rows,), -7, torch.int32),
                "row_flags": full((rows,), 7, torch.uint8),
                "logprobs": full((rows,), 7, torch.float32),
                "ranks": full((rows,), -7, torch.int32),
                "top_ids": full(top, -7, torch.int32),
                "top_logprobs": full(top, 7, torch.float32)}

    def sample(self, logits, table, row_of, num_top=-1, judged_ids=None, outputs=None,
               named_logprobs=None):
        """`table`: a SampleTable of sample_table.py; row_of and judged_ids: i32 on the device;
        named_logprobs: [rows of the table][num_named] f32."""
        outputs = outputs or self.sample_outputs(len(row_of), num_top)
        self.call("vt_cuda_sample", "VtCudaSample",
                  **self.sample_fields(logits, table, row_of, num_top, judged_ids, named_logprobs),
                  **outputs)
        return outputs

    def sample_fields(self, logits, table, row_of, num_top=-1, judged_ids=None, named_logprobs=None):
        rows, vocab = logits.shape
        stride = self.lib.vt_cuda_sample_scratch_stride(vocab)
        scratch = torch.full((rows, stride), float("nan"), device="cuda") if stride else None
        return {"scratch": scratch, "scratch_stride": stride,
                "logits": logits, "row_of": row_of, "judged_ids": judged_ids, "num_rows": rows,
                "vocab_size": vocab, "logits_stride": logits.stride(0), "num_top": num_top,
                "named_logprobs": named_logprobs,
                "num_named": 0 if named_logprobs is None else named_logprobs.shape[1],
                **table.fields}

    def plan_attention(self, query_start, seq_lens, num_heads, num_kv_heads, max_work, window=0,
                       lists=None, prefill_rows=64, max_decode_work=None, head_dim=128):
        """max_decode_work, head_dim: of the calls of attention that will use the lists"""
        device = query_start.device
        lists = lists or {"decode_work": torch.zeros(max_work, 8, dtype=torch.int32, device=device),
                 "prefill_work": torch.zeros(max_work, 8, dtype=torch.int32, device=device),
                 "work_counts": torch.zeros(4, dtype=torch.int32, device=device),
                 "decode_cluster": self.lib.vt_cuda_decode_cluster(max_decode_work or max_work,
                                                                   len(seq_lens), num_kv_heads,
                                                                   head_dim)}
        self.call("vt_cuda_plan_attention", "VtCudaPlanAttention", query_start=query_start,
                  seq_lens=seq_lens, num_seqs=len(seq_lens), max_work=max_work,
                  num_heads=num_heads, num_kv_heads=num_kv_heads, window=window,
                  prefill_rows=prefill_rows, **lists)
        return lists

    def attention(self, out, qkv, cache, block_tables, lists, scratch, counters, layer, num_heads,
                  scale, window=0, max_decode_work=1 << 20, max_prefill_work=1 << 20, early=False,
                  prefill=0):
        _, num_layers, _, num_kv_heads, block_size, head_dim = cache.shape
        self.call("vt_cuda_attention", "VtCudaAttention", out=out, qkv=qkv, kv_cache=cache,
                  block_tables=block_tables, scratch=scratch, counters=counters,
                  num_layers=num_layers, layer=layer, num_heads=num_heads,
                  num_kv_heads=num_kv_heads, head_dim=head_dim, block_size=block_size,
                  max_num_blocks=block_tables.shape[1], qkv_stride=qkv.stride(0),
                  out_stride=out.stride(0), window=window, scale=scale, dtype=DTYPES[out.dtype],
                  max_decode_work=max_decode_work, max_prefill_work=max_prefill_work,
                  prefill=prefill,
                  flags=self.flags | (EARLY_READS if early else 0), **lists)
