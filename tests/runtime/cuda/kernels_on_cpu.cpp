// Stand-ins for CUDA's keywords, so that runtime/cuda/kernels.cu compiles as plain C++ and runs on the CPU, block after
// block, in each block thread after thread from one barrier to the next.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define FCNEDGE_CPU_SHIM
#define __global__
#define __device__
#define __shared__ static
#define EACH_THREAD                                                                                                    \
    for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)                                                     \
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
#define BARRIER
using std::max, std::min;

struct Dim { unsigned x, y, z; };
static Dim blockIdx, blockDim, threadIdx, gridDim;

static float half_value(unsigned short bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float mantissa = exponent ? 1024 + fraction : fraction;
    const float size = exponent < 31 ? std::ldexp(mantissa, std::max(exponent, 1) - 25) : fraction ? NAN : INFINITY;
    return bits >> 15 ? -size : size;
}

// As cuLaunchKernel: `arguments` point to one value each.
template <class... Types, size_t... I>
void launch(void (*kernel)(Types...), const unsigned *grid, const unsigned *block, void **arguments,
            std::index_sequence<I...>)
{
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
                kernel(*static_cast<std::decay_t<Types> *>(arguments[I])...);
}

template <class... Types>
int launch(void (*kernel)(Types...), const unsigned *grid, const unsigned *block, void **arguments)
{
    launch(kernel, grid, block, arguments, std::index_sequence_for<Types...>());
    return sizeof...(Types);
}

#include "kernels.cu"

#define LAUNCH(name)                                                                                                   \
    extern "C" int launch_##name(const unsigned *grid, const unsigned *block, void **arguments)                        \
    {                                                                                                                  \
        return launch(name, grid, block, arguments);                                                                   \
    }
LAUNCH(preprocess)
LAUNCH(scores_to_labels_f32)
LAUNCH(scores_to_labels_f16)
LAUNCH(overlay)
