// Memory of the process where the backend takes the device's, and that what StepBuffers cuts out of
// it lies apart: arrays of a step and columns of the slots.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "kernels/cuda/host/step_buffers.h"
#include "step_rings_device.h"

namespace vt {

void Ledger::add(const std::string& owner, std::size_t bytes, bool on_device) {
  if (on_device) device_bytes_ += bytes;
  entries_.emplace_back(owner, bytes);
}
/// Pieces of memory with their ends, of which none lies in another.
std::map<const char*, const char*> allocated;
void* allocate(std::size_t bytes) {
  char* memory = static_cast<char*>(calloc(bytes, 1));
  allocated[memory] = memory + bytes;
  return memory;
}
void* DeviceAllocator::allocate(std::size_t bytes, const std::string&) {
  return vt::allocate(bytes);
}
void release(void* data) {
  allocated.erase(static_cast<char*>(data));
  ::free(data);
}
void DeviceAllocator::free(void* data) noexcept { release(data); }
void* PinnedAllocator::allocate(std::size_t bytes, const std::string&) {
  return vt::allocate(bytes);
}
void PinnedAllocator::free(void* data) noexcept { release(data); }

}  // namespace vt

namespace {

/// That arrays of these many elements lie in allocated memory, and none in another.
class Places {
 public:
  template <typename T>
  void add(const T* array, std::size_t count) {
    const auto* begin = reinterpret_cast<const char*>(array);
    const char* end = begin + count * sizeof(T);
    auto memory = vt::allocated.upper_bound(begin);
    const bool is_inside = memory != vt::allocated.begin() && (--memory)->second >= end;
    const auto next = taken_.lower_bound(begin);
    const bool is_free = (next == taken_.end() || next->first >= end) &&
                         (next == taken_.begin() || std::prev(next)->second <= begin);
    expect(is_inside && is_free && reinterpret_cast<std::uintptr_t>(array) % 16 == 0, "room", 0);
    taken_[begin] = end;
  }

 private:
  std::map<const char*, const char*> taken_;
};

}  // namespace

void check_room(int num_rows, int num_tokens, int max_top) {
  vt::Ledger ledger;
  const vt::StepBuffers buffers(num_rows, num_tokens, max_top, 3, ledger);
  vt::StepArrays a{};
  buffers.describe(a);
  const std::size_t rows = num_rows, tokens = num_tokens, tops = tokens * max_top;
  Places places;
  for (const auto* by_token : {a.token_ids, a.positions, a.slots})
    places.add(by_token, tokens);
  for (const auto* by_row : {a.query_start, a.seq_lens, a.row_of, a.logit_of, a.unfit})
    places.add(by_row, rows + 1);
  for (const auto* by_logit : {a.logit_index, a.logit_row, a.judged_ids, a.batch_of, a.sampled_ids,
                               a.ranks})
    places.add(by_logit, tokens);
  places.add(a.sampled_flags, tokens);
  places.add(a.logprobs, tokens);
  places.add(a.top_ids, tops);
  places.add(a.top_logprobs, tops);
  places.add(a.named_logprobs, rows * vt::kMaxLogprobIds);
  places.add(a.step_index, 1);
  places.add(a.start_ns, 1);
  places.add(a.first_epoch, 1);
  places.add(a.counts, 1);
  const vt::SlotLayout& at = a.layout;
  for (int i = 0; i < at.num_slots; i++) {
    const char *in = a.inputs + i * at.input_bytes, *out = a.results + i * at.result_bytes;
    places.add(reinterpret_cast<const vt::StepHeader*>(in), 1);
    // 16 are read at a time.
    places.add(reinterpret_cast<const vt::RowEntry*>(in + at.row_entries), (rows + 15) / 16 * 16);
    places.add(in + at.new_rows, 4 * rows);
    places.add(reinterpret_cast<const vt::JudgedEntry*>(in + at.judged_entries), tokens);
    places.add(reinterpret_cast<const vt::ResultHeader*>(out), 1);
    places.add(out + at.token_ids, 4 * rows);
    places.add(out + at.row_flags, rows);
    places.add(out + at.logprobs, 4 * tokens);
    places.add(out + at.ranks, 4 * tokens);
    for (const std::int64_t top : {at.top_ids, at.top_logprobs}) places.add(out + top, 4 * tops);
    places.add(out + at.named_logprobs, 4 * rows * vt::kMaxLogprobIds);
  }
}

std::size_t count_allocated() { return vt::allocated.size(); }
