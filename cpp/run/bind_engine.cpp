// The engine: matrices in panels, layers, a model of them, and sequences on their way through it.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>
#include <vector>

#include "bind.hpp"
#include "engine/kernels.hpp"

namespace thresher {
namespace {

using Floats32 = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using OutputBytes = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using OutputShorts = nb::ndarray<std::uint16_t, nb::c_contig, nb::device::cpu>;

Format format_named(const std::string& name) {
  if (name == "bf16") return Format::bf16;
  if (name == "float16") return Format::float16;
  if (name == "float32") return Format::float32;
  if (name == "int8") return Format::int8;
  if (name == "int4") return Format::int4;
  if (name == "channels") return Format::channels;
  throw std::invalid_argument("format '" + name +
                              "' is unknown; use bf16, float16, float32, int8, int4 or channels");
}

class Panels {
 public:
  Panels(const std::string& format, Bytes codes, std::optional<Shorts> scales,
         std::optional<Shorts> minimums, float unit, std::optional<Floats32> bias,
         std::int64_t rows, std::int64_t columns, std::optional<Floats32> thresholds)
      : codes_(std::move(codes)),
        scales_(std::move(scales)),
        minimums_(std::move(minimums)),
        bias_(std::move(bias)),
        thresholds_(std::move(thresholds)) {
    check_matrix(rows, columns);
    view_.format = format_named(format);
    view_.rows = rows;
    view_.columns = columns;
    view_.unit = unit;
    const std::int64_t groups = view_.panels() * view_.groups();
    check_size(codes_.size(), groups * view_.group_bytes(), "codes");
    check(scales_.has_value() == view_.has_codes(), "scales", "do not fit the format");
    check(scales_.has_value() || !minimums_, "minimums", "do not fit the format");
    check(std::isfinite(unit) && unit > 0, "unit", "is not positive");
    if (scales_) check_size(scales_->size(), groups * view_.height(), "scales");
    if (minimums_) check_size(minimums_->size(), groups * view_.height(), "minimums");
    if (bias_) check_size(bias_->size(), view_.panels() * view_.height(), "bias");
    // Places of lines within a panel are held in 32 bits.
    check(view_.format != Format::channels || columns <= most_unheld, "shape",
          "has too many columns for channels");
    check(!thresholds_ || view_.has_codes(), "thresholds", "do not fit the format");
    if (thresholds_) check_size(thresholds_->size(), columns, "thresholds");
    view_.codes = codes_.data();
    view_.scales = scales_ ? scales_->data() : nullptr;
    view_.minimums = minimums_ ? minimums_->data() : nullptr;
    view_.bias = bias_ ? bias_->data() : nullptr;
    view_.thresholds = thresholds_ ? thresholds_->data() : nullptr;
  }

  const EngineMatrix& view() const { return view_; }

  std::int64_t nbytes() const {
    return static_cast<std::int64_t>(codes_.size() + (scales_ ? 2 * scales_->size() : 0) +
                                     (minimums_ ? 2 * minimums_->size() : 0));
  }

  void multiply(Floats32 x, Output y) const {
    check(view_.columns > 0 && view_.rows > 0, "weight", "is empty");
    const auto batch = static_cast<std::int64_t>(x.size()) / view_.columns;
    check_size(x.size(), batch * view_.columns, "x");
    check_size(y.size(), batch * view_.rows, "y");
    engine_kernels().multiply(view_, x.data(), batch, y.data());
  }

  void dequantize(Output values) const {
    check_size(values.size(), view_.rows * view_.columns, "values");
    for (std::int64_t row = 0; row < view_.rows; ++row) {
      engine_kernels().read_row(view_, row, values.data() + row * view_.columns);
    }
  }

 private:
  Bytes codes_;
  std::optional<Shorts> scales_, minimums_;
  std::optional<Floats32> bias_, thresholds_;
  EngineMatrix view_;
};

void quantize(Floats32 weights, float unit, int bits, OutputBytes codes, OutputShorts scales,
              std::optional<OutputShorts> minimums) {
  const auto groups = static_cast<std::int64_t>(weights.size()) / EngineMatrix::group;
  check_size(weights.size(), groups * EngineMatrix::group, "weights");
  check(std::isnormal(unit) && std::isnormal(1 / unit), "unit", "is no number to divide by");
  check(bits == 4 || bits == 8, "bits", "are not 4 or 8");
  check_size(codes.size(), groups * EngineMatrix::group, "codes");
  check_size(scales.size(), groups, "scales");
  if (minimums) check_size(minimums->size(), groups, "minimums");
  const nb::gil_scoped_release unlocked;
  engine_kernels().quantize(weights.data(), groups, 1 / unit, bits, codes.data(), scales.data(),
                            minimums ? minimums->data() : nullptr);
}

void check_shape(const Panels& panels, std::int64_t rows, std::int64_t columns,
                 const std::string& name) {
  check(panels.view().rows == rows && panels.view().columns == columns, name,
        "is " + std::to_string(panels.view().rows) + " x " + std::to_string(panels.view().columns) +
            ", expected " + std::to_string(rows) + " x " + std::to_string(columns));
}

struct Layer {
  std::vector<Panels> qkv;
  Panels out;
  std::vector<Panels> gate_up;
  Panels down;
  Floats32 attention_norm, mlp_norm;
  std::optional<Floats32> attention_after, mlp_after, query_norm, key_norm;
  bool rotary;
  std::int64_t turning, window;
};

// What sets a model apart from Llama.
struct Manner {
  std::string activation;
  float embedding_scale, score_scale, score_cap, logit_cap;
  bool gated, centred;
};

Activation activation_named(const std::string& name) {
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  throw std::invalid_argument("activation '" + name + "' is unknown; use silu, gelu or relu");
}

class Model {
 public:
  Model(Panels embedding, Panels head, Floats32 final_norm, std::vector<Layer> layers,
        std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, std::int64_t intermediate,
        float epsilon, Floats32 frequencies, float rotary_scale, Manner manner,
        std::optional<Panels> positions)
      : embedding_(std::move(embedding)),
        head_(std::move(head)),
        positions_(std::move(positions)),
        final_norm_(std::move(final_norm)),
        layers_(std::move(layers)) {
    check(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && heads <= most_unheld, "heads",
          "are not shared evenly by heads of keys");
    check(head_dim > 0 && head_dim % 2 == 0 && head_dim <= most_unheld, "head_dim", "is not even");
    check(intermediate > 0 && intermediate <= most_entries, "intermediate", "is no size");
    check(frequencies.size() > 0 && frequencies.size() % (head_dim / 2) == 0, "frequencies",
          "are not sets of half a head each");
    check(std::isfinite(manner.embedding_scale) && std::isfinite(manner.score_scale), "scale",
          "is not finite");
    check(manner.score_cap >= 0 && manner.logit_cap >= 0, "cap", "is negative");
    view_.embedding = embedding_.view();
    view_.head = head_.view();
    view_.hidden = view_.embedding.columns;
    view_.heads = heads;
    view_.kv_heads = kv_heads;
    view_.head_dim = head_dim;
    view_.intermediate = padded_to(intermediate, EngineMatrix::panel_rows);
    view_.epsilon = epsilon;
    view_.rotary_scale = rotary_scale;
    view_.frequencies.assign(frequencies.data(), frequencies.data() + frequencies.size());
    view_.activation = activation_named(manner.activation);
    view_.embedding_scale = manner.embedding_scale;
    view_.score_scale = manner.score_scale;
    view_.score_cap = manner.score_cap;
    view_.logit_cap = manner.logit_cap;
    view_.gated = manner.gated;
    view_.centred = manner.centred;
    check_shape(head_, view_.embedding.rows, view_.hidden, "head");
    if (positions_) {
      view_.positions = positions_->view();
      check(view_.positions.rows > 0, "positions", "are none");
      check_shape(*positions_, view_.positions.rows, view_.hidden, "positions");
    }
    check_norm(final_norm_, "final_norm");
    view_.final_norm = final_norm_.data();
    for (const Layer& layer : layers_) add(layer);
  }

  std::int64_t vocabulary() const { return view_.head.rows; }
  const EngineModel& view() const { return view_; }

 private:
  void check_norm(const Floats32& norm, const std::string& name) const {
    check_size(norm.size(), (view_.centred ? 2 : 1) * view_.hidden, name);
  }

  // Of a matrix whole, or in parts of these rows.
  std::vector<EngineMatrix> views(const std::vector<Panels>& parts, std::vector<std::int64_t> rows,
                                  const std::string& name) const {
    if (parts.size() == 1) rows = {std::accumulate(rows.begin(), rows.end(), std::int64_t{0})};
    check_size(parts.size(), static_cast<std::int64_t>(rows.size()), name);
    std::vector<EngineMatrix> found;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      check_shape(parts[i], rows[i], view_.hidden, name);
      found.push_back(parts[i].view());
    }
    return found;
  }

  void add(const Layer& layer) {
    const std::int64_t width = view_.head_dim, wide = view_.heads * width;
    const std::int64_t keys = view_.kv_heads * width;
    const auto qkv = views(layer.qkv, {wide, keys, keys}, "qkv");
    check_shape(layer.out, view_.hidden, wide, "out");
    const std::vector<std::int64_t> rows(view_.gated ? 2 : 1, view_.intermediate);
    const auto gate_up = views(layer.gate_up, rows, "gate_up");
    check_shape(layer.down, view_.hidden, view_.intermediate, "down");
    check_norm(layer.attention_norm, "attention_norm");
    check_norm(layer.mlp_norm, "mlp_norm");
    if (layer.attention_after) check_norm(*layer.attention_after, "attention_after");
    if (layer.mlp_after) check_norm(*layer.mlp_after, "mlp_after");
    if (layer.query_norm) check_size(layer.query_norm->size(), width, "query_norm");
    if (layer.key_norm) check_size(layer.key_norm->size(), width, "key_norm");
    check(layer.turning >= 0 && layer.turning < view_.turnings(), "turning",
          "is no set of frequencies");
    check(layer.window >= 0, "window", "is negative");
    const auto data = [](const std::optional<Floats32>& of) { return of ? of->data() : nullptr; };
    view_.layers.push_back(
        {qkv, layer.out.view(), gate_up, layer.down.view(), layer.attention_norm.data(),
         layer.mlp_norm.data(), data(layer.attention_after), data(layer.mlp_after),
         data(layer.query_norm), data(layer.key_norm), layer.rotary, layer.turning, layer.window});
  }

  Panels embedding_, head_;
  std::optional<Panels> positions_;
  Floats32 final_norm_;
  std::vector<Layer> layers_;
  EngineModel view_;
};

// Refuses a second user while there is one: another thread, or another place in one batch.
class Hold {
 public:
  Hold(std::atomic<bool>& busy, const std::string& name) : busy_(busy) {
    check(!busy_.exchange(true), name, "is advanced elsewhere");
  }
  ~Hold() { busy_ = false; }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  std::atomic<bool>& busy_;
};

class Sequence {
 public:
  explicit Sequence(const Model& model) : model(model), cache(model.view()) {}

  std::int64_t position() const { return cache.position; }

  // Goes back to an earlier position: the cache of what came before it is still right.
  void rewind(std::int64_t position) {
    const Hold hold(busy, "sequence");
    check(position >= 0 && position <= cache.position, "position", "is not one that was passed");
    cache.position = position;
  }

  const Model& model;
  EngineCache cache;
  std::atomic<bool> busy{false};
};

class Work {
 public:
  explicit Work(const Model& model) : model_(model), work_(model.view()) {}

  // Tokens of each sequence, and where logits after the last of them go. Without the interpreter's
  // lock. Where it fails, sequences stay where they were.
  void advance(const std::vector<Sequence*>& sequences, const std::vector<Longs>& ids,
               const std::vector<Output>& logits, int threads) {
    check(!sequences.empty(), "sequences", "are none");
    check_size(ids.size(), static_cast<std::int64_t>(sequences.size()), "ids");
    check_size(logits.size(), static_cast<std::int64_t>(sequences.size()), "logits");
    const Hold hold(busy_, "work");
    std::deque<Hold> holds;
    std::vector<Row> rows;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      check(sequences[i] != nullptr && &sequences[i]->model == &model_, "sequence",
            "is of another model");
      holds.emplace_back(sequences[i]->busy, "sequence");
      add(sequences[i]->cache, ids[i], logits[i], rows);
    }
    const nb::gil_scoped_release unlocked;
    threads = std::max(threads, 1);
    std::int64_t end = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto next = sequences[i]->cache.position + static_cast<std::int64_t>(ids[i].size());
      sequences[i]->cache.reserve(next);
      end = std::max(end, next);
    }
    work_.reserve(end, threads);
    engine_kernels().forward(model_.view(), work_, rows.data(),
                             static_cast<std::int64_t>(rows.size()), threads);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      sequences[i]->cache.position += static_cast<std::int64_t>(ids[i].size());
    }
  }

 private:
  void add(const EngineCache& cache, const Longs& ids, const Output& logits,
           std::vector<Row>& rows) const {
    const auto count = static_cast<std::int64_t>(ids.size());
    const std::int64_t vocabulary = model_.vocabulary();
    const auto wanted = static_cast<std::int64_t>(logits.size()) / vocabulary;
    check(count > 0, "ids", "is empty");
    const std::int64_t places = model_.view().positions.rows;
    check(places == 0 || cache.position + count <= places, "ids", "go beyond the last position");
    check_size(logits.size(), std::min(wanted, count) * vocabulary, "logits");
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t id = ids.data()[i], after = i - (count - wanted);
      check(id >= 0 && id < vocabulary, "ids", "holds a token outside the vocabulary");
      rows.push_back({id, &cache, cache.position + i,
                      after < 0 ? nullptr : logits.data() + after * vocabulary});
    }
  }

  const Model& model_;
  EngineWork work_;
  std::atomic<bool> busy_{false};
};

}  // namespace

void bind_engine(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Panels>(module, "Panels")
      .def(nb::init<const std::string&, Bytes, std::optional<Shorts>, std::optional<Shorts>, float,
                    std::optional<Floats32>, std::int64_t, std::int64_t, std::optional<Floats32>>(),
           "form"_a, "codes"_a, "scales"_a.none(), "minimums"_a.none(), "unit"_a, "bias"_a.none(),
           "rows"_a, "columns"_a, "thresholds"_a.none() = nb::none())
      .def_prop_ro("nbytes", &Panels::nbytes)
      .def("multiply", &Panels::multiply, "x"_a, "y"_a)
      .def("dequantize", &Panels::dequantize, "values"_a);
  module.def("quantize", &quantize, "weights"_a, "unit"_a, "bits"_a, "codes"_a, "scales"_a,
             "minimums"_a.none());
  nb::class_<Layer>(module, "EngineLayer")
      .def(
          "__init__",
          [](Layer* self, std::vector<Panels> qkv, Panels out, std::vector<Panels> gate_up,
             Panels down, Floats32 attention_norm, Floats32 mlp_norm,
             std::optional<Floats32> query_norm, std::optional<Floats32> key_norm, bool rotary,
             std::int64_t window, std::optional<Floats32> attention_after,
             std::optional<Floats32> mlp_after, std::int64_t turning) {
            new (self) Layer{
                std::move(qkv),  out,       std::move(gate_up), down,     attention_norm, mlp_norm,
                attention_after, mlp_after, query_norm,         key_norm, rotary,         turning,
                window};
          },
          "qkv"_a, "out"_a, "gate_up"_a, "down"_a, "attention_norm"_a, "mlp_norm"_a,
          "query_norm"_a.none(), "key_norm"_a.none(), "rotary"_a, "window"_a,
          "attention_after"_a.none(), "mlp_after"_a.none(), "turning"_a);
  nb::class_<Model>(module, "EngineModel")
      .def(
          "__init__",
          [](Model* self, Panels embedding, Panels head, Floats32 final_norm,
             std::vector<Layer> layers, std::int64_t heads, std::int64_t kv_heads,
             std::int64_t head_dim, std::int64_t intermediate, float epsilon, Floats32 frequencies,
             float rotary_scale, const std::string& activation, float embedding_scale,
             float score_scale, float score_cap, float logit_cap, bool gated, bool centred,
             std::optional<Panels> positions) {
            new (self) Model(
                embedding, head, final_norm, std::move(layers), heads, kv_heads, head_dim,
                intermediate, epsilon, frequencies, rotary_scale,
                {activation, embedding_scale, score_scale, score_cap, logit_cap, gated, centred},
                std::move(positions));
          },
          "embedding"_a, "head"_a, "final_norm"_a, "layers"_a, "heads"_a, "kv_heads"_a,
          "head_dim"_a, "intermediate"_a, "epsilon"_a, "frequencies"_a, "rotary_scale"_a,
          "activation"_a, "embedding_scale"_a, "score_scale"_a, "score_cap"_a, "logit_cap"_a,
          "gated"_a, "centred"_a, "positions"_a.none())
      .def_prop_ro("vocabulary", &Model::vocabulary);
  nb::class_<Sequence>(module, "EngineSequence")
      .def(nb::init<const Model&>(), "model"_a, nb::keep_alive<1, 2>())
      .def_prop_ro("position", &Sequence::position)
      .def("rewind", &Sequence::rewind, "position"_a);
  nb::class_<Work>(module, "EngineWork")
      .def(nb::init<const Model&>(), "model"_a, nb::keep_alive<1, 2>())
      .def_ro_static("chunk", &EngineWork::chunk)
      .def("advance", &Work::advance, "sequences"_a, "ids"_a, "logits"_a, "threads"_a);
}

}  // namespace thresher
