// One 3x3 convolution with everything that follows it: bias, leak, residuals, rounding.
//
// Pixels are the rows of the matrix product, output channels its columns, input channels times nine
// taps its depth. Activations lie in planes of eight channels, [C / 8][height + ring][width + ring][8]
// of 16-bit floats, so that 16 bytes are one pixel's share of a plane: tiles are copied and read along
// rows without bank conflicts, whichever tap shifts them, and a warp writes whole lines. Around every
// plane lies a ring of one pixel of zeros, the convolution's padding.
//
// A block of warps keeps STAGES slices of 16 input channels in shared memory, copied while earlier ones
// are multiplied. A warp makes ROWS x COLS pixels of BLOCKS x 8 channels. For one horizontal tap it
// holds the weights of all three vertical ones, and each row of pixels that it reads serves the three
// output rows that see it. Where two blocks share a multiprocessor, one multiplies while the other
// begins or ends.
//
// Measured on an H100, without gain: blocks that stay for many tiles, Hopper's copy engine, and a
// delay of every other block (each 1 % or less); eight warps that share one larger tile: 0.8 times.
//
// Given when compiled: WARPS of a block, of them WARPS_N side by side along output channels and WARPS_X
// along x; BLOCKS (8-channel columns of a warp), STAGES, RESIDENT (blocks that share a
// multiprocessor), IS_BFLOAT16, IS_DOUBLED (sources are read as if each pixel were 2x2), TO_PLANES,
// TO_TRUNK, TO_PICTURE (where the result goes), RESIDUALS (how many are added).
// No headers: NVRTC then needs no toolkit.

typedef unsigned int u32;

#define ROWS 4
#define COLS 32
#define THREADS (32 * WARPS)

constexpr int WARPS_Y = WARPS / WARPS_N / WARPS_X;
constexpr int TILE_WIDTH = COLS * WARPS_X;
constexpr int TILE_HEIGHT = ROWS * WARPS_Y;
constexpr int INPUT_WIDTH = TILE_WIDTH + 2;
constexpr int PLANE_UNITS = (TILE_HEIGHT + 2) * INPUT_WIDTH;
constexpr int INPUT_UNITS = 2 * PLANE_UNITS;
constexpr int COLUMNS = WARPS_N * BLOCKS;
constexpr int WEIGHT_UNITS = 9 * COLUMNS * 16;
constexpr int STAGE_UNITS = INPUT_UNITS + WEIGHT_UNITS;
constexpr u32 STAGE_BYTES = STAGE_UNITS * 16;
constexpr int ROWS_AT_ONCE = RESIDUALS == 2 ? ROWS / 2 : ROWS; // as registers allow

// All sizes in units of 16 bytes unless said otherwise.
struct Convolution {
    const uint4 *first, *second; // sources: planes of the first, then of the second
    const uint4 *weights;        // in fragments, see models/upscaled_models/backends/cuda/layout.py
    const float *bias, *slope;   // for each output channel
    uint4 *planes;               // where the result goes in 16 bits; or null
    float *trunk;                // the same in 32 bits, its own planes; or null
    float *picture;              // the same as [N, channels, height, width] without ring; or null
    const float *residual, *shortcut; // in 32 bits, shaped as `trunk`, or null
    long long first_image, second_image, planes_image; // from one image of the batch to the next
    int first_planes, chunks;    // planes of `first`; slices of 16 input channels in all
    int source_plane, source_pitch;
    int height, width, pitch, plane; // of the result: pixels; its row and plane with ring
    int planes_in_trunk, picture_channels;
    float gain, residual_gain, shortcut_gain;
};

__device__ __forceinline__ u32 shared_address(const void *pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void load_pixels(u32 (&pixels)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pixels[0]), "=r"(pixels[1]), "=r"(pixels[2]), "=r"(pixels[3])
                 : "r"(address));
}

__device__ __forceinline__ uint2 load_weights(u32 address) {
    uint2 weights;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(weights.x), "=r"(weights.y) : "r"(address));
    return weights;
}

__device__ __forceinline__ void multiply(float (&sum)[4], const u32 (&pixels)[4], uint2 weights) {
#if IS_BFLOAT16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#endif
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(pixels[0]), "r"(pixels[1]), "r"(pixels[2]), "r"(pixels[3]), "r"(weights.x),
                   "r"(weights.y));
}

__device__ __forceinline__ u32 round_pair(float low, float high) {
    u32 pair;
#if IS_BFLOAT16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

__device__ __forceinline__ float leak(float value, float slope) {
    return value >= 0 ? value : value * slope;
}

// Where this block's tile begins, ring included, in the first plane of a source.
__device__ __forceinline__ const uint4 *find_tile(const uint4 *source, long long image_units,
                                                  const Convolution &of) {
#if IS_DOUBLED
    const int top = blockIdx.y * TILE_HEIGHT / 2, left = blockIdx.x * TILE_WIDTH / 2;
#else
    const int top = blockIdx.y * TILE_HEIGHT, left = blockIdx.x * TILE_WIDTH;
#endif
    return source + blockIdx.z * image_units + top * of.source_pitch + left;
}

// Both sources of the tile: slices come from one, then from the other.
struct Sources {
    const uint4 *first, *second;
};

__device__ __forceinline__ const uint4 *find_slice(const Sources &sources, int chunk,
                                                   const Convolution &of) {
    const int plane = 2 * chunk, in_second = plane - of.first_planes;
    return in_second < 0 ? sources.first + static_cast<long long>(plane) * of.source_plane
                         : sources.second + static_cast<long long>(in_second) * of.source_plane;
}

constexpr int COPIES = (INPUT_UNITS + THREADS - 1) / THREADS;

// This thread's units of every slice, from where the slice begins in its source.
struct Share {
    int from[COPIES];
};

__device__ __forceinline__ Share find_share(const Convolution &of) {
    Share share;
#pragma unroll
    for (int copy = 0; copy < COPIES; ++copy) {
        const int unit = copy * THREADS + threadIdx.x, in_plane = unit % PLANE_UNITS;
        int y = in_plane / INPUT_WIDTH, x = in_plane % INPUT_WIDTH;
#if IS_DOUBLED
        y = (y + 1) / 2; // of planes with their ring: ((y - 1) >> 1) + 1
        x = (x + 1) / 2;
#endif
        share.from[copy] = unit / PLANE_UNITS * of.source_plane + y * of.source_pitch + x;
    }
    return share;
}

__device__ __forceinline__ void copy_unit(u32 to, const uint4 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

__device__ __forceinline__ void copy_slice(u32 stage, int chunk, const Share &share,
                                           const Sources &sources, const Convolution &of) {
    const uint4 *const source = find_slice(sources, chunk, of);
#pragma unroll
    for (int copy = 0; copy < COPIES; ++copy) {
        const int unit = copy * THREADS + threadIdx.x;
        if (unit < INPUT_UNITS)
            copy_unit(stage + unit * 16, source + share.from[copy]);
    }
    const uint4 *const weights = of.weights + chunk * WEIGHT_UNITS;
    for (int unit = threadIdx.x; unit < WEIGHT_UNITS; unit += THREADS)
        copy_unit(stage + (INPUT_UNITS + unit) * 16, weights + unit);
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }

__device__ __forceinline__ void wait_for_slice() {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
}

__device__ __forceinline__ void multiply_stage(float (&sums)[ROWS][2][BLOCKS][4], u32 pixels_at,
                                               u32 weights_at) {
#pragma unroll
    for (int dx = 0; dx < 3; ++dx) {
        uint2 weights[3][BLOCKS];
#pragma unroll
        for (int dy = 0; dy < 3; ++dy)
#pragma unroll
            for (int block = 0; block < BLOCKS; ++block)
                weights[dy][block] =
                    load_weights(weights_at + ((dy * 3 + dx) * COLUMNS + block) * 256);
#pragma unroll
        for (int seen = 0; seen < ROWS + 2; ++seen) {
            u32 pixels[2][4];
#pragma unroll
            for (int half = 0; half < 2; ++half)
                load_pixels(pixels[half],
                            pixels_at + (seen * INPUT_WIDTH + dx + half * 16) * 16);
#pragma unroll
            for (int dy = 0; dy < 3; ++dy) {
                const int row = seen - dy;
                if (row < 0 || row >= ROWS)
                    continue;
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int block = 0; block < BLOCKS; ++block)
                        multiply(sums[row][half][block], pixels[half], weights[dy][block]);
            }
        }
    }
}

// From here on, what becomes of a thread's sums: of pixels lane / 4 and every eighth behind it,
// channels 2 * (lane % 4) and the next of every column.
struct Place {
    int y, x, channel;
    long long pixel; // in the result's planes: of `channel`'s plane, at (y, x)
};

__device__ __forceinline__ Place find_place(const Convolution &of, int along_n, int top, int left) {
    Place place;
    place.y = blockIdx.y * TILE_HEIGHT + top;
    place.x = blockIdx.x * TILE_WIDTH + left + threadIdx.x % 32 / 4;
    place.channel = along_n * BLOCKS * 8 + threadIdx.x % 4 * 2;
    place.pixel = static_cast<long long>(along_n * BLOCKS) * of.plane +
                  (place.y + 1) * of.pitch + place.x + 1;
    return place;
}

__device__ __forceinline__ float2 load_pair(const float *at) {
    return *reinterpret_cast<const float2 *>(at);
}

__device__ __forceinline__ void put_sums(const float (&sums)[ROWS][2][BLOCKS][4],
                                         const Convolution &of, const Place &place) {
    const int image = blockIdx.z;
#if TO_PLANES
    u32 *const planes = reinterpret_cast<u32 *>(of.planes + image * of.planes_image + place.pixel) +
                        place.channel % 8 / 2;
#endif
#if TO_TRUNK || RESIDUALS
    const long long in_trunk =
        (static_cast<long long>(image) * of.planes_in_trunk * of.plane + place.pixel) * 8 +
        place.channel % 8;
#endif
#if TO_PICTURE
    const int area = of.height * of.width;
    float *const picture = of.picture + static_cast<long long>(image) * of.picture_channels * area +
                           place.y * of.width + place.x;
#endif
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
        const float2 bias = load_pair(of.bias + place.channel + block * 8);
        const float2 slope = load_pair(of.slope + place.channel + block * 8);
#pragma unroll
        for (int from = 0; from < ROWS; from += ROWS_AT_ONCE) {
#if RESIDUALS
            // All of them before anything is written: the trunk may be written where it is read.
            float2 residuals[ROWS_AT_ONCE][4];
#if RESIDUALS == 2
            float2 shortcuts[ROWS_AT_ONCE][4];
#endif
#pragma unroll
            for (int at = 0; at < ROWS_AT_ONCE; ++at)
#pragma unroll
                for (int part = 0; part < 4; ++part) {
                    const int row = from + at;
                    const int offset = (block * of.plane + row * of.pitch + part * 8) * 8;
                    if (place.y + row >= of.height || place.x + part * 8 >= of.width)
                        continue;
                    residuals[at][part] = load_pair(of.residual + in_trunk + offset);
#if RESIDUALS == 2
                    shortcuts[at][part] = load_pair(of.shortcut + in_trunk + offset);
#endif
                }
#endif
#pragma unroll
            for (int at = 0; at < ROWS_AT_ONCE; ++at)
#pragma unroll
                for (int part = 0; part < 4; ++part) {
                    const int row = from + at;
                    if (place.y + row >= of.height || place.x + part * 8 >= of.width)
                        continue;
                    const float *sum = sums[row][part / 2][block] + part % 2 * 2;
                    float low = leak(sum[0] + bias.x, slope.x), high = leak(sum[1] + bias.y, slope.y);
#if RESIDUALS
                    low = low * of.gain + residuals[at][part].x * of.residual_gain;
                    high = high * of.gain + residuals[at][part].y * of.residual_gain;
#endif
#if RESIDUALS == 2
                    low += shortcuts[at][part].x * of.shortcut_gain;
                    high += shortcuts[at][part].y * of.shortcut_gain;
#endif
#if TO_TRUNK || TO_PLANES
                    const int offset = block * of.plane + row * of.pitch + part * 8;
#endif
#if TO_TRUNK
                    *reinterpret_cast<float2 *>(of.trunk + in_trunk + offset * 8) =
                        make_float2(low, high);
#endif
#if TO_PLANES
                    planes[offset * 4] = round_pair(low, high);
#endif
#if TO_PICTURE
                    const int channel = place.channel + block * 8;
                    float *const to = picture + row * of.width + part * 8;
                    if (channel < of.picture_channels)
                        to[static_cast<long long>(channel) * area] = low;
                    if (channel + 1 < of.picture_channels)
                        to[static_cast<long long>(channel + 1) * area] = high;
#endif
                }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv3x3(const Convolution of) {
    extern __shared__ uint4 stages[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int along_n = warp % WARPS_N;
    const int left = warp / WARPS_N % WARPS_X * COLS, top = warp / WARPS_N / WARPS_X * ROWS;
    const u32 start = shared_address(stages);
    // The first 16 lanes read 16 pixels of the slice's first plane, the others of its second.
    const u32 pixels_at =
        start + (lane / 16 * PLANE_UNITS + top * INPUT_WIDTH + left + lane % 16) * 16;
    const u32 weights_at = start + INPUT_UNITS * 16 + along_n * BLOCKS * 256 + lane * 8;

    const Sources sources = {find_tile(of.first, of.first_image, of),
                             find_tile(of.second, of.second_image, of)};
    const Share share = find_share(of);

#pragma unroll
    for (int chunk = 0; chunk < STAGES - 1; ++chunk) {
        if (chunk < of.chunks)
            copy_slice(start + chunk * STAGE_BYTES, chunk, share, sources, of);
        commit_copies();
    }

    float sums[ROWS][2][BLOCKS][4] = {};
    int stage = 0, free = STAGES - 1;
    for (int chunk = 0; chunk < of.chunks; ++chunk) {
        wait_for_slice();
        __syncthreads(); // the slice is here for all, and the stage before is read by all
        const int next = chunk + STAGES - 1;
        if (next < of.chunks)
            copy_slice(start + free * STAGE_BYTES, next, share, sources, of);
        commit_copies();
        multiply_stage(sums, pixels_at + stage * STAGE_BYTES, weights_at + stage * STAGE_BYTES);
        free = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    put_sums(sums, of, find_place(of, along_n, top, left));
}
