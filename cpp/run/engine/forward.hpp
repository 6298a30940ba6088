// The pass of a chunk of tokens through all layers, in one parallel region. The tokens may be of
// several sequences: alone attention tells them apart, and a product has each by itself.
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
  Pass(const EngineModel& model, EngineWork& work, const Row* rows, std::int64_t count,
       Member member)
      : model_(model), work_(work), rows_(rows), count_(count), member_(member) {}

  void run() {
    member_.share(count_, [&](std::int64_t t) {
      float* residual = work_.residual.get() + t * work_.hidden_width;
      read_row(model_.embedding, rows_[t].id, residual);
      if (model_.embedding_scale != 1) {
        for (std::int64_t i = 0; i < model_.hidden; ++i) residual[i] *= model_.embedding_scale;
      }
      if (model_.positions.rows > 0) add_position(t, residual);
      fill_angles(model_, work_, rows_[t], t);
    });
    member_.barrier.wait();
    const auto layers = static_cast<std::int64_t>(model_.layers.size());
    for (std::int64_t layer = 0; layer < layers; ++layer) run_layer(layer);
    write_logits();
  }

 private:
  void add_position(std::int64_t t, float* residual) {
    float* place = work_.inputs.get() + t * work_.operand_width;
    read_row(model_.positions, rows_[t].position, place);
    for (std::int64_t i = 0; i < model_.hidden; ++i) residual[i] += place[i];
  }

  void write_logits() {
    std::int64_t wanted[EngineWork::chunk], count = 0;
    for (std::int64_t t = 0; t < count_; ++t) {
      if (rows_[t].logits != nullptr) wanted[count++] = t;
    }
    if (count == 0) return;
    const Operand x = normed(model_.final_norm, model_.head, wanted, count);
    const std::int64_t rows = model_.head.rows;
    member_.share(model_.head.panels(), [&](std::int64_t panel) {
      multiply_panel(model_.head, panel, x, count, [&](std::int64_t i, const float* tile) {
        const std::int64_t row = panel * EngineMatrix::panel_rows;
        const std::int64_t here = smaller(EngineMatrix::panel_rows, rows - row);
        float* logits = rows_[wanted[i]].logits + row;
        copy(logits, tile, here);
        if (model_.logit_cap > 0) soften(logits, here, model_.logit_cap);
      });
    });
  }

  void run_layer(std::int64_t layer) {
    const EngineLayer& weights = model_.layers[static_cast<std::size_t>(layer)];
    std::int64_t first = 0;
    for (const EngineMatrix& part : weights.qkv) {
      multiply(part, normed(weights.attention_norm, part),
               [&](std::int64_t t, std::int64_t row, std::int64_t rows, const float* tile) {
                 copy(work_.qkv.get() + t * work_.qkv_width + first + row, tile, rows);
               });
      first += part.rows;
    }
    attend_all(layer);
    add(weights.out, rounded(weights.out, work_.attended.get(), work_.attended_width),
        weights.attention_after);
    if (!model_.gated) {
      activate_rows(weights.mlp_norm, weights.gate_up[0]);
    } else if (weights.gate_up.size() == 1) {
      activate(weights.gate_up[0], normed(weights.mlp_norm, weights.gate_up[0]));
    } else {
      activate_apart(weights.mlp_norm, weights.gate_up[0], weights.gate_up[1]);
    }
    add(weights.down, rounded(weights.down, work_.activated.get(), work_.mlp_width),
        weights.mlp_after);
  }

  // The chunk's tokens as inputs, made by fill(token, values): by each thread for itself where
  // there is one, which saves a barrier, or by all threads together.
  template <class Fill>
  Operand prepared(const EngineMatrix& matrix, std::int64_t count, std::int64_t width,
                   Fill&& fill) {
    const std::int64_t groups = width / EngineMatrix::group;
    const std::int64_t base = count == 1 ? member_.rank : 0;
    const Operand first{work_.inputs.get(),     work_.input_codes.get(),  work_.input_scales.get(),
                        work_.input_sums.get(), work_.input_totals.get(), width};
    const auto make = [&](std::int64_t t) {
      const std::int64_t slot = base + t;
      float* room = work_.inputs.get() + slot * width;
      const float* values = fill(t, room);
      if (!matrix.has_codes()) return;
      if (matrix.thresholds != nullptr) {
        drop_small(values, matrix.thresholds, matrix.columns, room);
        clear(room + matrix.columns, width - matrix.columns);
        values = room;
      }
      round_groups(values, groups, work_.input_codes.get() + slot * width,
                   work_.input_scales.get() + slot * groups, work_.input_sums.get() + slot * groups,
                   work_.input_totals.get() + slot * groups);
    };
    const auto rank = static_cast<std::size_t>(member_.rank);
    const bool channels = matrix.format == Format::channels;
    Operand x = first.from(base);
    if (count > 1) {
      member_.share(count, make);
      member_.barrier.wait();
      if (channels) x.room = &work_.rooms[rank];
      return x;
    }
    make(0);
    if (channels) {
      keep(x.codes, x.scales, groups, work_.kept[rank]);
      x.kept = &work_.kept[rank];
    }
    return x;
  }

  Operand normed(const float* norm, const EngineMatrix& matrix) {
    return normed(norm, matrix, nullptr, count_);
  }

  // Of some of the chunk's tokens, or of all.
  Operand normed(const float* norm, const EngineMatrix& matrix, const std::int64_t* chosen,
                 std::int64_t count) {
    return prepared(matrix, count, work_.hidden_width, [&](std::int64_t i, float* values) {
      const std::int64_t t = chosen == nullptr ? i : chosen[i];
      normalize(model_, work_.residual.get() + t * work_.hidden_width, norm, values);
      clear(values + model_.hidden, work_.hidden_width - model_.hidden);
      return values;
    });
  }

  Operand rounded(const EngineMatrix& matrix, const float* values, std::int64_t width) {
    if (!matrix.has_codes()) return {values, nullptr, nullptr, nullptr, nullptr, width};
    return prepared(matrix, count_, width,
                    [&](std::int64_t t, float*) { return values + t * width; });
  }

  // Calls sink(token, row, rows, results) for the rows of every panel, from `row` on.
  template <class Sink>
  void multiply(const EngineMatrix& matrix, const Operand& x, Sink&& sink) {
    const auto [first, last] = member_.range(matrix.panels());
    multiply_panels(matrix, first, last, x, count_,
                    [&](std::int64_t row, std::int64_t rows, std::int64_t t, const float* tile) {
                      sink(t, row, smaller(rows, matrix.rows - row), tile);
                    });
    member_.barrier.wait();
  }

  // Adds a product to the residual stream, or what a norm makes of it.
  void add(const EngineMatrix& matrix, const Operand& x, const float* norm) {
    if (norm != nullptr) {
      add_normed(matrix, x, norm);
      return;
    }
    multiply(matrix, x,
             [&](std::int64_t t, std::int64_t row, std::int64_t rows, const float* tile) {
               float* residual = work_.residual.get() + t * work_.hidden_width + row;
               for (std::int64_t r = 0; r < rows; ++r) residual[r] += tile[r];
             });
  }

  void add_normed(const EngineMatrix& matrix, const Operand& x, const float* norm) {
    const auto place = [&](std::int64_t t) { return work_.added.get() + t * work_.hidden_width; };
    multiply(matrix, x,
             [&](std::int64_t t, std::int64_t row, std::int64_t rows, const float* tile) {
               copy(place(t) + row, tile, rows);
             });
    member_.share(count_, [&](std::int64_t t) {
      normalize(model_, place(t), norm, place(t));
      float* residual = work_.residual.get() + t * work_.hidden_width;
      for (std::int64_t i = 0; i < model_.hidden; ++i) residual[i] += place(t)[i];
    });
    member_.barrier.wait();
  }

  // Writes activation(matrix), whose rows are padded to whole vectors.
  void activate_rows(const float* norm, const EngineMatrix& matrix) {
    multiply(matrix, normed(norm, matrix),
             [&](std::int64_t t, std::int64_t row, std::int64_t rows, const float* tile) {
               float* place = work_.activated.get() + t * work_.mlp_width + row;
               for (std::int64_t r = 0; r < rows; r += lanes) {
                 store(place + r, activated(model_.activation, load(tile + r)));
               }
             });
  }

  // Writes activation(gate) * up, likewise.
  void activate_apart(const float* norm, const EngineMatrix& gate, const EngineMatrix& up) {
    activate_rows(norm, gate);
    multiply(up, normed(norm, up),
             [&](std::int64_t t, std::int64_t row, std::int64_t rows, const float* tile) {
               float* place = work_.activated.get() + t * work_.mlp_width + row;
               for (std::int64_t r = 0; r < rows; ++r) place[r] *= tile[r];
             });
  }

  // Writes activation(gate) * up: panels of both alternate.
  void activate(const EngineMatrix& matrix, const Operand& x) {
    constexpr std::int64_t rows = EngineMatrix::panel_rows;
    member_.share(matrix.panels() / 2, [&](std::int64_t pair) {
      const auto place = [&](std::int64_t t) {
        return work_.activated.get() + t * work_.mlp_width + pair * rows;
      };
      multiply_panel(matrix, 2 * pair, x, count_, [&](std::int64_t t, const float* tile) {
        for (std::int64_t r = 0; r < rows; r += lanes) {
          store(place(t) + r, activated(model_.activation, load(tile + r)));
        }
      });
      multiply_panel(matrix, 2 * pair + 1, x, count_, [&](std::int64_t t, const float* tile) {
        for (std::int64_t r = 0; r < rows; ++r) place(t)[r] *= tile[r];
      });
    });
    member_.barrier.wait();
  }

  void attend_all(std::int64_t layer) {
    if (count_ == 1) {
      member_.share(model_.kv_heads, [&](std::int64_t head) {
        append(model_, work_, *rows_, layer, head, 0, member_.rank);
        attend_sharing(layer, 0, head);
      });
    } else {
      member_.share(count_ * model_.kv_heads, [&](std::int64_t i) {
        const std::int64_t t = i / model_.kv_heads;
        append(model_, work_, rows_[t], layer, i % model_.kv_heads, t, member_.rank);
      });
      member_.barrier.wait();
      attend_runs(layer);
    }
    member_.barrier.wait();
  }

  // All heads of a token that share a head of keys.
  void attend_sharing(std::int64_t layer, std::int64_t token, std::int64_t kv_head) {
    const std::int64_t shared = model_.heads / model_.kv_heads;
    for (std::int64_t i = 0; i < shared; i += EngineWork::queries_together) {
      const std::int64_t many = smaller(EngineWork::queries_together, shared - i);
      Asking asking[EngineWork::queries_together];
      for (std::int64_t k = 0; k < many; ++k) asking[k] = {token, kv_head * shared + i + k};
      attend(model_, work_, rows_, layer, asking, many, member_.rank);
    }
  }

  // A head of a few tokens of one sequence that follow one another, or all heads that share keys of
  // a token alone.
  void attend_runs(std::int64_t layer) {
    std::int64_t firsts[EngineWork::chunk + 1], runs = 0;
    for (std::int64_t t = 0; t < count_; t += run_from(t)) firsts[runs++] = t;
    firsts[runs] = count_;
    // Head by head, as later tokens of a chunk see more than earlier ones.
    const std::int64_t shared = model_.heads / model_.kv_heads;
    member_.share(runs * model_.kv_heads, [&](std::int64_t i) {
      const std::int64_t first = firsts[i % runs], many = firsts[i % runs + 1] - first;
      const std::int64_t kv_head = i / runs;
      if (many == 1) {
        attend_sharing(layer, first, kv_head);
        return;
      }
      for (std::int64_t head = kv_head * shared; head < (kv_head + 1) * shared; ++head) {
        Asking asking[EngineWork::queries_together];
        for (std::int64_t k = 0; k < many; ++k) asking[k] = {first + k, head};
        attend(model_, work_, rows_, layer, asking, many, member_.rank);
      }
    });
  }

  // How many tokens from one on are of its sequence, at most as many as look at keys together.
  std::int64_t run_from(std::int64_t token) const {
    std::int64_t many = 1;
    while (many < EngineWork::queries_together && token + many < count_ &&
           rows_[token + many].cache == rows_[token].cache) {
      ++many;
    }
    return many;
  }

  const EngineModel& model_;
  EngineWork& work_;
  const Row* rows_;
  const std::int64_t count_;
  const Member member_;
};

inline void forward(const EngineModel& model, EngineWork& work, const Row* rows, std::int64_t count,
                    int threads) {
  for (std::int64_t first = 0; first < count; first += EngineWork::chunk) {
    const std::int64_t here = smaller(EngineWork::chunk, count - first);
    auto pass = [&](Member member) { Pass(model, work, rows + first, here, member).run(); };
    run_team(threads, pass);
  }
}

inline void multiply_rows(const EngineMatrix& matrix, const float* x, std::int64_t batch,
                          float* y) {
  const std::int64_t groups = matrix.groups(), width = groups * EngineMatrix::group;
  Aligned<float> values(batch * width), scales(batch * groups), totals(batch * groups);
  Aligned<std::int8_t> codes(batch * width);
  Aligned<std::int32_t> sums(batch * groups);
  for (std::int64_t b = 0; b < batch; ++b) {
    float* to = values.get() + b * width;
    copy(to, x + b * matrix.columns, matrix.columns);
    if (matrix.thresholds != nullptr) drop_small(to, matrix.thresholds, matrix.columns, to);
  }
  round_groups(values.get(), batch * groups, codes.get(), scales.get(), sums.get(), totals.get());
  Operand operand{values.get(), codes.get(), scales.get(), sums.get(), totals.get(), width};
  const bool channels = matrix.format == Format::channels;
  Kept kept(channels && batch == 1 ? width : 0);
  RowRoom room(channels && batch != 1 ? width : 0);
  operand.room = &room;
  if (channels && batch == 1) {
    keep(codes.get(), scales.get(), groups, kept);
    operand.kept = &kept;
  }
  multiply_panels(matrix, 0, matrix.panels(), operand, batch,
                  [&](std::int64_t row, std::int64_t rows, std::int64_t b, const float* tile) {
                    copy(y + b * matrix.rows + row, tile, smaller(rows, matrix.rows - row));
                  });
}

}  // namespace thresher::THRESHER_NAMESPACE
