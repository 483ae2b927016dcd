// The boards of some ranks, and the group that each of them sees.
#pragma once

#include <algorithm>
#include <vector>

#include "vt_cuda_collective.h"

class Boards {
 public:
  Boards(int num_ranks, int64_t slot_bytes, const uint64_t* first_epoch) : ranks_(num_ranks) {
    for (Rank& rank : ranks_) {
      rank.board.resize(vt_cuda_board_bytes(num_ranks, slot_bytes), '\xff');
      std::fill_n(rank.board.begin(), VT_CUDA_INBOX_OFFSET, '\0');
    }
    for (int r = 0; r < num_ranks; r++) {
      VtCudaGroup& group = ranks_[r].group;
      for (int p = 0; p < num_ranks; p++) group.boards[p] = ranks_[p].board.data();
      group.first_epoch = first_epoch;
      group.report = &ranks_[r].report;
      group.timeout_ns = 20'000'000;
      group.slot_bytes = slot_bytes;
      group.rank = r;
      group.num_ranks = num_ranks;
      group.max_blocks = 8;
    }
  }

  const VtCudaGroup& group(int rank) const { return ranks_[rank].group; }
  const VtCudaGroupReport& report(int rank) const { return ranks_[rank].report; }
  /// Every value that was sent has been taken.
  bool are_empty() const {
    for (const Rank& rank : ranks_)
      for (std::size_t i = VT_CUDA_INBOX_OFFSET; i < rank.board.size(); i++)
        if (rank.board[i] != '\xff') return false;
    return true;
  }

 private:
  struct Rank {
    std::vector<char> board;
    VtCudaGroup group = {};
    VtCudaGroupReport report = {};
  };
  std::vector<Rank> ranks_;
};
