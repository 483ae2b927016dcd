// Where libraries of CUDA are that are loaded at run time: folders that are named, the loader's,
// CUDA toolkits', pip packages', in that order. Knows nothing of what is in them.
#pragma once

#include <string>
#include <vector>

namespace vt {

struct LibraryName {
  /// With its major version: "libcublasLt.so.13".
  std::string file;
  /// Folders of nvidia/ in Python's packages that may have it.
  std::vector<std::string> packages;
};

/// Null where it is nowhere; `search_path` names folders, ':' between, `path` is where it was
/// found. It is never closed.
void* open_library(const LibraryName& name, const std::string& search_path, std::string& path);

}  // namespace vt
