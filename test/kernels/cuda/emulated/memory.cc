#include "memory.h"

#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "block.h"

namespace emulated {

namespace {

struct Copy {
  std::uint32_t destination;
  const void* source;
  bool valid;
};

struct Box {
  std::uint32_t destination;
  TensorMap map;
  int at[4];
  std::uint32_t barrier;
};

struct Send {
  std::uint32_t destination;
  std::uint64_t bytes;
  std::uint32_t barrier;
};

/// Copies that an arrival waits for.
struct Arrival {
  int thread;
  std::vector<Copy> copies;
  std::uint32_t barrier;
};

/// A thread's copies.
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
  /// 16-byte pieces that it wrote and that no proxy fence of its own has followed.
  std::vector<std::uint32_t> unfenced;
};

std::uint8_t* memory = nullptr;
std::vector<std::vector<std::uint8_t>> other_memory;  // of the blocks behind the first
std::uint32_t memory_bytes = 0;
std::map<int, Copies> copies;
std::deque<Box> boxes;
std::deque<Send> sends;
std::deque<Arrival> arrivals;
/// By 16-byte piece: written by an ordinary copy, and not fenced since.
std::vector<bool> is_unfenced;

/// Only blocks alone copy so.
std::size_t piece_of(std::uint32_t address) {
  return (address % (1u << kRankShift) - kSharedBase) / 16;
}

void land(Copies& mine, const Copy& copy) {
  std::uint8_t* to = at(copy.destination, 16);
  if (copy.valid)
    std::memcpy(to, copy.source, 16);
  else
    std::memset(to, 0, 16);
  mine.unfenced.push_back(copy.destination);
  is_unfenced[piece_of(copy.destination)] = true;
}

void land(const Box& box) {
  std::uint32_t to = box.destination;
  const TensorMap& map = box.map;
  int i[4];
  for (i[3] = 0; i[3] < map.box[3]; i[3]++)
    for (i[2] = 0; i[2] < map.box[2]; i[2]++)
      for (i[1] = 0; i[1] < map.box[1]; i[1]++)
        for (i[0] = 0; i[0] < map.box[0]; i[0]++, to += 2) {
          std::int64_t from = 0;
          bool inside = true;
          for (int d = 0; d < 4; d++) {
            const std::int64_t x = box.at[d] + i[d];
            inside &= x >= 0 && x < map.sizes[d];
            from += x * (d == 0 ? 2 : map.strides[d - 1]);
          }
          // 128-byte swizzle: bits 4-6 of the address become their xor with bits 7-9.
          std::uint8_t* place = at(to ^ ((to >> 7 & 7) << 4), 2);
          if (inside)
            std::memcpy(place, map.data + from, 2);
          else
            std::memset(place, 0, 2);
        }
  mbarrier_bytes(box.barrier, static_cast<int>(to - box.destination));
}

void land(const Send& send) {
  std::memcpy(at(send.destination, 8), &send.bytes, 8);
  mbarrier_bytes(send.barrier, 8);
}

bool land_oldest() {
  if (!sends.empty()) {
    const Send send = sends.front();
    sends.pop_front();
    land(send);
    return true;
  }
  if (!arrivals.empty()) {
    const Arrival arrival = std::move(arrivals.front());
    arrivals.pop_front();
    for (const Copy& copy : arrival.copies) land(copies[arrival.thread], copy);
    mbarrier_arrive(arrival.barrier, 0);
    return true;
  }
  if (boxes.empty()) return false;
  const Box box = boxes.front();
  boxes.pop_front();
  land(box);
  return true;
}

}  // namespace

std::uint32_t in_cluster(std::uint32_t address, int rank) {
  if (address >> kRankShift != 0) return address;
  return address + (static_cast<std::uint32_t>(rank + 1) << kRankShift);
}

void begin_cluster(int num_blocks, std::uint8_t* shared, std::uint32_t bytes) {
  other_memory.assign(num_blocks - 1, std::vector<std::uint8_t>(bytes, 0xff));
  memory = shared;
  memory_bytes = bytes;
  std::memset(shared, 0xff, bytes);
  copies.clear();
  boxes.clear();
  sends.clear();
  arrivals.clear();
  is_unfenced.assign(bytes / 16 + 1, false);
  do_late_work = land_oldest;
}

void end_cluster() {
  for (auto& [thread, mine] : copies) {
    mine.groups.push_back(mine.open);
    for (const std::vector<Copy>& group : mine.groups)
      if (!group.empty()) give_up("a thread ended before its copies");
  }
  if (!arrivals.empty()) give_up("the block ended before its copies");
  if (!boxes.empty()) give_up("the block ended before its boxes");
  if (!sends.empty()) give_up("the cluster ended before what its blocks send");
}

std::uint32_t address_of(const void* pointer) {
  const auto* byte = static_cast<const std::uint8_t*>(pointer);
  const bool of_first = byte >= memory && byte < memory + memory_bytes;
  return kSharedBase + static_cast<std::uint32_t>(byte - (of_first ? memory : own_memory()));
}

std::uint8_t* own_memory() {
  return block_rank() == 0 ? memory : other_memory[block_rank() - 1].data();
}

std::uint8_t* at(std::uint32_t address, std::uint32_t bytes) {
  const std::uint32_t whole = in_cluster(address, block_rank());
  const std::uint32_t rank = (whole >> kRankShift) - 1, place = whole % (1u << kRankShift);
  if (place < kSharedBase || place + bytes > kSharedBase + memory_bytes ||
      rank > other_memory.size())
    give_up("shared address " + std::to_string(address) + " is outside the block's memory");
  std::uint8_t* base = rank == 0 ? memory : other_memory[rank - 1].data();
  return base + (place - kSharedBase);
}

void copy16(std::uint32_t destination, const void* source, bool valid) {
  if (destination % 16 != 0 || reinterpret_cast<std::uintptr_t>(source) % 16 != 0)
    give_up("a copy that is not 16-byte aligned");
  Copies& mine = copies[this_fiber()];
  if (timing.late_copies)
    mine.open.push_back({in_cluster(destination, block_rank()), source, valid});
  else
    land(mine, {destination, source, valid});
}

void commit_copies() {
  Copies& mine = copies[this_fiber()];
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

void wait_copies(int pending) {
  Copies& mine = copies[this_fiber()];
  while (static_cast<int>(mine.groups.size()) > pending) {
    for (const Copy& copy : mine.groups.front()) land(mine, copy);
    mine.groups.pop_front();
  }
}

void arrive_after_copies(std::uint32_t barrier) {
  Copies& mine = copies[this_fiber()];
  if (!timing.late_copies) return mbarrier_arrive(barrier, 0);
  arrivals.push_back({this_fiber(), std::move(mine.open), in_cluster(barrier, block_rank())});
  mine.open.clear();
}

void fence_async_proxy() {
  Copies& mine = copies[this_fiber()];
  for (const std::uint32_t address : mine.unfenced) is_unfenced[piece_of(address)] = false;
  mine.unfenced.clear();
}

void check_fenced(std::uint32_t address) {
  if (is_unfenced[piece_of(address)]) give_up("wgmma reads a copy without a proxy fence");
}

void send(std::uint32_t destination, const void* bytes, std::uint32_t barrier) {
  if (destination % 8 != 0) give_up("a send that is not 8-byte aligned");
  Send all = {destination, 0, barrier};
  std::memcpy(&all.bytes, bytes, 8);
  if (timing.late_copies)
    sends.push_back(all);
  else
    land(all);
}

void copy_box(std::uint32_t destination, const TensorMap& map, const int (&at)[4],
              std::uint32_t barrier, unsigned ranks) {
  if (destination % 1024 != 0) give_up("a swizzled box that is not 1,024-byte aligned");
  if (reinterpret_cast<std::uintptr_t>(map.data) % 16 != 0) give_up("an unaligned tensor");
  for (int rank = 0; ranks >> rank != 0; rank++) {
    if ((ranks >> rank & 1) == 0) continue;
    Box box = {in_cluster(destination, rank), map, {at[0], at[1], at[2], at[3]},
               in_cluster(barrier, rank)};
    if (timing.late_copies)
      boxes.push_back(box);
    else
      land(box);
  }
}

}  // namespace emulated
