// One pair of functions per kind of operator: why QNNPACK cannot run it (empty if it can), and the
// kernel.
#pragma once

#include <memory>
#include <string>

#include "engines/engine.h"

namespace pyquant::qnnpack_engine {

std::string why_unsupported(const Operator& op, const Conv2d& conv);
std::string why_unsupported(const Operator& op, const Linear& linear);
std::string why_unsupported(const Operator& op, const Add& add);
std::string why_unsupported(const Operator& op, const MaxPool2d& pool);
std::string why_unsupported(const Operator& op, const AvgPool2d& pool);
std::string why_unsupported(const Operator& op, const AdaptiveAvgPool2d& pool);

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Conv2d& conv);
std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Linear& linear);
std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Add& add);
std::unique_ptr<PreparedKernel> prepare(const Operator& op, const MaxPool2d& pool);
std::unique_ptr<PreparedKernel> prepare(const Operator& op, const AvgPool2d& pool);
std::unique_ptr<PreparedKernel> prepare(const Operator& op, const AdaptiveAvgPool2d& pool);

}  // namespace pyquant::qnnpack_engine
