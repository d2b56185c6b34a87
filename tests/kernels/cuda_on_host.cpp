// The kernels, each to be run by its name with the parameters of cuLaunchKernel.
#include "cuda_on_host.h"

#include "act.cu"
#include "letterbox.cu"
#include "match.cu"
#include "project.cu"
#include "select.cu"
#include "warp.cu"

#define KERNEL(NAME) {#NAME, Launch<NAME>::count, Launch<NAME>::sizes, Launch<NAME>::run}

static const struct {
    const char *name;
    int count;
    const unsigned char *sizes;  // of the parameters, in bytes
    void (*run)(void **);
} KERNELS[] = {
    KERNEL(letterbox_bgr), KERNEL(letterbox_nv12), KERNEL(warp_bgr), KERNEL(warp_nv12),
    KERNEL(crop_faces),
    KERNEL(project_f32_1), KERNEL(project_f32_4), KERNEL(project_f32_8),
    KERNEL(project_f16_1), KERNEL(project_f16_4), KERNEL(project_f16_8),
    KERNEL(project_i8_1), KERNEL(project_i8_4), KERNEL(project_i8_8), KERNEL(spectrum),
    KERNEL(gene_weights), KERNEL(mutate), KERNEL(select_clones), KERNEL(take_likely),
    KERNEL(act_chosen_f32), KERNEL(act_chosen_f16), KERNEL(act_chosen_i8),
    KERNEL(act_dense_f32), KERNEL(act_dense_f16), KERNEL(act_dense_i8), KERNEL(recogniser_planes),
    KERNEL(mean_embedding), KERNEL(match),
};

// Null, or what is wrong.
extern "C" const char *run_kernel(const char *name, const unsigned *grid, const unsigned *block, unsigned shared,
                                  void **values, int count, int backwards) {
    for (const auto &kernel : KERNELS)
        if (!strcmp(kernel.name, name)) {
            if (kernel.count != count) return "the kernel has another number of parameters";
            return run_grid(kernel.run, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, values,
                            backwards);
        }
    return "there is no such kernel";
}
