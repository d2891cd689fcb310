// Three kernels beside the network: camera frame to network input, class scores to labels, labels over the frame.
//
// Each takes pointers first, then 32-bit integers and floats one by one, in the order of geometry.py, which also gives
// grid and block. `preprocess` and `overlay` are bit-exact to reference.py; what `scores_to_labels` owes to
// runtime/head.py stands above it. Compile with -fmad=false: a product and a sum contracted to one fused multiply-add
// are more exact, but then not the same bits in `position` (sides above 4096) and `careful_label`.
//
// Threads of a block meet at BARRIER; what they do between two barriers stands in braces after EACH_THREAD. For CUDA
// both are what one would write anyway. The tests compile this file as plain C++ with FCNEDGE_CPU_SHIM defined, where
// EACH_THREAD is a loop, and check arithmetic and bounds on a CPU.

#ifndef FCNEDGE_CPU_SHIM
#define EACH_THREAD
#define BARRIER __syncthreads()

// The conversion instruction itself: cuda_fp16.h would bring an include folder, which run-time compilers have not.
static __device__ float half_value(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
#endif

static __device__ int thread_in_block() { return threadIdx.y * blockDim.x + threadIdx.x; }
static __device__ int threads_of_block() { return blockDim.x * blockDim.y; }
static __device__ int clamped(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// ---------------------------------------------------------------------------------------------------------------------
// preprocess: (frame_height, frame_width, 3) uint8 BGR with a row pitch -> (network_height, network_width, 3) uint8.
//
// The frame takes (content_height, content_width) at the top left, the rest is grey. The arithmetic is that of OpenCV's
// cv2.resize with INTER_LINEAR on uint8, so that a model sees on the GPU what it saw on the CPU: half-pixel positions
// rounded to float32, weights of 11 bits, 4 bits dropped after the columns, 16 after each row, 2 with rounding at last.

#define WEIGHT_ONE 2048
#define LETTERBOX_FILL 127

struct Tap {
    int lower, upper;               // source pixels, inside the frame
    int lower_weight, upper_weight; // 0 to WEIGHT_ONE
};

// Where target pixel `index` lies between source pixels: float32((index + 0.5) * source / target - 0.5).
//
// OpenCV computes this in float64 and rounds once, to float32. On a GPU for the edge float64 is slow, but the position
// is p / q with the integers p = (2 * index + 1) * source - target and q = 2 * target, exact in float32 up to 2^24, and
// one float32 division rounds p / q correctly. The two agree: p / q is never half-way between two floats (that takes a
// p of 25 bits), hence at least 2^(e - 24) / q away from half-way where it has the exponent e, and float64 is wrong by
// less than 2^(e - 49), or 2^-52 where 0.5 cancels most of it: too little for q up to 2^13. Beyond, float64.
static __device__ float position(int index, int source, int target)
{
    const int numerator = (2 * index + 1) * source - target;
    if (target <= 1 << 12 && numerator <= 1 << 24)
        return (float)numerator / (float)(2 * target);
    const double scale = 1.0 / ((double)target / source);
    return (float)((index + 0.5) * scale - 0.5);
}

static __device__ Tap tap(int index, int source, int target)
{
    const float place = position(index, source, target);
    const float below = floorf(place);
    const float share = place - below;
    const int lower = (int)below;
    Tap result;
    result.lower = clamped(lower, 0, source - 1);
    result.upper = clamped(lower + 1, 0, source - 1);
    result.lower_weight = (int)rintf((1.0f - share) * WEIGHT_ONE);
    result.upper_weight = (int)rintf(share * WEIGHT_ONE);
    return result;
}

extern "C" __global__ void preprocess(
    const unsigned char *__restrict__ source, int source_pitch, unsigned char *__restrict__ target,
    int frame_height, int frame_width, int content_height, int content_width, int network_height, int network_width)
{
    EACH_THREAD {
        const int x = blockIdx.x * blockDim.x + threadIdx.x;
        const int y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x < network_width && y < network_height) {
            unsigned char *out = target + ((size_t)y * network_width + x) * 3;
            if (x < content_width && y < content_height) {
                const Tap row = tap(y, frame_height, content_height);
                const Tap column = tap(x, frame_width, content_width);
                const unsigned char *top = source + (size_t)row.lower * source_pitch;
                const unsigned char *bottom = source + (size_t)row.upper * source_pitch;
                const int left = 3 * column.lower, right = 3 * column.upper;
                for (int channel = 0; channel < 3; ++channel) {
                    const int above = top[left + channel] * column.lower_weight
                                    + top[right + channel] * column.upper_weight;
                    const int below = bottom[left + channel] * column.lower_weight
                                    + bottom[right + channel] * column.upper_weight;
                    const int sum = (row.lower_weight * (above >> 4) >> 16) + (row.upper_weight * (below >> 4) >> 16);
                    out[channel] = (unsigned char)((sum + 2) >> 2);
                }
            } else {
                out[0] = out[1] = out[2] = LETTERBOX_FILL;
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// scores_to_labels: (classes, grid_height, grid_width) scores -> (frame_height, frame_width) uint8 class ids.
//
// Bilinear upsampling and argmax in one step, by rules 1 to 3 of runtime/head.py, ties to the lowest id. One block
// works on one cell between four grid points, so that all its threads take the same way:
//
// 1. Uniform cell: the four corners have the same label, and so has every pixel. Nothing is interpolated.
// 2. Mixed cell: classes whose largest corner score is below the largest smallest corner score are dropped.
// 3. A pixel first compares what is left in float32, which is wrong by less than `doubt` (below). Where the best two
//    classes are nearer than that, and only there, it starts again in float64, as head.py does: on Jetson and
//    RTX a float64 operation costs 32 to 64 float32 ones.
//
// Positions are exact integers: frame pixel i lies at the grid coordinate (first + step * i) / denominator. head.py
// rounds the same number to float64. Where that is exact (denominator a power of two: the dyadic geometries of rule 3
// there), labels equal head.py's bit for bit, with the same restriction on scores. Elsewhere the two may differ at a
// pixel where the best two classes lie within float64 rounding of each other, and nowhere else. With M the largest
// magnitude of the scores around the pixel: the positions of head.py are wrong by 2^-51 * (grid points + |offset| /
// stride) at most, which moves a difference of scores by 4 M times that for each axis, and 32 roundings of 2^-53 * 4 M
// come from the sums: together less than M * 2^-30 for every size that model.json can hold, M * 2^-38 for common ones.
//
// With `point` set nothing is interpolated: a pixel has the label of the nearest corner, the lower or right one
// half-way. That is a comparison of integers, and labels equal head.py's bit for bit in every geometry.
//
// Scores that are not finite: every pixel of a cell with such a corner gets 255, which is no class id.

#define MAX_CLASSES 255
#define NOT_FINITE 255
#define LARGEST_FLOAT 3.402823466e38f

struct Axis {
    int points, pixels;           // of the grid, of the frame
    int cell;                     // cell of pixel 0, -1 to points - 1
    int step, first, denominator; // grid coordinate of pixel i is (first + step * i) / denominator
};

// Frame pixels begin to end - 1 lie between grid points `lower` and `upper`, the same one outside the grid: there any
// weight does, because it multiplies a difference of 0.
struct Cell {
    int begin, end, lower, upper;
    int step, first, denominator; // weight of `upper` at pixel i is (first + step * i) / denominator
};

static __device__ int first_pixel(const Axis &axis, int cell)
{
    const int distance = cell * axis.denominator - axis.first;
    return distance <= 0 ? 0 : min((distance - 1) / axis.step + 1, axis.pixels);
}

static __device__ Cell cell_of(const Axis &axis, int index)
{
    const int cell = axis.cell + index;
    Cell result;
    result.begin = cell < 0 ? 0 : first_pixel(axis, cell);
    result.end = cell + 1 >= axis.points ? axis.pixels : first_pixel(axis, cell + 1);
    result.lower = max(cell, 0);
    result.upper = min(cell + 1, axis.points - 1);
    result.step = axis.step;
    result.first = axis.first - cell * axis.denominator;
    result.denominator = axis.denominator;
    return result;
}

static __device__ float score_value(float score) { return score; }
static __device__ float score_value(unsigned short bits) { return half_value(bits); }

// Whether frame pixel `index` is nearer to grid point `upper`, or half-way.
static __device__ int takes_upper(const Cell &cell, int index)
{
    return cell.first + cell.step * index >= (cell.denominator + 1) / 2;
}

// Corner scores of one cell: [top left, top right, bottom left, bottom right][class], after rule 2 [...][k-th left].
typedef float Corners[4][MAX_CLASSES];

static __device__ int corner_label(const float *scores, int classes)
{
    bool finite = true;
    int label = 0;
    for (int id = 0; id < classes; ++id) {
        finite = finite && fabsf(scores[id]) <= LARGEST_FLOAT;
        if (scores[id] > scores[label])
            label = id;
    }
    return finite ? label : NOT_FINITE;
}

static __device__ float lowest_corner(const Corners &scores, int id)
{
    return fminf(fminf(scores[0][id], scores[1][id]), fminf(scores[2][id], scores[3][id]));
}

static __device__ float highest_corner(const Corners &scores, int id)
{
    return fmaxf(fmaxf(scores[0][id], scores[1][id]), fmaxf(scores[2][id], scores[3][id]));
}

// Rule 2: moves what is left to the front, ids ascending, and gives their number. `doubt`: see `quick_label`.
static __device__ int drop_classes(Corners &scores, unsigned char *ids, int classes, float *doubt)
{
    float reached = lowest_corner(scores, 0);
    for (int id = 1; id < classes; ++id)
        reached = fmaxf(reached, lowest_corner(scores, id));
    int left = 0;
    float magnitude = 0.0f;
    for (int id = 0; id < classes; ++id) {
        const float highest = highest_corner(scores, id);
        if (highest >= reached) {
            magnitude = fmaxf(magnitude, fmaxf(highest, -lowest_corner(scores, id)));
            ids[left] = (unsigned char)id;
            for (int corner = 0; corner < 4; ++corner)
                scores[corner][left] = scores[corner][id];
            ++left;
        }
    }
    *doubt = magnitude * 7.62939453125e-6f + 1.0e-37f;
    return left;
}

// Interpolated in float32: the label, or -1 where the best two classes are within `doubt` of each other.
//
// Error of one interpolated score, in units of M * 2^-24 with M the largest magnitude of a score left: weights 3 (an
// integer made float, a reciprocal, a product), so 2 + 2 * 3 + 2 + 1 = 11 for `top` and `bottom`; their difference
// 2 * 11 + 2, times the weight another 2 * 3 + 2, plus `top` and the last sum: below 46. Two scores: below 92, and
// terms of second order far below 1. `doubt` is 128 of them, plus what subnormal numbers lose. A score that is infinite
// or NaN after an overflow, of whatever class, or too large to tell, leaves the pixel to float64.
static __device__ int quick_label(const Corners &scores, int left, float across, float down, float doubt)
{
    float best = 0.0f, second = 0.0f;
    int label = 0;
    for (int k = 0; k < left; ++k) {
        const float top = scores[0][k] + across * (scores[1][k] - scores[0][k]);
        const float bottom = scores[2][k] + across * (scores[3][k] - scores[2][k]);
        const float score = top + down * (bottom - top);
        if (!(fabsf(score) <= 1.0e37f)) // so for NaN, which fmaxf and > would pass over
            return -1;
        if (k == 0) {
            best = score;
            second = -LARGEST_FLOAT;
        } else if (score > best) {
            second = best;
            best = score;
            label = k;
        } else {
            second = fmaxf(second, score);
        }
    }
    return best - second > doubt ? label : -1;
}

// Rule 3 of head.py, operation by operation: float64 differences to the lowest class left.
static __device__ int careful_label(const Corners &scores, int left, double across, double down)
{
    double best = 0.0;
    int label = 0;
    for (int k = 1; k < left; ++k) {
        const double top_left = (double)scores[0][k] - scores[0][0], top_right = (double)scores[1][k] - scores[1][0];
        const double start = top_left + down * ((double)scores[2][k] - scores[2][0] - top_left);
        const double end = top_right + down * ((double)scores[3][k] - scores[3][0] - top_right);
        const double lead = (end - start) * across + start;
        if (lead > best) {
            best = lead;
            label = k;
        }
    }
    return label;
}

static __device__ int pixel_label(
    const Corners &scores, const unsigned char *ids, int left, float doubt, const Cell &row, const Cell &column,
    int y, int x)
{
    const int down = row.first + row.step * y, across = column.first + column.step * x;
    const int quick = quick_label(scores, left, (float)across * (1.0f / (float)column.denominator),
                                  (float)down * (1.0f / (float)row.denominator), doubt);
    if (quick >= 0)
        return ids[quick];
    return ids[careful_label(scores, left, (double)across / column.denominator, (double)down / row.denominator)];
}

template <typename Score>
static __device__ void label_cell(
    const Score *__restrict__ scores, unsigned char *__restrict__ labels, int classes, int point, const Axis rows,
    const Axis columns)
{
    __shared__ Corners corners;
    __shared__ unsigned char ids[MAX_CLASSES];
    __shared__ int corner_labels[4], left;
    __shared__ float doubt;
    const Cell row = cell_of(rows, blockIdx.y), column = cell_of(columns, blockIdx.x);
    if (row.begin >= row.end || column.begin >= column.end)
        return; // fewer pixels than grid points: this cell has none
    EACH_THREAD {
        const size_t plane = (size_t)rows.points * columns.points;
        const Score *upper = scores + (size_t)row.lower * columns.points;
        const Score *lower = scores + (size_t)row.upper * columns.points;
        for (int id = thread_in_block(); id < classes; id += threads_of_block()) {
            corners[0][id] = score_value(upper[id * plane + column.lower]);
            corners[1][id] = score_value(upper[id * plane + column.upper]);
            corners[2][id] = score_value(lower[id * plane + column.lower]);
            corners[3][id] = score_value(lower[id * plane + column.upper]);
        }
    }
    BARRIER;
    EACH_THREAD {
        for (int corner = thread_in_block(); corner < 4; corner += threads_of_block())
            corner_labels[corner] = corner_label(corners[corner], classes);
    }
    BARRIER;
    int whole = corner_labels[0]; // the label of the whole cell, -1 where it is mixed
    for (int corner = 1; corner < 4; ++corner)
        if (whole != NOT_FINITE && corner_labels[corner] != whole)
            whole = corner_labels[corner] == NOT_FINITE ? NOT_FINITE : -1;
    if (whole < 0 && !point) {
        EACH_THREAD {
            if (thread_in_block() == 0)
                left = drop_classes(corners, ids, classes, &doubt);
        }
        BARRIER;
    }
    EACH_THREAD {
        for (int y = row.begin + blockIdx.z * blockDim.y + threadIdx.y; y < row.end; y += gridDim.z * blockDim.y)
            for (int x = column.begin + threadIdx.x; x < column.end; x += blockDim.x)
                labels[(size_t)y * columns.pixels + x] = (unsigned char)(
                    whole >= 0 ? whole
                    : point    ? corner_labels[2 * takes_upper(row, y) + takes_upper(column, x)]
                               : pixel_label(corners, ids, left, doubt, row, column, y, x));
    }
}

#define SCORES_TO_LABELS(name, Score)                                                                                  \
    extern "C" __global__ void name(                                                                                   \
        const Score *__restrict__ scores, unsigned char *__restrict__ labels, int classes, int point,                  \
        int grid_height, int frame_height, int row_cell, int row_step, int row_first, int row_denominator,             \
        int grid_width, int frame_width, int column_cell, int column_step, int column_first, int column_denominator)   \
    {                                                                                                                  \
        const Axis rows = {grid_height, frame_height, row_cell, row_step, row_first, row_denominator};                 \
        const Axis columns = {grid_width, frame_width, column_cell, column_step, column_first, column_denominator};    \
        label_cell(scores, labels, classes, point, rows, columns);                                                     \
    }

SCORES_TO_LABELS(scores_to_labels_f32, float)
SCORES_TO_LABELS(scores_to_labels_f16, unsigned short) // the bits of float16 scores

// ---------------------------------------------------------------------------------------------------------------------
// overlay: frame = round(frame * keep + colour * alpha) in place, where the label's class is painted.
//
// Rounded as runtime/overlay.py's blend, which is cv2.addWeighted with vector instructions: one float32 product, one
// fused multiply-add, ties to the even grey level. Frame (packed BGR) and labels begin at multiples of 4 bytes: a
// thread takes four pixels, one word of labels and three of the frame, and leaves the frame alone where none is
// painted. `palette`: 256 BGR colours; `painted`: 256 bytes, 0 where the camera's pixel stays.

static __device__ unsigned char blended(unsigned int pixel, unsigned char colour, float keep, float alpha)
{
    return (unsigned char)rintf(fmaf((float)pixel, keep, (float)colour * alpha));
}

extern "C" __global__ void overlay(
    unsigned char *__restrict__ frame, const unsigned char *__restrict__ labels,
    const unsigned char *__restrict__ palette, const unsigned char *__restrict__ painted, int pixels, float keep,
    float alpha)
{
    EACH_THREAD {
        const int begin = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
        if (begin + 4 <= pixels) {
            const unsigned int word = *(const unsigned int *)(labels + begin);
            bool any = false;
            for (int k = 0; k < 4; ++k)
                any = any || painted[word >> 8 * k & 255];
            if (any) {
                unsigned int *words = (unsigned int *)(frame + 3 * (size_t)begin);
                for (int part = 0; part < 3; ++part) {
                    unsigned int old = words[part], mixed = 0;
                    for (int k = 0; k < 4; ++k) {
                        const int byte = 4 * part + k, label = word >> 8 * (byte / 3) & 255;
                        unsigned int value = old >> 8 * k & 255;
                        if (painted[label])
                            value = blended(value, palette[3 * label + byte % 3], keep, alpha);
                        mixed |= value << 8 * k;
                    }
                    words[part] = mixed;
                }
            }
        } else {
            for (int pixel = begin; pixel < pixels; ++pixel)
                for (int channel = 0; channel < 3 && painted[labels[pixel]]; ++channel) {
                    unsigned char *value = frame + 3 * (size_t)pixel + channel;
                    *value = blended(*value, palette[3 * labels[pixel] + channel], keep, alpha);
                }
        }
    }
}
