#include "engines/engine.h"

#include <algorithm>

#include "engines/native/native_engine.h"
#include "engines/reference/reference_engine.h"

namespace pyquant {
namespace {

struct Registration {
  std::unique_ptr<Engine> engine;
  int rank;
};

struct Registry {
  std::vector<Registration> registrations;
  std::vector<const Engine*> by_rank;

  void add(std::unique_ptr<Engine> engine, int rank) {
    registrations.push_back({std::move(engine), rank});
    std::ranges::stable_sort(registrations, {}, &Registration::rank);
    by_rank.clear();
    for (const Registration& registration : registrations) {
      by_rank.push_back(registration.engine.get());
    }
  }
};

Registry& registry() {
  static Registry instance = [] {
    Registry core;
    core.add(make_native_engine(), 10);
    core.add(make_reference_engine(), 100);
    return core;
  }();
  return instance;
}

const Engine& best_engine(const Operator& op) {
  std::string reasons;
  for (const Engine* engine : engines()) {
    const std::string why = engine->why_unsupported(op);
    if (why.empty()) {
      return *engine;
    }
    reasons += "\n  " + std::string(engine->name()) + ": " + why;
  }
  throw UnsupportedError("no engine runs " + std::string(kind_name(op.attributes)) + " '" +
                         op.name + "':" + reasons);
}

}  // namespace

void register_engine(std::unique_ptr<Engine> engine, int rank) {
  registry().add(std::move(engine), rank);
}

const std::vector<const Engine*>& engines() { return registry().by_rank; }

const Engine& find_engine(std::string_view name) {
  std::string known = "auto";
  for (const Engine* engine : engines()) {
    if (engine->name() == name) {
      return *engine;
    }
    known += ", " + std::string(engine->name());
  }
  throw UnsupportedError("there is no engine '" + std::string(name) + "'; known are: " + known);
}

const Engine& select_engine(std::string_view name, const Operator& op, bool fallback) {
  if (name == "auto") {
    return best_engine(op);
  }
  const Engine& engine = find_engine(name);
  const std::string why = engine.why_unsupported(op);
  if (why.empty()) {
    return engine;
  }
  if (!fallback) {
    throw UnsupportedError("the engine '" + std::string(name) + "' does not run " +
                           kind_name(op.attributes) + " '" + op.name + "': " + why);
  }
  for (const std::string_view core : {"native", "reference"}) {
    const Engine& candidate = find_engine(core);
    if (candidate.why_unsupported(op).empty()) {
      return candidate;
    }
  }
  return best_engine(op);
}

}  // namespace pyquant
