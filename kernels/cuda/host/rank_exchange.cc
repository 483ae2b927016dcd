#include "rank_exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>

#include "../../check.h"

namespace vt {

namespace {

constexpr auto kPoll = std::chrono::milliseconds(2);

void write_file(const std::string& path, const std::string& text) {
  // Renamed into place: no rank reads a half.
  const std::string fresh = path + ".new";
  const int file = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  VT_CHECK(file >= 0, "%s: %s", fresh.c_str(), strerror(errno));
  const ssize_t written = ::write(file, text.data(), text.size());
  close(file);
  VT_CHECK(written == static_cast<ssize_t>(text.size()), "%s: it could not be written",
           fresh.c_str());
  VT_CHECK(rename(fresh.c_str(), path.c_str()) == 0, "%s: %s", path.c_str(), strerror(errno));
}

/// False if there is no such file.
bool read_file(const std::string& path, std::string& text) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    VT_CHECK(errno == ENOENT, "%s: %s", path.c_str(), strerror(errno));
    return false;
  }
  char buffer[4096];
  text.clear();
  ssize_t count;
  while ((count = ::read(file, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(count));
  close(file);
  VT_CHECK(count == 0, "%s: it could not be read", path.c_str());
  return true;
}

}  // namespace

RankExchange::RankExchange(std::string path, int rank, int num_ranks, int timeout_ms)
    : path_(std::move(path)), rank_(rank), num_ranks_(num_ranks), timeout_ms_(timeout_ms) {}

std::string RankExchange::file_of(int rank, int round) const {
  return path_ + "." + std::to_string(rank) + "." + std::to_string(round);
}

std::vector<std::string> RankExchange::meet(const std::string& message) {
  write_file(file_of(rank_, round_), message);
  round_++;
  std::vector<std::string> messages;
  for (int rank = 0; rank < num_ranks_; rank++)
    messages.push_back(rank == rank_ ? message : read(rank));
  // Who has come to this round has read those of the one before.
  if (round_ > 1) unlink(file_of(rank_, round_ - 2).c_str());
  return messages;
}

std::string RankExchange::read(int rank) const {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
  std::string text;
  while (!read_file(file_of(rank, round_ - 1), text)) {
    VT_CHECK(std::chrono::steady_clock::now() < until,
             "rank %d did not get as far as this one (%d) within %d s of loading", rank, rank_,
             timeout_ms_ / 1000);
    std::this_thread::sleep_for(kPoll);
  }
  return text;
}

}  // namespace vt
