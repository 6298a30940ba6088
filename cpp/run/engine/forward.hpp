// The pass of a chunk of tokens through all layers, in one parallel region.
//
// Five steps a layer, with a barrier after each: norm and projections, attention, its output and
// the residual, norm and gate, and down and the residual. Every thread has its even share of panels
// or heads, and each number is computed by one thread in one order, so that the number of threads
// does not change it.
#pragma once

#include "attention.hpp"
#include "products.hpp"
#include "team.hpp"

namespace thresher::THRESHER_NAMESPACE {

class Pass {
 public:
  Pass(const EngineModel& model, EngineState& state, std::int64_t count, Member member)
      : model_(model), state_(state), count_(count), member_(member) {}

  void run(const std::int64_t* ids) {
    member_.share(count_, [&](std::int64_t t) {
      read_row(model_.embedding, ids[t], state_.residual.get() + t * state_.hidden_width);
      fill_angles(model_, state_, t);
    });
    member_.barrier.wait();
    for (std::int64_t layer = 0; layer < state_.layers; ++layer) run_layer(layer);
  }

  void write_logits(std::int64_t first, float* logits) {
    const Operand x = normed(model_.final_norm, model_.head, first, count_ - first);
    const std::int64_t rows = model_.head.rows;
    member_.share(model_.head.panels(), [&](std::int64_t panel) {
      multiply_panel(model_.head, panel, x, count_ - first, [&](std::int64_t t, const float* tile) {
        const std::int64_t row = panel * EngineMatrix::panel_rows;
        copy(logits + t * rows + row, tile, smaller(EngineMatrix::panel_rows, rows - row));
      });
    });
  }

 private:
  void run_layer(std::int64_t layer) {
    const EngineLayer& weights = model_.layers[static_cast<std::size_t>(layer)];
    multiply(weights.qkv, normed(weights.attention_norm, weights.qkv, 0, count_),
             state_.qkv.get(), state_.qkv_width);
    attend_all(layer);
    add(weights.out, rounded(weights.out, state_.attended.get(), state_.attended_width));
    activate(weights.gate_up, normed(weights.mlp_norm, weights.gate_up, 0, count_));
    add(weights.down, rounded(weights.down, state_.activated.get(), state_.mlp_width));
  }

  // The chunk's tokens as inputs, made by fill(token, values): by each thread for itself where
  // there is one, which saves a barrier, or by all threads together.
  template <class Fill>
  Operand prepared(const EngineMatrix& matrix, std::int64_t count, std::int64_t width,
                   Fill&& fill) {
    const std::int64_t groups = width / EngineMatrix::group;
    const std::int64_t base = count == 1 ? member_.rank : 0;
    const Operand first{state_.inputs.get(), state_.input_codes.get(), state_.input_scales.get(),
                        state_.input_sums.get(), state_.input_totals.get(), width};
    const auto make = [&](std::int64_t t) {
      const std::int64_t slot = base + t;
      const float* values = fill(t, state_.inputs.get() + slot * width);
      if (!matrix.has_codes()) return;
      round_groups(values, groups, state_.input_codes.get() + slot * width,
                   state_.input_scales.get() + slot * groups,
                   state_.input_sums.get() + slot * groups,
                   state_.input_totals.get() + slot * groups);
    };
    if (count == 1) {
      make(0);
    } else {
      member_.share(count, make);
      member_.barrier.wait();
    }
    return first.from(base);
  }

  Operand normed(const float* norm, const EngineMatrix& matrix, std::int64_t first,
                 std::int64_t count) {
    return prepared(matrix, count, state_.hidden_width, [&](std::int64_t t, float* values) {
      normalize(state_.residual.get() + (first + t) * state_.hidden_width, norm, model_.hidden,
                model_.epsilon, values);
      clear(values + model_.hidden, state_.hidden_width - model_.hidden);
      return values;
    });
  }

  Operand rounded(const EngineMatrix& matrix, const float* values, std::int64_t width) {
    if (!matrix.has_codes()) return {values, nullptr, nullptr, nullptr, nullptr, width};
    return prepared(matrix, count_, width,
                    [&](std::int64_t t, float*) { return values + t * width; });
  }

  void multiply(const EngineMatrix& matrix, const Operand& x, float* y, std::int64_t width) {
    member_.share(matrix.panels(), [&](std::int64_t panel) {
      multiply_panel(matrix, panel, x, count_, [&](std::int64_t t, const float* tile) {
        const std::int64_t row = panel * EngineMatrix::panel_rows;
        copy(y + t * width + row, tile, EngineMatrix::panel_rows);
      });
    });
    member_.barrier.wait();
  }

  // Adds a product to the residual stream.
  void add(const EngineMatrix& matrix, const Operand& x) {
    member_.share(matrix.panels(), [&](std::int64_t panel) {
      const std::int64_t row = panel * EngineMatrix::panel_rows;
      const std::int64_t rows = smaller(EngineMatrix::panel_rows, matrix.rows - row);
      multiply_panel(matrix, panel, x, count_, [&](std::int64_t t, const float* tile) {
        float* residual = state_.residual.get() + t * state_.hidden_width + row;
        for (std::int64_t r = 0; r < rows; ++r) residual[r] += tile[r];
      });
    });
    member_.barrier.wait();
  }

  // Writes silu(gate) * up: panels of both alternate.
  void activate(const EngineMatrix& matrix, const Operand& x) {
    constexpr std::int64_t rows = EngineMatrix::panel_rows;
    member_.share(matrix.panels() / 2, [&](std::int64_t pair) {
      const auto place = [&](std::int64_t t) {
        return state_.activated.get() + t * state_.mlp_width + pair * rows;
      };
      multiply_panel(matrix, 2 * pair, x, count_, [&](std::int64_t t, const float* tile) {
        for (std::int64_t r = 0; r < rows; r += lanes) store(place(t) + r, silu(load(tile + r)));
      });
      multiply_panel(matrix, 2 * pair + 1, x, count_, [&](std::int64_t t, const float* tile) {
        for (std::int64_t r = 0; r < rows; ++r) place(t)[r] *= tile[r];
      });
    });
    member_.barrier.wait();
  }

  void attend_all(std::int64_t layer) {
    const std::int64_t shared = model_.heads / model_.kv_heads;
    if (count_ == 1) {
      member_.share(model_.kv_heads, [&](std::int64_t head) {
        append(model_, state_, layer, head, 0);
        for (std::int64_t i = 0; i < shared; ++i) {
          attend(model_, state_, layer, head * shared + i, 0, member_.rank);
        }
      });
    } else {
      member_.share(count_ * model_.kv_heads, [&](std::int64_t i) {
        append(model_, state_, layer, i % model_.kv_heads, i / model_.kv_heads);
      });
      member_.barrier.wait();
      // Head by head, as later tokens of a chunk see more than earlier ones.
      member_.share(count_ * model_.heads, [&](std::int64_t i) {
        attend(model_, state_, layer, i / count_, i % count_, member_.rank);
      });
    }
    member_.barrier.wait();
  }

  const EngineModel& model_;
  EngineState& state_;
  const std::int64_t count_;
  const Member member_;
};

inline void forward(const EngineModel& model, EngineState& state, const Tokens& tokens,
                    int threads) {
  state.reserve(state.position + tokens.count, threads);
  for (std::int64_t first = 0; first < tokens.count; first += EngineState::chunk) {
    const std::int64_t count = smaller(EngineState::chunk, tokens.count - first);
    const bool last = first + count == tokens.count;
    auto pass = [&](Member member) {
      Pass run(model, state, count, member);
      run.run(tokens.ids + first);
      if (tokens.every) run.write_logits(0, tokens.logits + first * model.head.rows);
      else if (last) run.write_logits(count - 1, tokens.logits);
    };
    run_team(threads, pass);
    state.position += count;
  }
}

inline void multiply_rows(const EngineMatrix& matrix, const float* x, std::int64_t batch,
                          float* y) {
  const std::int64_t groups = matrix.groups(), width = groups * EngineMatrix::group;
  Aligned<float> values(batch * width), scales(batch * groups), totals(batch * groups);
  Aligned<std::int8_t> codes(batch * width);
  Aligned<std::int32_t> sums(batch * groups);
  for (std::int64_t b = 0; b < batch; ++b) {
    copy(values.get() + b * width, x + b * matrix.columns, matrix.columns);
  }
  round_groups(values.get(), batch * groups, codes.get(), scales.get(), sums.get(), totals.get());
  const Operand operand{values.get(), codes.get(),  scales.get(),
                        sums.get(),   totals.get(), width};
  for (std::int64_t panel = 0; panel < matrix.panels(); ++panel) {
    multiply_panel(matrix, panel, operand, batch, [&](std::int64_t b, const float* tile) {
      const std::int64_t row = panel * EngineMatrix::panel_rows;
      copy(y + b * matrix.rows + row, tile, smaller(EngineMatrix::panel_rows, matrix.rows - row));
    });
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
