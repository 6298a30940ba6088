// What passes through a model work in: a chunk of tokens, of one sequence or of several.
#pragma once

#include "aligned.hpp"
#include "cache.hpp"
#include "model.hpp"

namespace thresher {

// One token of one sequence.
struct Row {
  std::int64_t id;
  const EngineCache* cache;  // has room for it
  std::int64_t position;
  float* logits;  // after it, as many as the head has rows; null where they are not wanted
};

struct KeptGroup {
  std::int64_t group, first, last;  // where in the lists its channels are
};

// Which channels a token needs, in fours of one group each: their columns and their codes.
struct Kept {
  explicit Kept(std::int64_t width)
      : columns(width + EngineMatrix::group),
        places(width + EngineMatrix::group),
        words((width + EngineMatrix::group) / 4),
        groups(width / EngineMatrix::group) {}

  Aligned<std::int32_t> columns;
  Aligned<std::uint32_t> places;  // of their lines, in the strip that is multiplied
  Aligned<std::int32_t> words;
  Aligned<KeptGroup> groups;
  std::int64_t count = 0;
};

// Where a panel of channels is laid out by rows.
struct RowRoom {
  explicit RowRoom(std::int64_t width)
      : codes(width * EngineMatrix::tall_rows / 2),
        scales(width / EngineMatrix::group * EngineMatrix::tall_rows),
        minimums(width / EngineMatrix::group * EngineMatrix::tall_rows) {}

  Aligned<std::uint8_t> codes;
  Aligned<std::uint16_t> scales, minimums;
};

class EngineWork {
 public:
  // Tokens that go through the layers together.
  static constexpr std::int64_t chunk = 64;
  // Heads of tokens that look at a head of keys together.
  static constexpr int queries_together = 4;

  explicit EngineWork(const EngineModel& model);

  // Makes room for sequences that end before `end` and for a team.
  void reserve(std::int64_t end, int threads);

  float* thread_scores(int rank, int query) const {
    return scores_.get() + (rank * queries_together + query) * capacity_;
  }
  float* thread_query(int rank, int query) const {
    return queries.get() + (rank * queries_together + query) * head_width;
  }
  // Where a token's angles of a set of frequencies begin.
  std::int64_t angle_place(std::int64_t set, std::int64_t token) const {
    return (set * chunk + token) * head_width;
  }

  const std::int64_t head_width;
  const std::int64_t hidden_width;  // these padded to whole groups
  const std::int64_t attended_width, mlp_width;
  const std::int64_t qkv_width;      // padded to whole panels
  const std::int64_t operand_width;  // the widest input of a product

  Aligned<float> residual, qkv, attended, activated, cosines, sines;
  Aligned<float> added;  // to the residual stream, of models that normalise it before
  // Inputs of products: by token of a chunk, or for one token by thread.
  Aligned<float> inputs, input_scales, input_totals;
  Aligned<std::int8_t> input_codes;
  Aligned<std::int32_t> input_sums;
  Aligned<float> queries;  // some of every thread's
  // Likewise, of models that drop inputs.
  std::vector<Kept> kept;
  std::vector<RowRoom> rooms;

 private:
  const bool channels_;
  std::int64_t capacity_ = 0;
  int threads_ = 0;
  Aligned<float> scores_;
};

}  // namespace thresher
