#include "find_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <sstream>

namespace vt {

namespace {

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> items;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ':');)
    if (!item.empty()) items.push_back(item);
  return items;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Folders that match, in the order of their names.
void add_matching(const std::string& pattern, std::vector<std::string>& folders) {
  glob_t found = {};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (std::size_t i = 0; i < found.gl_pathc; i++) folders.emplace_back(found.gl_pathv[i]);
  globfree(&found);
}

/// Where Python's environments lie: the active one, that of the python3 on the PATH, the user's,
/// the system's.
std::vector<std::string> python_prefixes() {
  std::vector<std::string> prefixes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (!variable(name).empty()) prefixes.push_back(variable(name));
  for (const std::string& folder : split(variable("PATH"))) {
    if (access((folder + "/python3").c_str(), X_OK) != 0) continue;
    prefixes.push_back(folder + "/..");
    break;
  }
  if (!variable("HOME").empty()) prefixes.push_back(variable("HOME") + "/.local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  return prefixes;
}

/// Where folders are given, those; then where toolkits and pip's packages put it.
std::vector<std::string> folders_of(const LibraryName& name, const std::string& search_path) {
  std::vector<std::string> folders = split(search_path);
  for (const char* home : {"CUDA_HOME", "CUDA_PATH"})
    if (!variable(home).empty()) folders.push_back(variable(home) + "/lib64");
  folders.emplace_back("/usr/local/cuda/lib64");
  add_matching("/usr/local/cuda-13*/lib64", folders);
  for (const std::string& prefix : python_prefixes())
    for (const char* site : {"site", "dist"})
      for (const std::string& package : name.packages)
        add_matching(prefix + "/lib/python3*/" + site + "-packages/nvidia/" + package + "/lib",
                     folders);
  return folders;
}

}  // namespace

void* open_library(const LibraryName& name, const std::string& search_path, std::string& path) {
  const std::size_t named = split(search_path).size();
  const std::vector<std::string> folders = folders_of(name, search_path);
  const auto open = [&path](const std::string& file) {
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) path = file;
    return library;
  };
  for (std::size_t i = 0; i < folders.size(); i++) {
    if (i == named)
      if (void* library = open(name.file)) return library;
    if (void* library = open(folders[i] + "/" + name.file)) return library;
  }
  return nullptr;
}

}  // namespace vt
