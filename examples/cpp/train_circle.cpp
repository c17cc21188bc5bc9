// Trains a small network to tell points inside a circle from those outside, scores every step's predictions
// with a tree of C++ rubrics, and records scores and losses into a database. No Python.
//
//   train_circle runs.db [steps]
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "rubriscope/rubriscope.h"
#include "rubriscope/torch.h"

namespace rs = rubriscope;

namespace {

/// The action is the logits (N, 2) of a batch, the observation the labels (N).
class Accuracy : public rs::Rubric {
 protected:
  rs::Score forward(const rs::Value& action, const rs::Value& observation) override {
    const auto predicted = action.as<torch::Tensor>().argmax(1);
    return rs::score_of(predicted.eq(observation.as<torch::Tensor>()).to(torch::kFloat64).mean());
  }
};

/// 1 when every logit is a finite number, else 0.
class Finite : public rs::Rubric {
 protected:
  rs::Score forward(const rs::Value& action, const rs::Value&) override {
    if (action.as<torch::Tensor>().isfinite().all().item<bool>()) return 1.0;
    return {0.0, "the network gave a logit that is not finite"};
  }
};

/// 1 minus the Brier score: how far the probabilities are from the truth, in the mean square.
class Calibration : public rs::Rubric {
 protected:
  rs::Score forward(const rs::Value& action, const rs::Value& observation) override {
    const auto inside = action.as<torch::Tensor>().softmax(1).select(1, 1).to(torch::kFloat64);
    const auto error = inside - observation.as<torch::Tensor>().to(torch::kFloat64);
    return rs::score_of(1 - error.square().mean());
  }
};

/// The mean probability of the predicted class. Measured, not rewarded.
class Confidence : public rs::Rubric {
 protected:
  rs::Score forward(const rs::Value& action, const rs::Value&) override {
    return std::get<0>(action.as<torch::Tensor>().softmax(1).max(1))
        .to(torch::kFloat64)
        .mean()
        .item<double>();
  }
};

/// Finite logits first; then accuracy, which counts from 0.6 on, and calibration.
rs::RubricPtr make_rubric() {
  auto quality = std::make_shared<rs::WeightedSum>(
      std::vector<rs::RubricPtr>{std::make_shared<rs::Gate>(std::make_shared<Accuracy>(), 0.6),
                                 std::make_shared<Calibration>(), std::make_shared<Confidence>()},
      std::vector<double>{0.8, 0.2, 0.0});
  return std::make_shared<rs::Sequential>(std::vector<rs::RubricPtr>{std::make_shared<Finite>(), quality});
}

std::shared_ptr<rs::Recorder> make_recorder(const std::string& database) {
  auto sink = std::make_shared<rs::SqliteSink>(database);
  rs::SessionInfo session;
  session.id = rs::make_uuid();
  session.name = "circle";
  session.created_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  session.metadata_json = R"({"example":"train_circle"})";
  rs::RecorderOptions options;
  options.journal_dir = rs::journal_dir_for(sink->target());
  // What an earlier run left behind when it was killed.
  rs::recover(options.journal_dir, {sink});
  return std::make_shared<rs::Recorder>(session, rs::WriterInfo{},
                                        std::vector<std::shared_ptr<rs::Sink>>{sink}, options);
}

int train(const std::string& database, int steps) {
  torch::manual_seed(0);
  torch::set_num_threads(1);
  torch::nn::Sequential network(torch::nn::Linear(2, 32), torch::nn::Tanh(), torch::nn::Linear(32, 2));
  torch::optim::Adam optimizer(network->parameters(), torch::optim::AdamOptions(0.02));

  const auto recorder = make_recorder(database);
  const auto rubric = make_rubric();
  const rs::RubricObserver observer(rubric, recorder);
  double reward = 0;
  for (int step = 0; step < steps; ++step) {
    const auto points = torch::rand({256, 2}) * 2 - 1;
    const auto labels = points.square().sum(1).lt(2 / M_PI).to(torch::kInt64);  // half of the square's area
    const torch::Tensor logits = network->forward(points);
    const auto loss = torch::nn::functional::cross_entropy(logits, labels);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();

    recorder->default_position->step = step;
    reward = (*rubric)(logits.detach(), labels);
    rs::log_scalars(*recorder, {"loss"}, {loss.item<double>()},
                    rs::RecordPosition::take(*recorder->default_position.load()));
    if ((step + 1) % 50 == 0)
      std::printf("step %d  loss %.3f  reward %.3f\n", step + 1, loss.item<double>(), reward);
  }
  std::printf("%llu records durable in %s\n", static_cast<unsigned long long>(recorder->flush(30)),
              database.c_str());
  recorder->close();
  return reward > 0.9 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s DATABASE [STEPS]\n", argv[0]);
    return 2;
  }
  try {
    return train(argv[1], argc == 3 ? std::stoi(argv[2]) : 300);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_circle: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
