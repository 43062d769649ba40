// internvl_mapped: a tensor that is a piece of a file.
//
// In: a path, where the piece begins, its shape; `like` has its dtype. Out: a tensor over a private mapping, which ends
// with it. Nothing is read before it is needed; what is written stays with the process. Not made in Python: there the
// end of a mapping lets go of the interpreter's lock, which Paddle waits for with a lock of its own held.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "border.h"
#include "paddle/phi/api/include/tensor_utils.h"

namespace {

std::vector<Tensor> Mapped(const Tensor& like, const std::string& path, int64_t offset,
                           const std::vector<int64_t>& shape) {
  int64_t bytes = phi::SizeOf(like.dtype());
  for (int64_t side : shape) bytes *= side;
  require(bytes > 0 && offset >= 0, "a piece of a file needs a place and a size");
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(file >= 0, path + " can't be opened");
  struct stat about;
  const bool there = fstat(file, &about) == 0 && offset + bytes <= about.st_size;
  const int64_t ahead = offset % sysconf(_SC_PAGESIZE), length = ahead + bytes;
  void* at = MAP_FAILED;
  if (there) at = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, offset - ahead);
  close(file);
  require(there, path + " ends before the piece that is to be mapped");
  require(at != MAP_FAILED, path + " can't be mapped");
  return {paddle::from_blob(static_cast<char*>(at) + ahead, shape, like.dtype(), phi::DataLayout::NCHW,
                            paddle::CPUPlace(), [at, length](void*) { munmap(at, length); })};
}

}  // namespace

PD_BUILD_OP(internvl_mapped)
    .Inputs({"Like"})
    .Outputs({"Out"})
    .Attrs({"path: std::string", "offset: int64_t", "shape: std::vector<int64_t>"})
    .SetKernelFn(PD_KERNEL(Mapped));
