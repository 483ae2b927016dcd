// mapFile(path): a file's bytes by a read-only private mapping, so that weights are read once, by
// whoever packs them, and share the page cache between processes. Handed out in slices, because an
// ArrayBuffer may be smaller than a file: Node 20 ends at 4 GiB, checkpoints have shards of 5 GB.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "addon.h"
#include "bus_error.h"

namespace vt {

namespace {

/// Unmapped when the file's object and every slice are gone.
struct Mapping {
  explicit Mapping(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    VT_CHECK(fd >= 0, "%s: %s", path.c_str(), strerror(errno));
    struct stat status;
    const int failed = fstat(fd, &status);
    if (failed != 0 || !S_ISREG(status.st_mode)) {
      close(fd);
      VT_FAIL("%s: not a regular file", path.c_str());
    }
    bytes = static_cast<size_t>(status.st_size);
    void* mapped = bytes == 0 ? nullptr : mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    VT_CHECK(mapped != MAP_FAILED, "%s: mmap: %s", path.c_str(), strerror(error));
    data = static_cast<char*>(mapped);
    watch = std::make_unique<BusErrorWatch>(data, bytes, path);
  }
  ~Mapping() {
    watch.reset();
    if (data != nullptr) munmap(data, bytes);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* data = nullptr;
  size_t bytes = 0;
  std::unique_ptr<BusErrorWatch> watch;
};

using SharedMapping = std::shared_ptr<const Mapping>;

/// slice(begin, end)
Napi::Value slice(const Napi::CallbackInfo& info, const SharedMapping& mapping) {
  const Napi::Env env = info.Env();
  if (info.Length() != 2 || !info[0].IsNumber() || !info[1].IsNumber())
    throw Napi::TypeError::New(env, "slice takes two byte offsets");
  const double begin = info[0].As<Napi::Number>().DoubleValue();
  const double end = info[1].As<Napi::Number>().DoubleValue();
  guarded(env, [&] {
    VT_CHECK(begin >= 0 && begin <= end && end <= static_cast<double>(mapping->bytes),
             "bytes %.0f to %.0f of a file that has %zu", begin, end, mapping->bytes);
  });
  const size_t first = static_cast<size_t>(begin);
  const size_t bytes = static_cast<size_t>(end) - first;
  if (bytes == 0) return Napi::ArrayBuffer::New(env, 0);
  auto release = [](Napi::Env, void*, SharedMapping* held) { delete held; };
  return Napi::ArrayBuffer::New(env, mapping->data + first, bytes, release,
                                new SharedMapping(mapping));
}

}  // namespace

Napi::Value map_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString())
    throw Napi::TypeError::New(env, "mapFile takes a path");
  const std::string path = info[0].As<Napi::String>();
  const SharedMapping mapping = guarded(env, [&] { return std::make_shared<const Mapping>(path); });
  Napi::Object file = Napi::Object::New(env);
  file.Set("numBytes", Napi::Number::New(env, static_cast<double>(mapping->bytes)));
  file.Set("slice",
           Napi::Function::New(
               env, [mapping](const Napi::CallbackInfo& call) { return slice(call, mapping); },
               "slice"));
  return file;
}

}  // namespace vt
