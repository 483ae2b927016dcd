// CUDA's threads as fibers of one thread of the CPU: which of them goes on is drawn from a seed, so
// that a run explores one interleaving, the same on every machine. A device is a queue of kernels;
// the next one starts as soon as all threads of the last one allow it (start_next), and waits in
// wait_for_previous until that one has ended. Time is counted, not measured.
//
// Knows nothing of weak memory: accesses take effect in the order in which fibers make them.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace emulation {

struct Kernel;
struct Device;

/// Fibers that wait for each other, over and over.
struct Barrier {
  int size = 0, arrived = 0;
  bool any = false, result = false;
  std::vector<struct Fiber*> waiting;
};

struct Block {
  int index = 0;
  Barrier threads;
  std::vector<Barrier> warps;
  std::vector<uint64_t> lanes;
  /// Shared memory, made by the first thread that asks for it: one object, then what the launch
  /// asked for.
  std::vector<uint64_t> shared;
  size_t object_bytes = 0;
  /// Of the first object's type; objects of others, of which other blocks know nothing.
  const void* object_type = nullptr;
  std::map<const void*, std::vector<uint64_t>> more_objects;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Kernel* kernel = nullptr;
  Block* block = nullptr;
  int thread = 0;
  /// In a cluster's barrier: the generation that it arrived in.
  uint64_t cluster_generation = 0;
  bool allowed_next = false, ended = false;
};

struct Cluster {
  int arrived = 0, size = 0;
  uint64_t generation = 0;
  std::vector<struct Fiber*> waiting;
};

struct Kernel {
  int grid = 0, block_size = 0, cluster_size = 1;
  size_t shared_bytes = 0;
  std::function<void()> body;
  Device* device = nullptr;
  Kernel* before = nullptr;
  std::vector<Block> blocks;
  std::vector<Cluster> clusters;
  std::vector<std::unique_ptr<Fiber>> fibers;
  int num_allowing = 0, num_ended = 0;
  /// For its end.
  std::vector<Fiber*> waiting;
  bool has_ended() const { return num_ended == static_cast<int>(fibers.size()); }
};

struct Device {
  std::deque<std::unique_ptr<Kernel>> queue;
  size_t next = 0;
};

class Machine {
 public:
  explicit Machine(int num_devices, uint64_t seed) : devices(num_devices), state_(seed * 2 + 1) {}

  void launch(int device, int grid, int block_size, int cluster_size, size_t shared_bytes,
              std::function<void()> body) {
    auto kernel = std::make_unique<Kernel>();
    kernel->grid = grid;
    kernel->block_size = block_size;
    kernel->cluster_size = cluster_size;
    kernel->shared_bytes = shared_bytes;
    kernel->body = std::move(body);
    kernel->device = &devices[device];
    devices[device].queue.push_back(std::move(kernel));
  }

  /// Until all kernels of all devices have ended.
  void run() {
    for (Device& device : devices) start_if_allowed(device);
    while (!runnable_.empty()) {
      // For a while one fiber in particular is unlucky, and so is all that waits for it.
      if (draw(64) == 0) favourite_ = draw(4);
      size_t at = draw(static_cast<uint32_t>(runnable_.size()));
      for (int tries = 0; tries < 3 && !is_favoured(*runnable_[at]); tries++)
        at = draw(static_cast<uint32_t>(runnable_.size()));
      Fiber* fiber = runnable_[at];
      runnable_[at] = runnable_.back();
      runnable_.pop_back();
      now_ns += 10;
      current = fiber;
      swapcontext(&main_, &fiber->context);
      current = nullptr;
      if (fiber->ended) finish(*fiber);
    }
  }

  /// Gives others a turn.
  void yield() {
    runnable_.push_back(current);
    sleep();
  }
  void sleep() {
    Fiber* fiber = current;
    swapcontext(&fiber->context, &main_);
  }
  void wake(Fiber* fiber) { runnable_.push_back(fiber); }

  /// All of `barrier.size` fibers; true if any of them said so.
  bool meet(Barrier& barrier, bool any = false) {
    barrier.any |= any;
    if (++barrier.arrived < barrier.size) {
      barrier.waiting.push_back(current);
      sleep();
      return barrier.result;
    }
    barrier.result = barrier.any;
    barrier.any = false;
    barrier.arrived = 0;
    for (Fiber* fiber : barrier.waiting) wake(fiber);
    barrier.waiting.clear();
    return barrier.result;
  }

  void allow_next() {
    if (current->allowed_next) return;
    current->allowed_next = true;
    Kernel& kernel = *current->kernel;
    if (++kernel.num_allowing == static_cast<int>(kernel.fibers.size()))
      start_if_allowed(*kernel.device);
  }

  uint32_t draw(uint32_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33) % bound;
  }

  std::vector<Device> devices;
  Fiber* current = nullptr;
  uint64_t now_ns = 1;

 private:
  bool is_favoured(const Fiber& fiber) const {
    const auto device = static_cast<uint32_t>(fiber.kernel->device - devices.data());
    return favourite_ >= devices.size() || device == favourite_;
  }

  void start_if_allowed(Device& device) {
    if (device.next == device.queue.size()) return;
    Kernel* before = device.next == 0 ? nullptr : device.queue[device.next - 1].get();
    if (before != nullptr && before->num_allowing < static_cast<int>(before->fibers.size())) return;
    Kernel& kernel = *device.queue[device.next++];
    kernel.before = before;
    kernel.blocks.resize(kernel.grid);
    kernel.clusters.resize(kernel.grid / kernel.cluster_size);
    for (Cluster& cluster : kernel.clusters) cluster.size = kernel.cluster_size * kernel.block_size;
    for (int b = 0; b < kernel.grid; b++) {
      Block& block = kernel.blocks[b];
      block.index = b;
      block.threads.size = kernel.block_size;
      block.warps.resize((kernel.block_size + 31) / 32);
      for (Barrier& warp : block.warps) warp.size = 32;
      block.lanes.resize(kernel.block_size);
      for (int t = 0; t < kernel.block_size; t++) add_fiber(kernel, block, t);
    }
  }

  void add_fiber(Kernel& kernel, Block& block, int thread) {
    constexpr size_t kStack = 32 * 1024;
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = std::make_unique<char[]>(kStack);
    fiber->kernel = &kernel;
    fiber->block = &block;
    fiber->thread = thread;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = &main_;
    makecontext(&fiber->context, run_fiber, 0);
    runnable_.push_back(fiber.get());
    kernel.fibers.push_back(std::move(fiber));
  }

  static void run_fiber();

  void finish(Fiber& fiber) {
    Kernel& kernel = *fiber.kernel;
    if (!fiber.allowed_next) {
      fiber.allowed_next = true;
      kernel.num_allowing++;
    }
    fiber.stack.reset();
    kernel.num_ended++;
    if (kernel.has_ended()) {
      for (Fiber* waiting : kernel.waiting) wake(waiting);
      kernel.waiting.clear();
    }
    if (kernel.num_allowing == static_cast<int>(kernel.fibers.size()))
      start_if_allowed(*kernel.device);
  }

  ucontext_t main_;
  std::vector<Fiber*> runnable_;
  uint64_t state_;
  uint32_t favourite_ = 0;
};

inline Machine* machine = nullptr;

inline void Machine::run_fiber() {
  Fiber* fiber = machine->current;
  fiber->kernel->body();
  fiber->ended = true;
}

}  // namespace emulation
