// The step's columns as native code knows them: the same names, types and order as
// common/wire/step.ts, which documents each; a test compares the two through the addon.
#pragma once

namespace vt {

enum class ElementType { u8, i32, f32, u64 };

constexpr int element_bytes(ElementType type) {
  return type == ElementType::u8 ? 1 : type == ElementType::u64 ? 8 : 4;
}
constexpr const char* element_name(ElementType type) {
  return type == ElementType::u8    ? "u8"
         : type == ElementType::i32 ? "i32"
         : type == ElementType::f32 ? "f32"
                                    : "u64";
}

/// Ids whose logprobs one row may name.
constexpr int kMaxLogprobIds = 128;

// X(name, type)
#define VT_STEP_INPUT_COLUMNS(X) \
  X(newRow, i32)                 \
  X(newNumTokens, i32)           \
  X(newNumPromptTokens, i32)     \
  X(newTokenIds, i32)            \
  X(newTemperature, f32)         \
  X(newTopP, f32)                \
  X(newTopK, i32)                \
  X(newMinP, f32)                \
  X(newPresencePenalty, f32)     \
  X(newFrequencyPenalty, f32)    \
  X(newRepetitionPenalty, f32)   \
  X(newSeed, u64)                \
  X(newMinTokens, i32)           \
  X(newMaxNumTokens, i32)        \
  X(newNumLogprobs, i32)         \
  X(newNumPromptLogprobs, i32)   \
  X(newNumLogprobIds, i32)       \
  X(logprobIds, i32)             \
  X(newNumStopIds, i32)          \
  X(stopIds, i32)                \
  X(newNumLogitBias, i32)        \
  X(logitBiasIds, i32)           \
  X(logitBias, f32)              \
  X(newNumAllowedIds, i32)       \
  X(allowedIds, i32)             \
  X(newNumBadWords, i32)         \
  X(badWordLength, i32)          \
  X(badWordIds, i32)             \
  X(blockRow, i32)               \
  X(blockIndex, i32)             \
  X(blockId, i32)                \
  X(row, i32)                    \
  X(start, i32)                  \
  X(count, i32)                  \
  X(flags, i32)

#define VT_STEP_OUTPUT_COLUMNS(X) \
  X(tokenId, i32)                 \
  X(rowFlags, u8)                 \
  X(logprobIndex, i32)            \
  X(logprob, f32)                 \
  X(logprobRank, i32)             \
  X(topCount, i32)                \
  X(topIds, i32)                  \
  X(topLogprobs, f32)             \
  X(promptLogprobIndex, i32)      \
  X(promptLogprobPosition, i32)   \
  X(promptLogprob, f32)           \
  X(promptLogprobRank, i32)       \
  X(promptTopCount, i32)          \
  X(promptTopIds, i32)            \
  X(promptTopLogprobs, f32)

struct ColumnSpec {
  const char* name;
  ElementType type;
};

#define VT_COLUMN_ID(name, type) name,
enum class StepInputColumn : int { VT_STEP_INPUT_COLUMNS(VT_COLUMN_ID) num_columns };
enum class StepOutputColumn : int { VT_STEP_OUTPUT_COLUMNS(VT_COLUMN_ID) num_columns };
#undef VT_COLUMN_ID

#define VT_COLUMN_SPEC(name, type) {#name, ElementType::type},
constexpr ColumnSpec kStepInputColumns[] = {VT_STEP_INPUT_COLUMNS(VT_COLUMN_SPEC)};
constexpr ColumnSpec kStepOutputColumns[] = {VT_STEP_OUTPUT_COLUMNS(VT_COLUMN_SPEC)};
#undef VT_COLUMN_SPEC

constexpr int kNumStepInputColumns = static_cast<int>(StepInputColumn::num_columns);
constexpr int kNumStepOutputColumns = static_cast<int>(StepOutputColumn::num_columns);

/// Bits of the column `flags`.
constexpr int kStepFlagSample = 1;
constexpr int kStepFlagPromptLogprobs = 2;

/// Bits of the column `rowFlags`.
constexpr int kRowFlagNan = 1;

}  // namespace vt
