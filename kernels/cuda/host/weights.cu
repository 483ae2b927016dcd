// Uploading: threads take pieces of the parts, copy each into pinned memory of their own, and leave
// it to the device from there: a copy where the bytes are final, a kernel where they are converted,
// padded or interleaved. Reading a mapped file, the copy and the transfer of different pieces
// overlap, and all of it overlaps with what the loading thread does meanwhile.
#include "weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_error.h"
#include "weight_rows.h"

namespace vt {

namespace {

constexpr std::size_t kSlotBytes = std::size_t{4} << 20;
constexpr int kSlots = 3;
constexpr unsigned kMaxThreads = 8;
constexpr std::int64_t kRowAlignment = 128;

/// Rows of one part that fit a slot.
struct Piece {
  int weight;
  const char* source;
  Dtype dtype;
  std::int64_t first_row, num_rows;
  /// Of the source; the weight's columns beyond are zeros.
  std::int64_t row_bytes, num_columns;

  std::size_t bytes(const WeightPlace& place) const {
    return static_cast<std::size_t>(num_rows * place.columns) * dtype_bytes(dtype);
  }
};

/// What one thread copies through.
struct Lane {
  std::thread thread;
  PinnedBuffer slots;
  cudaStream_t stream = nullptr;
  cudaEvent_t taken[kSlots] = {};

  ~Lane() {
    for (cudaEvent_t event : taken)
      if (event != nullptr) cudaEventDestroy(event);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
};

WeightPlace place_of(const WeightSpec& spec) {
  const bool is_vector = spec.columns == 0;
  WeightPlace place{};
  place.dtype = spec.dtype;
  place.rows = spec.rows;
  place.columns = is_vector ? 1 : spec.columns;
  const std::int64_t unit = kRowAlignment / dtype_bytes(spec.dtype);
  place.stride = is_vector ? 1 : (spec.columns + unit - 1) / unit * unit;
  place.interleave = spec.interleave;
  return place;
}

/// From the first element of a part to its last.
double bytes_of(const VtCudaWeightPart& part, int element_bytes) {
  if (part.num_rows == 0) return 0;
  return static_cast<double>(part.num_rows - 1) * static_cast<double>(part.row_bytes) +
         static_cast<double>(part.num_columns) * element_bytes;
}

std::size_t bytes_of(const WeightPlace& place) {
  return static_cast<std::size_t>(place.rows * place.stride) * dtype_bytes(place.dtype);
}

}  // namespace

struct Weights::Upload {
  std::vector<WeightPlace> places;
  DeviceBuffer memory;
  std::vector<Piece> pieces;
  std::vector<Lane> lanes;
  int device = 0;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  std::string failure;

  ~Upload() {
    stopped = true;
    join();
  }

  void allocate(const Program& program, Ledger& ledger) {
    std::vector<std::size_t> offsets;
    std::size_t total = 0;
    for (const WeightSpec& spec : program.weights) {
      places.push_back(place_of(spec));
      offsets.push_back(total);
      total += (bytes_of(places.back()) + 255) / 256 * 256;
    }
    memory = DeviceBuffer(total, "weights", ledger);
    for (std::size_t i = 0; i < places.size(); i++) places[i].data = memory.as<char>() + offsets[i];
  }

  /// Makes up weight `index` from its parts, where there are any: the same numbers for the same
  /// place of a tensor, whatever part of it a rank has.
  void make_up(int index, std::int64_t seed, const VtCudaWeightPart* parts, int num_parts) {
    const WeightPlace& place = places[index];
    if (num_parts == 0)
      return make_up_rows(place, 0, {0, 0, place.rows, place.columns, place.rows}, seed,
                          static_cast<std::uint32_t>(index), nullptr);
    std::int64_t row = 0;
    for (int i = 0; i < num_parts; i++) {
      const VtCudaWeightPart& part = parts[i];
      VT_CHECK(part.num_rows >= 0 && part.num_rows <= place.rows - row &&
                   part.num_columns == place.columns,
               "weight %d: a part of %lld x %lld does not fit", index,
               static_cast<long long>(part.num_rows), static_cast<long long>(part.num_columns));
      make_up_rows(place, row,
                   {part.first_row, part.first_column, part.num_rows, part.tensor_columns,
                    part.tensor_rows},
                   seed, part.tensor, nullptr);
      row += part.num_rows;
    }
    check_rows(index, row);
  }

  void check_rows(int index, std::int64_t rows) const {
    VT_CHECK(rows == places[index].rows, "weight %d: its parts have %lld rows, expected %lld", index,
             static_cast<long long>(rows), static_cast<long long>(places[index].rows));
  }

  /// Cuts the parts of weight `index` into pieces; throws if they do not make it up.
  void add_parts(int index, const VtCudaWeightPart* parts, int num_parts) {
    const WeightPlace& place = places[index];
    const bool is_vector = place.columns == 1 && place.stride == 1;
    std::int64_t row = 0;
    for (int i = 0; i < num_parts; i++) {
      const VtCudaWeightPart& part = parts[i];
      VT_CHECK(part.dtype >= 0 && part.dtype < kNumDtypes, "weight %d: a part's dtype is %d", index,
               part.dtype);
      const Dtype dtype = static_cast<Dtype>(part.dtype);
      VT_CHECK(dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16,
               "weight %d: parts in %s are not supported on cuda yet", index, dtype_name(dtype));
      VT_CHECK(part.num_rows >= 0 && part.num_columns >= 0 && part.data != nullptr &&
                   part.row_bytes >= part.num_columns * dtype_bytes(dtype) &&
                   static_cast<double>(part.num_bytes) == bytes_of(part, dtype_bytes(dtype)),
               "weight %d: a part of %lld x %lld has %llu bytes", index,
               static_cast<long long>(part.num_rows), static_cast<long long>(part.num_columns),
               static_cast<unsigned long long>(part.num_bytes));
      VT_CHECK(is_vector || part.num_columns <= place.columns,
               "weight %d: a part has %lld columns, expected %lld at most", index,
               static_cast<long long>(part.num_columns), static_cast<long long>(place.columns));
      VT_CHECK(!is_vector || part.num_rows <= 1 ||
                   part.row_bytes == part.num_columns * dtype_bytes(dtype),
               "weight %d: a vector with gaps", index);
      const std::int64_t rows = is_vector ? part.num_rows * part.num_columns : part.num_rows;
      const std::int64_t row_bytes = place.columns * dtype_bytes(dtype);
      const std::int64_t at_once = static_cast<std::int64_t>(kSlotBytes) / row_bytes;
      VT_CHECK(at_once > 0, "weight %d: a row of %lld bytes is too long", index,
               static_cast<long long>(row_bytes));
      const std::int64_t stride = is_vector ? row_bytes : part.row_bytes;
      for (std::int64_t r = 0; r < rows; r += at_once)
        pieces.push_back({index, static_cast<const char*>(part.data) + r * stride, dtype, row + r,
                          std::min(at_once, rows - r), stride,
                          is_vector ? place.columns : part.num_columns});
      row += rows;
    }
    check_rows(index, row);
  }

  void start() {
    VT_CUDA(cudaGetDevice(&device));
    const std::size_t most = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads);
    lanes = std::vector<Lane>(std::min(most, pieces.size()));
    for (Lane& lane : lanes) lane.thread = std::thread([this, &lane] { run(lane); });
  }

  void run(Lane& lane) {
    try {
      VT_CUDA(cudaSetDevice(device));
      VT_CUDA(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking));
      for (cudaEvent_t& event : lane.taken)
        VT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
      Ledger of_the_load;
      lane.slots = PinnedBuffer(kSlots * kSlotBytes, "weights on their way", of_the_load);
      for (int slot = 0; !stopped; slot = (slot + 1) % kSlots) {
        const std::size_t i = next.fetch_add(1);
        if (i >= pieces.size()) break;
        copy(lane, slot, pieces[i]);
      }
      VT_CUDA(cudaStreamSynchronize(lane.stream));
    } catch (const std::exception& error) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (failure.empty()) failure = error.what();
      stopped = true;
    }
  }

  void copy(Lane& lane, int slot, const Piece& piece) {
    const WeightPlace& place = places[piece.weight];
    char* pinned = lane.slots.as<char>() + slot * kSlotBytes;
    VT_CUDA(cudaEventSynchronize(lane.taken[slot]));
    const std::size_t row = static_cast<std::size_t>(place.columns) * dtype_bytes(piece.dtype);
    const std::size_t present =
        static_cast<std::size_t>(piece.num_columns) * dtype_bytes(piece.dtype);
    if (present == row && piece.row_bytes == static_cast<std::int64_t>(row)) {
      std::memcpy(pinned, piece.source, piece.bytes(place));
    } else {
      for (std::int64_t r = 0; r < piece.num_rows; r++) {
        std::memcpy(pinned + r * row, piece.source + r * piece.row_bytes, present);
        std::memset(pinned + r * row + present, 0, row - present);
      }
    }
    try {
      const bool final = piece.dtype == place.dtype && place.interleave == 0 &&
                         place.stride == place.columns;
      if (final) {
        char* to = static_cast<char*>(place.data) +
                   piece.first_row * place.stride * dtype_bytes(place.dtype);
        VT_CUDA(cudaMemcpyAsync(to, pinned, piece.bytes(place), cudaMemcpyHostToDevice,
                                lane.stream));
      } else {
        place_rows(place, piece.first_row, piece.num_rows, pinned, piece.dtype, lane.stream);
      }
      VT_CUDA(cudaEventRecord(lane.taken[slot], lane.stream));
    } catch (const KernelError& error) {
      VT_FAIL("weight %d: %s", piece.weight, error.what());
    }
  }

  void join() {
    for (Lane& lane : lanes)
      if (lane.thread.joinable()) lane.thread.join();
  }
};

Weights::Weights(const Program& program, const VtCudaLoad& load, Ledger& ledger)
    : upload_(std::make_unique<Upload>()) {
  VT_CHECK(load.num_weight_words == 4 * program.weights.size(), "weights: %zu in the program",
           program.weights.size());
  upload_->allocate(program, ledger);
  const VtCudaWeightPart* parts = load.parts;
  for (int i = 0; i < static_cast<int>(program.weights.size()); i++) {
    const int num_parts = load.num_parts[i];
    // Constants have their data even where the rest is made up.
    if (load.dummy_seed >= 0 && (num_parts == 0 || parts->data == nullptr)) {
      upload_->make_up(i, load.dummy_seed, parts, num_parts);
    } else {
      upload_->add_parts(i, parts, num_parts);
    }
    parts += num_parts;
  }
  upload_->start();
}

Weights::~Weights() = default;

const void* Weights::data(int weight) const { return upload_->places[weight].data; }

std::int64_t Weights::stride(int weight) const {
  const WeightPlace& place = upload_->places[weight];
  // A vector has a column of `rows` elements.
  return place.columns == 1 && place.stride == 1 ? place.rows : place.stride;
}

void Weights::wait() {
  upload_->join();
  VT_CHECK(upload_->failure.empty(), "%s", upload_->failure.c_str());
  upload_->lanes.clear();
  VT_CUDA(cudaStreamSynchronize(nullptr));
}

}  // namespace vt
