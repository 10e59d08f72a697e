#include "runtime/data.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/error.h"

namespace echelon {

Data::Data(std::unique_ptr<Source> source, const Objective& objective, const Seed& seed, Options options)
    : source_(std::move(source)), objective_(objective), seed_(seed), options_(options) {}

int64_t Data::sample_at(int64_t position) const {
  int64_t epoch = position / source_->size(), index = position % source_->size();
  if (!options_.shuffle) return index;
  return Permutation(seed_.with("order").with(epoch), source_->size())(index);
}

std::vector<Batch> Data::step(int64_t step, int rank, int ranks) const {
  int64_t share = options_.global_batch / ranks;
  int64_t first = first_sample(step) + rank * share;
  std::vector<int64_t> mine;
  for (int64_t i = 0; i < share; ++i) mine.push_back(sample_at(first + i));
  int64_t micro = options_.micro_batch > 0 ? options_.micro_batch : share;
  return batches(mine, seed_.with("step").with(step), share / micro);
}

int64_t Data::batches_in_pass() const { return (source_->size() + options_.global_batch - 1) / options_.global_batch; }

std::vector<Batch> Data::pass(int64_t index, int rank, int ranks) const {
  int64_t share = options_.global_batch / ranks;
  int64_t first = index * options_.global_batch + rank * share;
  std::vector<int64_t> mine;
  for (int64_t i = 0; i < share && first + i < source_->size(); ++i) mine.push_back(first + i);
  int64_t micro = options_.micro_batch > 0 ? options_.micro_batch : share;
  return batches(mine, seed_.with("evaluation"), share / micro);
}

std::vector<Batch> Data::batches(const std::vector<int64_t>& mine, const Seed& seed, int64_t count) const {
  int64_t micro =
      std::max<int64_t>(1, options_.micro_batch > 0 ? options_.micro_batch : static_cast<int64_t>(mine.size()));
  std::vector<Batch> all;
  for (int64_t i = 0; i < count; ++i) {
    auto begin = mine.begin() + std::min<int64_t>(i * micro, mine.size());
    auto end = mine.begin() + std::min<int64_t>((i + 1) * micro, mine.size());
    // A rank whose samples have run out joins with a sample that does not count.
    bool empty = begin == end;
    all.push_back(batch(empty ? std::vector<int64_t>{0} : std::vector<int64_t>(begin, end), seed));
    if (empty) {
      all.back().tensors["labels"].fill_(-100);
      all.back().targets = 0;
    }
  }
  return all;
}

Batch Data::batch(const std::vector<int64_t>& samples, const Seed& seed) const {
  int64_t tokens = source_->length() + objective_.lookahead();
  Examples examples{at::empty({static_cast<int64_t>(samples.size()), tokens}, at::kLong), samples};
  int64_t* out = examples.tokens.data_ptr<int64_t>();
  for (size_t i = 0; i < samples.size(); ++i, out += tokens) {
    source_->read(samples[i], out);
    auto wrong = std::find_if(out, out + tokens, [&](int64_t id) { return id < 0 || id >= options_.vocabulary; });
    if (wrong == out + tokens) continue;
    throw Error::input(source_->describe(samples[i]), fmt::format("token id {} at position {}", *wrong, wrong - out))
        .expected(fmt::format("ids below the model's vocabulary of {}", options_.vocabulary))
        .remedy("prepare the data with the model's tokenizer, or give the model a larger vocabulary");
  }
  return objective_.prepare(examples, seed);
}

}  // namespace echelon
