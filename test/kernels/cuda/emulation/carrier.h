// What NCCL does for sampleSharded, over fibers: a kernel of each rank that waits until all ranks
// have come to theirs, takes the others' slots, and ends when all have taken.
#pragma once

#include <cstring>
#include <deque>

#include "common.cuh"
#include "vt_cuda_collective.h"

class Carriers {
 public:
  struct Carrier {
    Carriers* all;
    int rank;
    char* board;
    int num_calls = 0;
    int64_t num_bytes = 0;
  };

  void add(void* board) {
    const int rank = static_cast<int>(carriers_.size());
    carriers_.push_back({this, rank, static_cast<char*>(board)});
  }
  Carrier& of(int rank) { return carriers_[rank]; }

  /// A VtCudaCarry.
  static int carry(void* carrier, int64_t offset, int64_t slot_bytes, void* stream) {
    auto& own = *static_cast<Carrier*>(carrier);
    const int call = own.num_calls++;
    own.num_bytes += slot_bytes;
    emulation::machine->launch(vt::device_of(stream), 1, 1, 1, 0,
                               [=, &own] { own.all->move(own, call, offset, slot_bytes); });
    return 0;
  }

 private:
  struct Call {
    int arrived = 0, taken = 0;
    int64_t offset = 0, slot_bytes = 0;
  };

  void move(const Carrier& own, int number, int64_t offset, int64_t slot_bytes) {
    vt::wait_for_previous();
    while (static_cast<int>(calls_.size()) <= number) calls_.emplace_back();
    Call& call = calls_[number];
    if (call.arrived++ == 0) call.offset = offset, call.slot_bytes = slot_bytes;
    const bool is_same = call.offset == offset && call.slot_bytes == slot_bytes;
    const int num_ranks = static_cast<int>(carriers_.size());
    while (call.arrived < num_ranks) emulation::machine->yield();
    // Ranks that would carry something else move nothing.
    for (const Carrier& other : carriers_) {
      const int64_t at = VT_CUDA_INBOX_OFFSET + offset + other.rank * slot_bytes;
      if (other.rank != own.rank && is_same)
        std::memcpy(own.board + at, other.board + at, slot_bytes);
    }
    call.taken++;
    while (call.taken < num_ranks) emulation::machine->yield();
  }

  std::deque<Carrier> carriers_;
  std::deque<Call> calls_;
};
