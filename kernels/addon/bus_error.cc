#include "bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace vt {

/// Never freed, because the handler may be looking at it: a few bytes for each file of a model.
struct WatchedMapping {
  std::atomic<const char*> data;
  std::size_t bytes;
  std::string message;
  WatchedMapping* next;
};

namespace {

std::atomic<WatchedMapping*> entries{nullptr};

/// Only what a signal handler may do. The fault happens again when it returns, and then kills.
void on_bus_error(int, siginfo_t* info, void*) {
  const char* address = static_cast<const char*>(info->si_addr);
  for (const WatchedMapping* entry = entries.load(); entry != nullptr; entry = entry->next) {
    const char* data = entry->data.load();
    if (data == nullptr || address < data || address >= data + entry->bytes) continue;
    const ssize_t written = write(STDERR_FILENO, entry->message.data(), entry->message.size());
    static_cast<void>(written);
    return;
  }
}

bool install() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  return sigaction(SIGBUS, &action, nullptr) == 0;
}

}  // namespace

BusErrorWatch::BusErrorWatch(const void* data, std::size_t bytes, const std::string& path)
    : entry_(nullptr) {
  static const bool installed = install();
  if (!installed || data == nullptr) return;
  entry_ = new WatchedMapping{{static_cast<const char*>(data)},
                              bytes,
                              "vllm-ts: " + path + " became shorter while it was read\n",
                              entries.load()};
  while (!entries.compare_exchange_weak(entry_->next, entry_)) {
  }
}

BusErrorWatch::~BusErrorWatch() {
  if (entry_ != nullptr) entry_->data.store(nullptr);
}

}  // namespace vt
