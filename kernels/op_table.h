// The op table's C++ twin: the same ops with the same arguments and attributes in the same order as
// kernels/ops.ts, which holds the contracts; a test compares the two through the addon. A native
// backend receives ops as indices into this table (see flattenProgram in kernels/program.ts).
#pragma once

namespace vt {

enum class Role { in, out, inout, weight };

struct ArgSpec {
  const char* name;
  Role role;
  /// "act", "f32" or "w"
  const char* dtype;
  /// Symbolic sizes, comma separated.
  const char* shape;
  bool optional;
};

constexpr int kMaxOpArgs = 6;
constexpr int kMaxOpAttrs = 6;

struct OpSpec {
  const char* name;
  int num_args;
  ArgSpec args[kMaxOpArgs];
  int num_attrs;
  const char* attrs[kMaxOpAttrs];
};

enum class OpId : int {
  embedding,
  rope_cos_sin,
  rms_norm,
  linear,
  head_rms_norm,
  rope_and_cache,
  attention,
  silu_and_mul,
  gather_logit_rows,
  sample,
  all_reduce,
  all_reduce_residual_norm,
  sample_sharded,
  count
};

constexpr OpSpec kOps[] = {
    {"embedding",
     2,
     {{"out", Role::out, "act", "T,H", false}, {"weight", Role::weight, "w", "R,H", false}},
     1,
     {"firstId"}},
    {"ropeCosSin",
     2,
     {{"out", Role::out, "f32", "T,D", false}, {"invFreq", Role::weight, "f32", "D/2", false}},
     1,
     {"factor"}},
    {"rmsNorm",
     3,
     {{"out", Role::out, "act", "M,H", false},
      {"x", Role::in, "act", "M,H", false},
      {"weight", Role::weight, "w", "H", false}},
     1,
     {"eps"}},
    {"linear",
     5,
     {{"out", Role::out, "act", "M,N", false},
      {"x", Role::in, "act", "M,K", false},
      {"weight", Role::weight, "w", "N,K", false},
      {"bias", Role::weight, "w", "N", true},
      {"residual", Role::in, "act", "M,N", true}},
     0,
     {}},
    {"headRmsNorm",
     3,
     {{"qkv", Role::inout, "act", "T,(Q+2G)*D", false},
      {"qWeight", Role::weight, "w", "D", false},
      {"kWeight", Role::weight, "w", "D", false}},
     4,
     {"numHeads", "numKvHeads", "headDim", "eps"}},
    {"ropeAndCache",
     2,
     {{"qkv", Role::inout, "act", "T,(Q+2G)*D", false}, {"cosSin", Role::in, "f32", "T,D", false}},
     4,
     {"layer", "numHeads", "numKvHeads", "headDim"}},
    {"attention",
     2,
     {{"out", Role::out, "act", "T,Q*D", false}, {"qkv", Role::in, "act", "T,(Q+2G)*D", false}},
     6,
     {"layer", "numHeads", "numKvHeads", "headDim", "scale", "window"}},
    {"siluAndMul",
     2,
     {{"out", Role::out, "act", "T,I", false}, {"gateUp", Role::in, "act", "T,2I", false}},
     0,
     {}},
    {"gatherLogitRows",
     2,
     {{"out", Role::out, "act", "L,H", false}, {"x", Role::in, "act", "T,H", false}},
     0,
     {}},
    {"sample", 1, {{"logits", Role::in, "f32", "L,V", false}}, 0, {}},
    {"allReduce",
     4,
     {{"out", Role::out, "act", "M,N", false},
      {"x", Role::in, "f32", "M,N", false},
      {"bias", Role::weight, "w", "N", true},
      {"residual", Role::in, "act", "M,N", true}},
     0,
     {}},
    {"allReduceResidualNorm",
     6,
     {{"out", Role::out, "act", "M,N", false},
      {"sum", Role::out, "act", "M,N", false},
      {"x", Role::in, "f32", "M,N", false},
      {"weight", Role::weight, "w", "N", false},
      {"bias", Role::weight, "w", "N", true},
      {"residual", Role::in, "act", "M,N", true}},
     1,
     {"eps"}},
    {"sampleSharded",
     2,
     {{"out", Role::out, "f32", "L,E", false}, {"x", Role::in, "f32", "L,P", false}},
     1,
     {"firstId"}},
};

constexpr int kNumOps = static_cast<int>(OpId::count);
static_assert(sizeof kOps / sizeof kOps[0] == kNumOps, "kOps and OpId differ");

/// Ids of one tile of docs/sampling.md; a rank's part of the vocabulary is a multiple of it.
constexpr int kTileIds = 1024;

/// Columns of sampleSharded's out; see shardRoom in kernels/ops.ts.
constexpr int shard_room(int num_ids) { return 512 + 2 * ((num_ids + kTileIds - 1) / kTileIds); }

constexpr const OpSpec& op_spec(OpId id) { return kOps[static_cast<int>(id)]; }

}  // namespace vt
