// model.pyq files.
#pragma once

#include <filesystem>
#include <memory>

#include "backend.h"

namespace server {

std::unique_ptr<Backend> load_pyquant(const std::filesystem::path& file);

}  // namespace server
