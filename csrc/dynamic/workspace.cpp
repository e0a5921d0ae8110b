#include "dynamic/workspace_impl.h"

namespace pyquant {

Workspace::Workspace(int threads) : impl_(std::make_unique<Impl>(threads)) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

}  // namespace pyquant
