// The row table as the host keeps it beside the device's: it checks what a step brings, as the CPU
// backend does, and writes what the device will copy. The host does not know sampled ids, nor which
// rows ended by them: its counts are what the engine believes, too.
#pragma once

#include <cstdint>
#include <vector>

#include "../../host/row_table.h"
#include "memory.h"
#include "pinned_heap.h"
#include "step_arrays.h"

namespace vt {

class Rows {
 public:
  Rows(const RowTableSizes& sizes, Ledger& ledger);

  RowTable& table() { return table_; }
  /// Fills the fields of `arrays` that are the row table's.
  void describe(StepArrays& arrays) const;

  /// Takes the changes of the step at hand; steps below `num_reported` are over. Throws
  /// KernelError naming the column at fault.
  void apply(const StepView& step, std::uint64_t step_index, std::uint64_t num_reported);
  /// Rows that the last apply() filled, each once.
  const std::vector<std::int32_t>& new_rows() const { return new_rows_; }
  bool is_new(int row) const;
  /// First block table entry that the device lacks, if it gets those to `last_block` now.
  int schedule(int row, int last_block);

 private:
  void set_up(int row);
  void put_lists(int row, VtCudaRowParams& params);

  /// What the host knows beside the RowTable.
  struct Side {
    /// Steps that named the row, as step index plus one; 0 = none.
    std::uint64_t named = 0, filled = 0;
    /// Block table entries from here on may have changed since the row was last scheduled.
    std::int32_t copy_from = 0;
    char* lists = nullptr;
    std::size_t list_bytes = 0;
  };

  const RowTableSizes sizes_;
  PinnedBuffer histories_, host_block_tables_, setups_;
  DeviceBuffer block_tables_, params_, stop_ids_, num_tokens_, finished_, last_token_;
  RowTable table_;
  std::vector<Side> sides_;
  std::vector<std::int32_t> new_rows_;
  std::uint64_t step_index_ = 0;
  PinnedHeap heap_;
};

}  // namespace vt
