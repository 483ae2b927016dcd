// mapFile(path): a file's bytes as an ArrayBuffer backed by a read-only private mapping, so that
// weights are read once, by whoever packs them, and share the page cache between processes.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "addon.h"

namespace vt {

namespace {

struct Mapping {
  void* data;
  size_t bytes;
};

Mapping map_path(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  VT_CHECK(fd >= 0, "%s: %s", path.c_str(), strerror(errno));
  struct stat status;
  const int failed = fstat(fd, &status);
  if (failed != 0 || !S_ISREG(status.st_mode)) {
    close(fd);
    VT_FAIL("%s: not a regular file", path.c_str());
  }
  const size_t bytes = static_cast<size_t>(status.st_size);
  void* data = bytes == 0 ? nullptr : mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  VT_CHECK(data != MAP_FAILED, "%s: mmap: %s", path.c_str(), strerror(error));
  return {data, bytes};
}

}  // namespace

Napi::Value map_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString())
    throw Napi::TypeError::New(env, "mapFile takes a path");
  const std::string path = info[0].As<Napi::String>();
  const Mapping mapping = guarded(env, [&] { return map_path(path); });
  if (mapping.bytes == 0) return Napi::ArrayBuffer::New(env, 0);
  auto unmap = [](Napi::Env, void* data, size_t* bytes) {
    munmap(data, *bytes);
    delete bytes;
  };
  return Napi::ArrayBuffer::New(env, mapping.data, mapping.bytes, unmap, new size_t(mapping.bytes));
}

}  // namespace vt
