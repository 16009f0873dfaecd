// Test only: the CUDA kernels of splatting on the CPU. The steps of a thread (gs_device.h) are the
// very lines that the GPU runs; blocks and barriers are loops here.
#include <algorithm>
#include <cstring>
#include <vector>

#include "gs_device.h"
#include "kb_host.h"

namespace {

using namespace gs;

template <class Keeper>
void heaviest(const HeaviestTask& t, int tile) {
  std::vector<Walk<Keeper>> walks(kBlock);
  for (int i = 0; i < kBlock; ++i) walks[i].begin(t, tile, i);
  auto full = [](const Walk<Keeper>& walk) { return walk.full(); };
  const int32_t end = tile_end(t, tile);
  for (int32_t begin = t.offsets[tile]; begin < end; begin += kBlock) {
    if (std::all_of(walks.begin(), walks.end(), full)) break;
    const int batch = std::min(end - begin, kBlock);
    for (auto& walk : walks) {
      for (int i = 0; i < batch && !walk.full(); ++i) {
        const int32_t id = t.order[begin + i];
        walk.push(t, t.splats[id], id);
      }
    }
  }
  for (auto& walk : walks) walk.finish(t);
}

}  // namespace

// Runs `blocks` blocks of the kernel of that name with its one argument; -1: no such kernel.
KB_EXPORT int gs_emu_launch(const char* name, unsigned blocks, const void* task) {
  const struct {
    const char* name;
    void (*run)(const HeaviestTask&, int);
  } keepers[] = {
      {"gs::gs_heaviest<gs::NoKeeper>", heaviest<NoKeeper>},
      {"gs::gs_heaviest<gs::RegisterKeeper<4>>", heaviest<RegisterKeeper<4>>},
      {"gs::gs_heaviest<gs::RegisterKeeper<8>>", heaviest<RegisterKeeper<8>>},
      {"gs::gs_heaviest<gs::RegisterKeeper<16>>", heaviest<RegisterKeeper<16>>},
      {"gs::gs_heaviest<gs::MemoryKeeper>", heaviest<MemoryKeeper>},
  };
  for (const auto& k : keepers) {
    if (strcmp(k.name, name) != 0) continue;
    for (unsigned tile = 0; tile < blocks; ++tile) k.run(*static_cast<const HeaviestTask*>(task), int(tile));
    return 0;
  }
  const int64_t end = int64_t(blocks) * kBlock;
  if (strcmp(name, "gs::gs_project") == 0) {
    const auto& t = *static_cast<const ProjectTask*>(task);
    for (int64_t i = 0; i < std::min(end, t.n); ++i) project_one(t, i);
    return 0;
  }
  if (strcmp(name, "gs::gs_project_backward") == 0) {
    const auto& t = *static_cast<const ProjectBackwardTask*>(task);
    for (int64_t i = 0; i < std::min(end, t.n); ++i) project_backward_one(t, i);
    return 0;
  }
  return -1;
}
